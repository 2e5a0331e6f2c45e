// Shows the pictures, or pairs of them, in an order of chance and collects what is thought of them.
"use strict";
(() => {
  const find = (selector) => document.querySelector(selector);
  const { pictures: known, pairs } = JSON.parse(find("#pictures").textContent);
  const images = [...document.querySelectorAll(".frame img")], frame = find(".frame");
  const trials = shuffled(pairs ? twosomes() : known.map((_, index) => [index])), answers = trials.map(() => null);
  let place = 0, alone = 0, chosen = null;

  // Fisher and Yates.
  function shuffled(list) {
    for (let last = list.length - 1; last > 0; last--) {
      const other = Math.floor(Math.random() * (last + 1));
      [list[last], list[other]] = [list[other], list[last]];
    }
    return list;
  }

  // Every two results of one picture, either of them on the left.
  function twosomes() {
    const found = [];
    known.forEach((one, first) => known.forEach((other, second) => {
      if (first < second && one.picture === other.picture) found.push(shuffled([first, second]));
    }));
    return found;
  }

  for (const image of images) {
    // A picture's pixel is a pixel of the screen.
    image.decode().catch(() => {}).then(() => {
      image.style.width = `${image.naturalWidth / devicePixelRatio}px`;
      show();
    });
  }

  function show() {
    const over = place === trials.length, shown = over ? [] : trials[place];
    find("#test").hidden = over;
    find("#end").hidden = !over;
    const wide = shown.reduce((sum, index) => sum + images[index].naturalWidth / devicePixelRatio, 0);
    const turn = pairs && (chosen ?? wide > frame.clientWidth);
    images.forEach((image, index) => {
      image.hidden = !(turn ? shown[alone] === index : shown.includes(index));
      image.style.order = shown.indexOf(index);
    });
    find("#place").textContent = `${place + 1} of ${trials.length}`;
    if (pairs) {
      find("#seen").textContent = turn ? `This is ${"AB"[alone]}` : "A left, B right";
      find("#turn").setAttribute("aria-pressed", turn);
      find("#swap").disabled = !turn;
    }
    for (const button of document.querySelectorAll("[data-answer]")) {
      button.setAttribute("aria-pressed", button.dataset.answer === answers[place]);
    }
    if (over) find("#result").value = result();
  }

  const scored = () => trials.map(([index], turn) => ({ ...known[index], score: Number(answers[turn]) }));
  const preferred = () => trials.map((pair, turn) => {
    const models = pair.map((index) => known[index].model), better = ["a", "b"].indexOf(answers[turn]);
    return { picture: known[pair[0]].picture, models, better: models[better] ?? null };
  });
  const result = () => JSON.stringify({
    "sa-upscale blind test": 1, ...(pairs ? { choices: preferred() } : { scores: scored() }),
  }, null, 1);

  function go(to) {
    place = Math.max(to, 0);
    alone = 0;
    show();
  }

  function answer(value) {
    answers[place] = value;
    go(place + 1);
  }

  function swap() {
    alone = 1 - alone;
    show();
  }

  function turn() {
    chosen = find("#turn").getAttribute("aria-pressed") !== "true";
    show();
  }

  for (const button of document.querySelectorAll("[data-answer]")) {
    button.addEventListener("click", () => answer(button.dataset.answer));
  }
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || place === trials.length) return;
    const key = event.key.toLowerCase(), button = document.querySelector(`[data-answer="${CSS.escape(key)}"]`);
    if (button) answer(key);
    else if (key === "arrowleft") go(place - 1);
    else if (pairs && key === "t") turn();
    else if (pairs && key === " ") {
      event.preventDefault();
      if (!find("#swap").disabled) swap();
    }
  });
  find("#turn")?.addEventListener("click", turn);
  find("#swap")?.addEventListener("click", swap);
  find("#back").addEventListener("click", () => go(place - 1));
  find("#save").addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([result()], { type: "application/json" }));
    link.download = pairs ? "choices.json" : "scores.json";
    link.click();
  });
  addEventListener("resize", show);
  show();
})();
