// Shows the pictures in an order of chance and collects their scores.
"use strict";
(() => {
  const find = (selector) => document.querySelector(selector);
  const known = JSON.parse(find("#pictures").textContent), images = [...document.querySelectorAll(".frame img")];
  const order = known.map((_, index) => index), scores = known.map(() => null);
  let place = 0;
  // Fisher and Yates.
  for (let last = order.length - 1; last > 0; last--) {
    const other = Math.floor(Math.random() * (last + 1));
    [order[last], order[other]] = [order[other], order[last]];
  }
  for (const image of images) {
    // A picture's pixel is a pixel of the screen.
    image.decode().catch(() => {}).then(() => { image.style.width = `${image.naturalWidth / devicePixelRatio}px`; });
  }

  function show() {
    const over = place === order.length;
    find("#test").hidden = over;
    find("#end").hidden = !over;
    images.forEach((image, index) => { image.hidden = over || index !== order[place]; });
    find("#place").textContent = `${place + 1} of ${order.length}`;
    for (const button of document.querySelectorAll("[data-score]")) {
      button.setAttribute("aria-pressed", Number(button.dataset.score) === scores[order[place]]);
    }
    if (over) find("#result").value = result();
  }

  const result = () => JSON.stringify({
    "sa-upscale blind test": 1,
    scores: order.map((index) => ({ ...known[index], score: scores[index] })),
  }, null, 1);

  function score(value) {
    scores[order[place]] = value;
    place++;
    show();
  }

  function back() {
    place = Math.max(place - 1, 0);
    show();
  }

  for (const button of document.querySelectorAll("[data-score]")) {
    button.addEventListener("click", () => score(Number(button.dataset.score)));
  }
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || place === order.length) return;
    if ("12345".includes(event.key)) score(Number(event.key));
    else if (event.key === "ArrowLeft") back();
  });
  find("#back").addEventListener("click", back);
  find("#save").addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([result()], { type: "application/json" }));
    link.download = "scores.json";
    link.click();
  });
  show();
})();
