// One chart: lines over steps as SVG, a cross line that reads them, zoom by dragging or by keys, a legend of switches.
import { element } from "../dom.js";
import { decades, exact, nearest, short, ticks } from "./scale.js";
import { made, show, svg } from "./svg.js";

const TOP = 8;
const RIGHT = 10;
const BOTTOM = 22;
const NEAR = 14; // pixels within which a line without a point at the cross line is still read there
const DASHES = { dot: "2 4", dash: "7 4", dashdot: "7 3 2 3", longdash: "11 4" };
const KEYS = "Arrow keys read values, plus and minus zoom, 0 shows all.";

let charts = 0;

export class Chart {
  /** `kept` {zoom: [low, high] or null, hidden: [names]} outlives this chart. */
  constructor(kept) {
    this.kept = kept;
    this.at = null; // step at the cross line
    this.title = element("span", { class: "title" });
    this.legend = element("div", { class: "legend" });
    this.reset = element("button", { class: "reset", type: "button", text: "Show all", hidden: true, onclick: () => this.zoom(null) });
    this.tip = element("div", { class: "tip", hidden: true });
    this.said = element("div", { class: "said", "aria-live": "polite" });
    this.clip = `gfviz-plot-${++charts}`;
    this.svg = made(svg("svg", { "aria-hidden": "true" }));
    this.plot = element("div", { class: "plot", tabindex: "0", role: "application", onkeydown: (event) => this.key(event) }, this.svg, this.tip);
    this.root = element("figure", { class: "chart" }, element("figcaption", {}, this.title, this.reset, this.legend), this.plot, this.said);
    this.listen();
  }

  update(described, traces) {
    this.described = described;
    this.traces = traces;
    show(this.title, described.title);
    this.plot.setAttribute("aria-label", `${described.title}, chart. ${described.note || this.summary()} ${KEYS}`);
    const entries = traces.filter((trace) => trace.legend).map((trace) => [trace.group, trace.color, trace.dash]);
    const names = JSON.stringify([described.legend, entries]);
    if (names !== this.names) {
      this.names = names;
      this.drawLegend();
    }
    this.draw();
  }

  shown() {
    return this.traces.filter((trace) => !this.kept.hidden.includes(trace.group));
  }

  read() {
    return this.shown().filter((trace) => trace.hover && trace.x.length);
  }

  summary() {
    return this.traces
      .filter((trace) => trace.hover && trace.x.length)
      .map((trace) => `${trace.name} ${exact(trace.y[trace.y.length - 1])} at step ${exact(trace.x[trace.x.length - 1])}.`)
      .join(" ");
  }

  drawLegend() {
    const entries = this.traces.filter((trace) => trace.legend);
    this.legend.replaceChildren(
      ...(this.described.legend ? entries : []).map((trace) => {
        const line = svg("line", { x1: 0, y1: 5, x2: 20, y2: 5, stroke: trace.color, "stroke-width": 2, "stroke-dasharray": DASHES[trace.dash] ?? null });
        const button = element(
          "button",
          { type: "button", class: "entry", "aria-pressed": String(!this.kept.hidden.includes(trace.group)), title: "Show or hide this line" },
          made(svg("svg", { width: 20, height: 10 }, line)),
          element("bdi", { text: trace.group }),
        );
        button.addEventListener("click", () => this.toggle(trace.group, button));
        return button;
      }),
    );
  }

  toggle(group, button) {
    const { hidden } = this.kept;
    const at = hidden.indexOf(group);
    if (at < 0) hidden.push(group);
    else hidden.splice(at, 1);
    button.setAttribute("aria-pressed", String(at >= 0));
    this.draw();
  }

  // -- scales ------------------------------------------------------------------------------------------------------

  across() {
    if (this.described.range) return this.described.range;
    let [low, high] = [Infinity, -Infinity];
    for (const { x } of this.traces)
      for (const step of x) {
        if (step < low) low = step;
        if (step > high) high = step;
      }
    if (!(high > low)) return Number.isFinite(low) ? [low - 1, low + 1] : [0, 1];
    const pad = 0.02 * (high - low);
    return [low - pad, high + pad];
  }

  upward(low, high) {
    let [bottom, top] = [Infinity, -Infinity];
    for (const { x, y } of this.shown())
      for (let k = 0; k < x.length; k++) {
        const value = this.described.log ? Math.log10(y[k]) : y[k];
        if (x[k] < low || x[k] > high || !Number.isFinite(value)) continue;
        if (value < bottom) bottom = value;
        if (value > top) top = value;
      }
    if (bottom > top) return [0, 1];
    if (this.described.tozero) [bottom, top] = [Math.min(0, bottom), Math.max(0, top)];
    const pad = top > bottom ? 0.05 * (top - bottom) : 0.5 * Math.abs(top) || 1;
    return [this.described.tozero && bottom === 0 ? 0 : bottom - pad, top + pad];
  }

