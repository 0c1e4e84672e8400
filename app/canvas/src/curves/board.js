// The charts of one run (or of one comparison) in two columns; zoom and hidden lines survive new data and remounts.
import { element } from "../dom.js";
import { floats } from "../model.js";
import { Chart } from "./chart.js";

const MEMORY = (window[Symbol.for("gfviz.curves")] ??= new Map());

function doubles(text) {
  const raw = Uint8Array.from(atob(text), (mark) => mark.charCodeAt(0));
  return new Float64Array(raw.buffer);
}

export class Board {
  constructor(parent) {
    this.charts = new Map(); // title -> Chart
    this.read = new Map(); // packed text -> numbers: what has not changed is not read again
    this.root = element("div", { class: "curves" });
    parent.append(this.root);
    this.resize = new ResizeObserver(() => this.charts.forEach((chart) => chart.draw()));
    this.resize.observe(this.root);
  }

  /** `data` {memory, arrays: [packed], charts: [{title, height, traces: [{x, y: places in arrays, …}], …}]}. */
  update(data) {
    if (data.memory !== this.memory) {
      this.memory = data.memory;
      if (!MEMORY.has(data.memory)) MEMORY.set(data.memory, {});
      this.clear();
    }
    const fresh = new Map();
    const numbers = (kind, text) => {
      if (!fresh.has(text)) fresh.set(text, this.read.get(text) ?? (kind === "x" ? doubles(text) : floats(text)));
      return fresh.get(text);
    };
    const kept = MEMORY.get(data.memory);
    const titles = new Set(data.charts.map((chart) => chart.title));
    for (const [title, chart] of this.charts) if (!titles.has(title)) this.drop(title, chart);
    data.charts.forEach((described, at) => {
      const { title } = described;
      if (!this.charts.has(title)) this.charts.set(title, new Chart((kept[title] ??= { zoom: null, hidden: [] })));
      const chart = this.charts.get(title);
      if (this.root.children[at] !== chart.root) this.root.insertBefore(chart.root, this.root.children[at] ?? null);
      const traces = described.traces.map((trace) => ({
        ...trace,
        x: numbers("x", data.arrays[trace.x]),
        y: numbers("y", data.arrays[trace.y]),
      }));
      chart.update(described, traces);
    });
    this.read = fresh;
    this.root.dataset.ready = data.memory;
  }

  drop(title, chart) {
    chart.root.remove();
    this.charts.delete(title);
  }

  clear() {
    this.charts.forEach((chart, title) => this.drop(title, chart));
  }

  kill() {
    this.resize.disconnect();
    this.root.remove();
  }
}
