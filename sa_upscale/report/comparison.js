// Makes the viewer work: two of the pictures, moved and enlarged together.
"use strict";
(() => {
  const compare = document.getElementById("compare"), stage = compare.querySelector(".stage");
  const find = (selector) => compare.querySelector(selector);
  const scenes = [...document.querySelectorAll(".scene")], scene = document.getElementById("scene");
  const sides = ["left", "right"], layers = sides.map((side) => find(`.layer.${side}`));
  let sources, width, height;
  const chosen = (name) => find(`input[name="${name}"]:checked`).value;
  const choose = (name, value) => { find(`input[name="${name}"][value="${value}"]`).checked = true; show(); };
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const MOST = 32, LEAST = 1 / 32;
  // Device pixels a picture's pixel, and where the picture's corner is in its layer, in CSS pixels.
  const view = { zoom: 1, x: 0, y: 0, fits: true };
  const pointers = new Map();
  let split = 50, dividing = false;

  // Of several things one at a time is shown, at the same two of its pictures.
  function enter() {
    const entered = scenes[scene?.selectedIndex ?? 0];
    for (const each of scenes) each.hidden = each !== entered;
    sources = [...entered.querySelectorAll(".pictures img")];
    [width, height] = entered.dataset.size.split(" ").map(Number);
    stage.style.aspectRatio = `${width} / ${height}`;
    for (const layer of layers) delete layer.dataset.of;
    view.fits = true;
    show();
  }

  function show() {
    stage.dataset.mode = chosen("mode");
    sides.forEach((side, index) => {
      const source = sources[chosen(side)];
      if (layers[index].dataset.of !== chosen(side)) layers[index].replaceChildren(source.cloneNode());
      layers[index].dataset.of = chosen(side);
      find(`.side.${side}`).textContent = source.alt;
    });
    find(".gain").hidden = chosen("mode") !== "difference";
    divide(split);
    if (view.fits) fit();
    else place();
  }

  function place() {
    const box = layers[0].getBoundingClientRect(), scale = view.zoom / devicePixelRatio;
    const inside = (at, room, size) => size <= room ? (room - size) / 2 : clamp(at, room - size, 0);
    view.x = inside(view.x, layers[0].clientWidth, width * scale);
    view.y = inside(view.y, box.height, height * scale);
    // To a whole device pixel, or the picture would be resampled.
    const whole = (value) => Math.round(value * devicePixelRatio) / devicePixelRatio;
    for (const layer of layers) {
      layer.classList.toggle("near", view.zoom >= 1);
      layer.firstChild.style.transform = `translate(${whole(view.x)}px, ${whole(view.y)}px) scale(${scale})`;
    }
    find(".zooms output").textContent = `${Number((view.zoom * 100).toPrecision(3))} %`;
  }

  function fit() {
    const box = layers[0].getBoundingClientRect();
    Object.assign(view, { zoom: Math.min(box.width / width, box.height / height) * devicePixelRatio, fits: true });
    place();
  }

  // Without a point, the middle of the layer stays where it is.
  function enlarge(zoom, point) {
    const box = layers[0].getBoundingClientRect(), [x, y] = point ?? [box.width / 2, box.height / 2];
    const wanted = clamp(zoom, LEAST, MOST), ratio = wanted / view.zoom;
    Object.assign(view, { zoom: wanted, x: x - (x - view.x) * ratio, y: y - (y - view.y) * ratio, fits: false });
    place();
  }

  function move(x, y) {
    view.x += x;
    view.y += y;
    place();
  }

  function showRegion([left, top, wide, high]) {
    const box = layers[0].getBoundingClientRect();
    const zoom = clamp(Math.min(box.width / wide, box.height / high) * devicePixelRatio, LEAST, MOST);
    const scale = zoom / devicePixelRatio, middle = (start, size, room) => room / 2 - (start + size / 2) * scale;
    Object.assign(view, { zoom, x: middle(left, wide, box.width), y: middle(top, high, box.height), fits: wide === width });
    place();
    stage.scrollIntoView({ block: "nearest" });
  }

  function divide(place) {
    split = clamp(place, 0, 100);
    stage.style.setProperty("--split", `${split}%`);
    stage.setAttribute("aria-valuenow", Math.round(split));
    const slider = stage.dataset.mode === "slider";
    find(".side.left").classList.toggle("unseen", slider && split === 0);
    find(".side.right").classList.toggle("unseen", slider && split === 100);
    stage.setAttribute("aria-valuetext", `${Math.round(split)} % ${sources[chosen("left")].alt}`);
  }

  function flip() {
    if (chosen("mode") !== "slider") choose("mode", "slider");
    divide(split > 50 ? 0 : 100);
  }

  const step = (by) => enlarge(2 ** (by > 0 ? Math.floor(Math.log2(view.zoom) + 1.001) : Math.ceil(Math.log2(view.zoom) - 1.001)));
  const toggle = (mode) => choose("mode", chosen("mode") === mode ? "slider" : mode);
  const zooms = { fit, 1: () => enlarge(1), out: () => step(-1), in: () => step(1) };

  // Where an event is in the layer under it.
  function at({ clientX, clientY }) {
    const [first, second] = layers.map((layer) => layer.getBoundingClientRect());
    const box = clientX < second.left ? first : second;
    return [clientX - box.left, clientY - box.top];
  }
  const held = () => [...pointers.values()];
  const middle = () => [0, 1].map((axis) => held().reduce((sum, point) => sum + point[axis], 0) / pointers.size);
  const spread = () => pointers.size < 2 ? 1 : Math.hypot(...[0, 1].map((axis) => held()[0][axis] - held()[1][axis]));

  stage.addEventListener("pointerdown", (event) => {
    stage.setPointerCapture(event.pointerId);
    dividing = pointers.size === 0 && event.target.matches(".divider");
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
    stage.classList.toggle("moving", !dividing);
  });
  stage.addEventListener("pointermove", (event) => {
    if (!pointers.has(event.pointerId)) return;
    const before = middle(), wide = spread();
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
    const box = stage.getBoundingClientRect(), [x, y] = middle();
    if (dividing) divide((x - box.left) / box.width * 100);
    else {
      move(x - before[0], y - before[1]);
      if (spread() !== wide) enlarge(view.zoom * spread() / wide, at({ clientX: x, clientY: y }));
    }
  });
  for (const over of ["pointerup", "pointercancel"]) {
    stage.addEventListener(over, (event) => {
      pointers.delete(event.pointerId);
      stage.classList.remove("moving");
    });
  }
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    enlarge(view.zoom * Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.002)), at(event));
  }, { passive: false });
  stage.addEventListener("dblclick", (event) => view.fits ? enlarge(1, at(event)) : fit());

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target === scene) return;
    const arrow = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const keys = {
      f: flip, s: () => toggle("beside"), d: () => toggle("difference"), 0: fit, 1: zooms[1],
      "+": zooms.in, "=": zooms.in, "-": zooms.out,
      p: () => {
        if (scene) scene.selectedIndex = (scene.selectedIndex + 1) % scenes.length;
        enter();
      },
      n: () => choose("right", (Number(chosen("right")) + 1) % sources.length),
    };
    let act = keys[event.key.toLowerCase()];
    // Elsewhere arrows belong to the buttons and to the page.
    if (arrow && event.target === stage && event.shiftKey) act = () => move(-40 * arrow[0], -40 * arrow[1]);
    else if (arrow?.[0] && event.target === stage) act = () => divide(split + 2 * arrow[0]);
    if (!act) return;
    event.preventDefault();
    act();
  });
  find("#flip").addEventListener("click", flip);
  for (const button of compare.querySelectorAll("[data-zoom]")) button.addEventListener("click", zooms[button.dataset.zoom]);
  for (const button of document.querySelectorAll("[data-region]")) {
    button.addEventListener("click", () => showRegion(button.dataset.region.split(" ").map(Number)));
  }
  find(".controls").addEventListener("input", () => {
    stage.style.setProperty("--gain", find("#gain").value);
    find(".gain output").textContent = find("#gain").value;
    show();
  });
  scene?.addEventListener("change", enter);
  addEventListener("resize", show);

  compare.hidden = false;
  for (const pictures of document.querySelectorAll(".pictures")) pictures.classList.add("viewing");
  stage.style.setProperty("--gain", find("#gain").value);
  enter();
})();
