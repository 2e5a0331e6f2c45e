// Draws each chart of the page from the figures in #curve-data, and reads all charts of a stage at the pointer's step.
"use strict";
(() => {
  const data = document.getElementById("curve-data");
  if (!data) return;
  const curves = JSON.parse(data.textContent);
  const smoothing = document.getElementById("smoothing");
  const LEFT = 50, RIGHT = 10, TOP = 8, BOTTOM = 20, MOST_DOTS = 60;

  const grouped = (step) => String(step).replace(/\B(?=(\d{3})+$)/g, "\u202f");
  const figure = (value, digits = 4) => {
    if (value === null) return "not finite";
    if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e6)) {
      return String(Number(value.toPrecision(digits)).toExponential());
    }
    return String(Number(value.toPrecision(digits)));
  };

  // A centred mean over a share of the curve; unlike a trailing one it does not shift the curve to the right.
  const smoothed = (values, share) => {
    const radius = Math.round(values.length * share / 2);
    if (radius === 0) return values;
    const sums = [0], counts = [0];
    values.forEach((value, i) => {
      sums.push(sums[i] + (value ?? 0));
      counts.push(counts[i] + (value === null ? 0 : 1));
    });
    return values.map((value, i) => {
      const from = Math.max(i - radius, 0), to = Math.min(i + radius + 1, values.length);
      return value === null ? null : (sums[to] - sums[from]) / (counts[to] - counts[from]);
    });
  };

  const ticks = (low, high, count) => {
    const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
    const size = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
    const first = Math.ceil(low / size - 1e-9), last = Math.floor(high / size + 1e-9);
    return Array.from({ length: last - first + 1 }, (_, i) => (first + i) * size);
  };
  const logTicks = (low, high) => {
    const found = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++) {
      for (const factor of [1, 2, 5]) found.push(factor * 10 ** power);
    }
    const inside = found.filter((value) => value >= low && value <= high);
    const decades = inside.filter((value) => Number.isInteger(Math.round(Math.log10(value) * 1e6) / 1e6));
    if (inside.length <= 5) return inside.length > 1 ? inside : ticks(low, high, 3);
    return decades.filter((_, i) => i % Math.ceil(decades.length / 5) === 0);
  };

  class Chart {
    constructor(element) {
      const curve = curves[element.dataset.chart];
      this.stage = curve.stage;
      this.exact = curve.exact;
      this.steps = curve.points.map((point) => point[0]);
      this.values = curve.points.map((point) => point[1]);
      this.plot = element.querySelector(".plot");
      this.output = element.querySelector("output");
      this.button = element.querySelector(".log");
      const finite = this.values.filter((value) => value !== null).sort((a, b) => a - b);
      this.finite = finite.length;
      this.button.hidden = !(finite[0] > 0 && finite.at(-1) / finite[0] > 3);
      this.log = !this.button.hidden && finite.at(-1) / finite[finite.length >> 1] > 8;
      this.button.addEventListener("click", () => { this.log = !this.log; this.draw(); });
      this.plot.addEventListener("pointermove", (event) => this.point(event));
      this.plot.addEventListener("pointerdown", (event) => this.point(event));
      this.plot.addEventListener("pointerleave", () => each(this.stage, (chart) => chart.rest()));
      new ResizeObserver(() => this.draw()).observe(this.plot);
    }

    draw() {
      this.button.setAttribute("aria-pressed", this.log);
      const width = this.plot.clientWidth, height = this.plot.clientHeight;
      const finite = this.values.filter((value) => value !== null);
      if (!finite.length) {
        this.plot.innerHTML = `<svg width="${width}" height="${height}"><text x="${width / 2}" y="${height / 2}"
          text-anchor="middle">no finite value</text></svg>`;
        this.rest();
        return;
      }
      const scaled = this.log ? Math.log : (value) => value;
      let low = Math.min(...finite), high = Math.max(...finite);
      if (low === high) [low, high] = low ? [low - Math.abs(low) / 2, high + Math.abs(high) / 2] : [-1, 1];
      const margin = (scaled(high) - scaled(low)) * 0.04;
      const bottom = scaled(low) - margin, top = scaled(high) + margin;
      let first = this.steps[0], last = this.steps.at(-1);
      if (first === last) [first, last] = [first - 1, last + 1];
      this.x = (step) => LEFT + (step - first) / (last - first) * (width - LEFT - RIGHT);
      this.y = (value) => TOP + (top - scaled(value)) / (top - bottom) * (height - TOP - BOTTOM);
      this.smooth = this.exact ? this.values : smoothed(this.values, smoothing.value / 100);

      const unlogged = this.log ? Math.exp : (value) => value;
      const rows = (this.log ? logTicks(unlogged(bottom), unlogged(top)) : ticks(bottom, top, 4)).map((value) =>
        `<line class="grid" x1="${LEFT}" x2="${width - RIGHT}" y1="${this.y(value)}" y2="${this.y(value)}"/>
         <text x="${LEFT - 6}" y="${this.y(value) + 4}" text-anchor="end">${figure(value)}</text>`);
      const columns = (this.steps.length > 1 ? ticks(first, last, Math.max(2, width / 110)) : this.steps)
        .filter(Number.isInteger)
        .map((step) => `<text x="${Math.min(this.x(step), width - RIGHT - 14)}" y="${height - 4}"
          text-anchor="middle">${grouped(step)}</text>`);
      const isSmoothed = this.smooth !== this.values;
      const few = finite.length <= MOST_DOTS && !isSmoothed;
      const dots = few ? this.values.map((value, i) => value === null ? "" :
        `<circle r="2.5" cx="${this.x(this.steps[i])}" cy="${this.y(value)}"/>`) : [];
      this.plot.innerHTML = `<svg width="${width}" height="${height}" role="img">
        ${rows.join("")}<line class="base" x1="${LEFT}" x2="${width - RIGHT}" y1="${height - BOTTOM}"
        y2="${height - BOTTOM}"/>${columns.join("")}
        ${isSmoothed ? `<path class="raw" d="${this.path(this.values)}"/>` : ""}
        <path d="${this.path(this.smooth)}"/>${dots.join("")}
        <g class="mark" visibility="hidden"><line class="here" y1="${TOP}" y2="${height - BOTTOM}"/><circle r="4.5"/></g>
        </svg>`;
      this.plot.firstChild.setAttribute("aria-label", `from ${figure(this.values[0])} to ${figure(this.values.at(-1))}`);
      this.rest();
    }

    path(values) {
      let pen = "M";
      return values.map((value, i) => {
        if (value === null) { pen = "M"; return ""; }
        const part = `${pen}${this.x(this.steps[i]).toFixed(1)} ${this.y(value).toFixed(1)}`;
        pen = "L";
        return part;
      }).join("");
    }

    point(event) {
      if (!this.finite) return;
      const place = event.clientX - this.plot.getBoundingClientRect().left;
      const distances = this.steps.map((step) => Math.abs(this.x(step) - place));
      const step = this.steps[distances.indexOf(Math.min(...distances))];
      each(this.stage, (chart) => chart.show(step));
    }

    show(step) {
      const distances = this.steps.map((other) => Math.abs(other - step));
      const i = distances.indexOf(Math.min(...distances));
      const value = this.values[i], mark = this.plot.querySelector(".mark");
      this.output.textContent = `${grouped(this.steps[i])}: ${figure(value)}`;
      if (!mark || value === null) return;
      const x = this.x(this.steps[i]), line = mark.querySelector("line"), dot = mark.querySelector("circle");
      line.setAttribute("x1", x);
      line.setAttribute("x2", x);
      dot.setAttribute("cx", x);
      dot.setAttribute("cy", this.y(value));
      mark.setAttribute("visibility", "visible");
    }

    rest() {
      this.output.textContent = figure(this.values.at(-1));
      this.plot.querySelector(".mark")?.setAttribute("visibility", "hidden");
    }
  }

  const charts = [...document.querySelectorAll(".chart")].map((element) => new Chart(element));
  const each = (stage, act) => charts.filter((chart) => chart.stage === stage).forEach(act);
  smoothing.addEventListener("input", () => charts.forEach((chart) => chart.draw()));
})();
