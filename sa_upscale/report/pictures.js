// Makes the viewer work: it shows the pictures of the sheets, two at a time, with a divider between them.
"use strict";
(() => {
  const viewer = document.getElementById("viewer");
  if (!viewer) return;
  const sheets = [...document.querySelectorAll(".sheet")];
  const find = (selector) => viewer.querySelector(selector);
  const pane = find(".pane"), result = find(".result"), against = find(".against"), time = find("#time");
  const chosen = (name) => find(`input[name="${name}"]:checked`).value;
  const titles = { bicubic: "Bicubic", hr: "Ground truth", first: "First step" };
  let split = 50, playing = null;

  const sheet = () => sheets[chosen("scene")];
  const pictures = (what) => [...sheet().querySelectorAll("img")].filter((image) => image.dataset.what === what);
  const moments = () => [...sheet().querySelectorAll("[data-moment]")].map((head) => head.dataset.moment);

  function show() {
    const shots = pictures("sr"), last = Math.max(shots.length - 1, 0);
    time.max = last;
    const shot = shots[Math.min(time.value, last)] ?? pictures("hr")[0] ?? pictures("bicubic")[0];
    const other = chosen("against") === "first" ? shots[0] : pictures(chosen("against"))[0];
    const moment = shots.length ? moments()[shot.dataset.shot] : "";
    if (shot) result.src = shot.src;
    against.hidden = !other;
    if (other) against.src = other.src;
    find(".left").textContent = other ? titles[chosen("against")] : "";
    find(".right").textContent = shots.length ? "Result" : "";
    find("output").textContent = moment;
    time.setAttribute("aria-valuetext", moment);
    sheets.forEach((one) => { one.hidden = one !== sheet(); });
    for (const image of sheet().querySelectorAll("img")) image.classList.toggle("chosen", image === shot);
    const strip = sheet().querySelector(".scroll");
    if (shot) {
      const here = shot.getBoundingClientRect(), frame = strip.getBoundingClientRect();
      strip.scrollLeft += here.left + here.width / 2 - frame.left - frame.width / 2;
    }
    showMaps(Number(shot?.dataset.shot ?? 0));
    enlarge();
  }

  function showMaps(index) {
    const kinds = new Set([...sheet().querySelectorAll("img")].map((image) => image.dataset.what));
    for (const what of ["sr", "bicubic", "hr"]) kinds.delete(what);
    const holds = ({ dataset }) => Number(dataset.shot) <= index && index < Number(dataset.shot) + Number(dataset.shots);
    const maps = [...kinds].map((what) => [what, pictures(what).find(holds)]).filter(([, map]) => map);
    find(".maps").replaceChildren(...maps.map(([what, map]) => {
      const figure = document.createElement("figure"), image = new Image(), title = document.createElement("small");
      image.src = map.src;
      image.alt = title.textContent = what;
      figure.append(image, title);
      return figure;
    }));
  }

  function enlarge() {
    for (const image of [result, against]) {
      image.decode().catch(() => {}).then(() => { image.style.width = `${result.naturalWidth * chosen("zoom")}px`; });
    }
  }

  function divide(place) {
    split = Math.min(Math.max(place, 0), 100);
    pane.style.setProperty("--split", `${split}%`);
    pane.setAttribute("aria-valuenow", Math.round(split));
  }

  function go(by) {
    time.value = Number(time.value) + by;
    show();
  }

  const flip = () => divide(split > 50 ? 0 : 100);
  const drag = (event) => {
    const box = pane.getBoundingClientRect();
    divide((event.clientX - box.left) / box.width * 100);
  };
  pane.addEventListener("pointerdown", (event) => {
    drag(event);
    // A finger beside the divider scrolls the enlarged picture.
    if (event.pointerType === "mouse" || event.target !== pane) event.target.setPointerCapture(event.pointerId);
  });
  pane.addEventListener("pointermove", (event) => {
    if (event.target.hasPointerCapture(event.pointerId)) drag(event);
  });
  pane.addEventListener("keydown", (event) => {
    const keys = {
      ArrowLeft: () => divide(split - 5), ArrowRight: () => divide(split + 5), Home: () => divide(0), End: () => divide(100),
      ArrowUp: () => go(1), ArrowDown: () => go(-1), f: flip, F: flip,
    };
    if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    keys[event.key]();
  });
  find("#flip").addEventListener("click", flip);
  find("#play").addEventListener("click", (event) => {
    clearInterval(playing);
    playing = playing === null ? setInterval(() => {
      if (Number(time.value) >= Number(time.max)) time.value = -1;
      go(1);
    }, 800) : null;
    event.target.textContent = playing === null ? "Play" : "Stop";
  });
  viewer.addEventListener("input", show);
  for (const one of sheets) {
    one.addEventListener("click", ({ target }) => {
      const taken = pictures("sr").findIndex((image) => image.dataset.shot === target.dataset.shot);
      if (taken >= 0) time.value = taken;
      else if (target.dataset.what in titles) find(`input[name="against"][value="${target.dataset.what}"]`).checked = true;
      show();
    });
  }

  viewer.hidden = false;
  document.getElementById("sheets").classList.add("viewing");
  const box = find(".window"), room = box.clientWidth - 2 * parseFloat(getComputedStyle(box).paddingLeft);
  time.max = 1e6;
  time.value = 1e6;
  divide(50);
  show();
  result.decode().catch(() => {}).then(() => {
    const fits = [8, 4, 2].find((zoom) => result.naturalWidth * zoom <= room) ?? 1;
    find(`input[name="zoom"][value="${fits}"]`).checked = true;
    enlarge();
  });
})();