  measure() {
    const { log, height } = this.described;
    const width = this.plot.clientWidth;
    const [x0, x1] = this.kept.zoom ?? this.across();
    const [y0, y1] = this.upward(x0, x1);
    const inner = height - TOP - BOTTOM;
    const rows = log ? decades(y0, y1) : ticks(y0, y1, Math.max(2, inner / 36));
    const words = rows.map((value) => short(log ? 10 ** value : value));
    const left = 12 + 6.6 * Math.max(2, ...words.map((word) => word.length));
    const x = (step) => left + ((step - x0) / (x1 - x0)) * (width - left - RIGHT);
    const y = (value) => TOP + (1 - ((log ? Math.log10(value) : value) - y0) / (y1 - y0)) * inner;
    const back = (pixel) => x0 + ((pixel - left) / (width - left - RIGHT)) * (x1 - x0);
    this.scale = { x0, x1, y0, y1, x, y, back, left, width, height, rows, words };
    return this.scale;
  }

  // -- drawing -----------------------------------------------------------------------------------------------------

  draw() {
    if (!this.described || !this.plot.clientWidth) return;
    const { x0, x1, x, y, left, width, height, rows, words } = this.measure();
    const { log, note } = this.described;
    this.plot.style.height = `${height}px`;
    const box = `0 0 ${width} ${height}`;
    if (this.svg.getAttribute("viewBox") !== box) this.svg.setAttribute("viewBox", box);
    if (this.reset.hidden !== !this.kept.zoom) this.reset.hidden = !this.kept.zoom;
    if (note || !this.traces.length) {
      show(this.svg, svg("text", { class: "note", x: width / 2, y: height / 2 }, note || "Nothing to draw"));
      this.cross = null;
      return;
    }
    const axes = [];
    rows.forEach((value, k) => {
      const at = y(log ? 10 ** value : value);
      axes.push(svg("line", { x1: left, x2: width - RIGHT, y1: at, y2: at }), svg("text", { class: "up", x: left - 6, y: at }, words[k]));
    });
    for (const step of ticks(x0, x1, Math.max(2, (width - left) / 90), true)) {
      const at = x(step);
      axes.push(svg("line", { x1: at, x2: at, y1: TOP, y2: height - BOTTOM }), svg("text", { class: "along", x: at, y: height - 6 }, short(step)));
    }
    axes.push(svg("line", { x1: left, x2: width - RIGHT, y1: height - BOTTOM, y2: height - BOTTOM }));
    const clip = svg("clipPath", { id: this.clip }, svg("rect", { x: left - 2, y: TOP - 3, width: width - left - RIGHT + 4, height: height - TOP - BOTTOM + 5 }));
    const lines = this.shown().map((trace) => this.line(trace, x, y));
    show(
      this.svg,
      clip,
      svg("g", { class: "axes" }, ...axes),
      svg("g", { "clip-path": `url(#${this.clip})` }, ...lines),
      svg("rect", { class: "picked", y: TOP, height: height - TOP - BOTTOM, width: 0 }),
      svg("g", { class: "cross" }),
    );
    [this.picked, this.cross] = [...this.svg.children].slice(-2);
    this.point();
  }

  line(trace, x, y) {
    const parts = [];
    let pen = "M";
    const dots = [];
    for (let k = 0; k < trace.x.length; k++) {
      const up = y(trace.y[k]);
      if (!Number.isFinite(up)) {
        pen = "M";
        continue;
      }
      parts.push(`${pen}${x(trace.x[k]).toFixed(1)} ${up.toFixed(1)}`);
      pen = "L";
      if (trace.marks) dots.push(this.dot(trace, x(trace.x[k]), up));
    }
    if (trace.fill) return svg("path", { class: "band", d: parts.join("") + (parts.length ? "Z" : ""), fill: trace.fill });
    const drawn = { class: "line", d: parts.join(""), stroke: trace.color, "stroke-width": trace.width };
    const path = svg("path", { ...drawn, "stroke-dasharray": DASHES[trace.dash] ?? null, "data-name": trace.name });
    return dots.length ? svg("g", {}, path, ...dots) : path;
  }

  dot(trace, at, up) {
    const open = trace.marks === "open";
    return svg("circle", { cx: at, cy: up, r: 2.8, fill: open ? "none" : trace.color, stroke: trace.color, "stroke-width": open ? 1.2 : 0 });
  }

  // -- reading -----------------------------------------------------------------------------------------------------

  /** Draw the cross line at `this.at` and write what the lines are there; returns that as text. */
  point() {
    if (!this.cross) return "";
    this.tip.hidden = this.at === null;
    if (this.at === null) {
      show(this.cross);
      return "";
    }
    const { x, y, left, width, height } = this.scale;
    const place = x(this.at);
    if (place < left - 1 || place > width - RIGHT + 1) {
      this.tip.hidden = true;
      show(this.cross);
      return "";
    }
    const marks = [svg("line", { x1: place, x2: place, y1: TOP, y2: height - BOTTOM })];
    const rows = [];
    for (const trace of this.read()) {
      const k = nearest(trace.x, this.at);
      if (Math.abs(x(trace.x[k]) - place) > NEAR || !Number.isFinite(trace.y[k])) continue;
      rows.push([trace, trace.y[k]]);
      marks.push(svg("circle", { cx: x(trace.x[k]), cy: y(trace.y[k]), r: 3.5, fill: trace.color }));
    }
    show(this.cross, ...marks);
    const step = `step ${Math.round(this.at).toLocaleString("en-US")}`;
    this.tip.replaceChildren(
      element("div", { class: "step", text: step }),
      ...rows.map(([trace, value]) => {
        const row = element("div", { class: "row" }, element("i", {}), element("bdi", { text: trace.name }), element("b", { text: exact(value) }));
        row.firstChild.style.background = trace.color;
        return row;
      }),
    );
    const right = place > width / 2;
    this.tip.style.left = right ? "auto" : `${place + 12}px`;
    this.tip.style.right = right ? `${width - place + 12}px` : "auto";
    return `${step}: ${rows.map(([trace, value]) => `${trace.name} ${exact(value)}`).join(", ")}`;
  }

  look(pixel) {
    const wanted = this.scale.back(pixel);
    let best = null;
    for (const { x } of this.read()) {
      const step = x[nearest(x, wanted)];
      if (best === null || Math.abs(step - wanted) < Math.abs(best - wanted)) best = step;
    }
    this.at = best;
    this.point();
  }

  listen() {
    let from = null;
    const here = (event) => event.clientX - this.plot.getBoundingClientRect().left;
    this.plot.addEventListener("pointerdown", (event) => {
      if (event.button === 0 && this.scale) from = here(event);
    });
    this.plot.addEventListener("pointermove", (event) => {
      if (!this.scale || !this.cross) return;
      const now = here(event);
      if (from !== null && Math.abs(now - from) > 6) {
        this.plot.setPointerCapture(event.pointerId);
        this.picked.setAttribute("x", Math.min(from, now));
        this.picked.setAttribute("width", Math.abs(now - from));
      }
      this.look(now);
    });
    this.plot.addEventListener("pointerup", (event) => {
      const now = here(event);
      if (from !== null && Math.abs(now - from) > 6) this.zoom([this.scale.back(Math.min(from, now)), this.scale.back(Math.max(from, now))]);
      from = null;
    });
    this.plot.addEventListener("pointerleave", () => {
      from = null;
      this.at = null;
      this.point();
    });
    this.plot.addEventListener("blur", () => {
      this.at = null;
      this.point();
    });
    this.plot.addEventListener("dblclick", () => this.zoom(null));
  }

  zoom(range) {
    const [low, high] = this.across();
    if (range) range = [Math.max(range[0], low), Math.min(range[1], high)];
    const all = !range || (range[0] <= low && range[1] >= high);
    if (!all && range[1] - range[0] < 1) return;
    this.kept.zoom = all ? null : range;
    this.draw();
  }

  /** Zoom by `factor` around the cross line, or around the middle. */
  scaleBy(factor) {
    const { x0, x1 } = this.scale;
    const middle = this.at ?? (x0 + x1) / 2;
    this.zoom([middle - (middle - x0) * factor, middle + (x1 - middle) * factor]);
  }

  key(event) {
    const [first] = this.read();
    if (!first || event.ctrlKey || event.metaKey || event.altKey) return;
    const steps = { ArrowLeft: -1, ArrowRight: 1, PageUp: -20, PageDown: 20, Home: -Infinity, End: Infinity };
    if (event.key in steps) {
      const inside = [nearest(first.x, this.scale.x0), nearest(first.x, this.scale.x1)];
      const now = this.at === null ? inside[1] + (steps[event.key] < 0 ? 1 : 0) : nearest(first.x, this.at);
      this.at = first.x[Math.min(inside[1], Math.max(inside[0], now + steps[event.key]))];
      this.said.textContent = this.point();
    } else if (event.key === "+" || event.key === "=") this.scaleBy(0.5);
    else if (event.key === "-") this.scaleBy(2);
    else if (event.key === "0" || event.key === "Escape") this.zoom(null);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}
