// Entry of the Streamlit component: one or two panes, a toolbar, a legend, and the state told to Python.
import { GraphModel, Links } from "./model.js";
import { Pane } from "./pane.js";
import { readTheme } from "./theme.js";
import { Toolbar, legend, weightAt } from "./toolbar.js";
import { count, element, number } from "./dom.js";
import { png, save, svg } from "./export.js";

// Each mount evaluates this module anew, so what has to outlive a remount (camera, threshold, pins) hangs on the window.
const MEMORY = (window[Symbol.for("gfviz.canvas")] ??= new Map());
const LINK_LIMIT = 160;

class Canvas {
  constructor(parent, key) {
    this.key = key;
    this.memory = MEMORY.get(key) || {};
    MEMORY.set(key, this.memory);
    this.panes = [];
    this.links = null;
    this.selected = null; // {side, node}
    this.hovered = null;
    this.egoDepth = 0;
    this.showLabels = true;
    this.showLinks = true;
    this.hiddenGroups = new Set();
    this.threshold = 0;
    this.told = { selected: undefined, threshold: undefined };
    this.follow = null;
    this.toolbar = new Toolbar(this);
    this.stages = element("div", { class: "stages" });
    this.over = element("canvas", { class: "over" });
    this.tip = element("div", { class: "tip", role: "tooltip", hidden: true });
    this.status = element("div", { class: "status", "aria-live": "polite" });
    this.legendSlot = element("div", {});
    this.frame = element("div", { class: "frame" }, this.stages, this.over, this.tip);
    this.root = element(
      "div",
      {
        class: "gfviz",
        tabindex: "0",
        role: "application",
        "aria-label":
          "Graph. Enter selects, arrow keys walk to neighbours or pan, plus and minus zoom, slash searches, Escape clears.",
        onkeydown: (event) => this.onKey(event),
      },
      this.toolbar.root,
      this.frame,
      this.legendSlot,
      this.status,
    );
    parent.append(this.root);
    this.theme = readTheme(this.root);
    this.resize = new ResizeObserver(() => this.panes.forEach((pane) => pane.sigma && (pane.sigma.resize(), pane.sigma.refresh())));
    this.resize.observe(this.frame);
    this.watch = setInterval(() => this.followTheme(), 700);
  }

  update(data, tell) {
    this.tell = tell;
    if (data.memory !== this.key) this.recall(data.memory);
    this.frame.style.height = `${data.height}px`;
    this.sideBySide(data.panes.length);
    const versions = data.panes.map((pane) => pane.version).join("|");
    if (versions !== this.versions) this.load(data, versions);
    this.applyLinks(data.links);
    if (data.command && data.command.nonce !== this.memory.nonce) {
      this.memory.nonce = data.command.nonce;
      if ("threshold" in data.command) this.setThreshold(data.command.threshold);
      if ("selected" in data.command) this.goTo(data.command.side || 0, data.command.selected);
    }
    this.refreshText();
  }

  sideBySide(wanted) {
    while (this.panes.length < wanted) {
      const side = this.panes.length;
      const host = element("div", { class: "pane" });
      this.stages.append(host);
      const pane = new Pane(host, this.theme, {
        hover: (_pane, node) => this.onHover(side, node),
        select: (_pane, node) => this.select(node === null ? null : { side, node }),
        camera: (_pane, state) => this.onCamera(side, state),
        moved: () => this.remember(),
        drawn: () => this.drawLinks(),
      });
      pane.title = element("div", { class: "title" });
      host.append(pane.title);
      this.panes.push(pane);
    }
    while (this.panes.length > wanted) {
      const pane = this.panes.pop();
      pane.kill();
      pane.host.remove();
    }
  }

  load(data, versions) {
    const started = performance.now();
    const kept = this.selected && this.panes[this.selected.side].model?.labels[this.selected.node];
    data.panes.forEach((part, side) => {
      const pane = this.panes[side];
      const pins = this.memory.pins?.[side] || [];
      const model = new GraphModel(part);
      pane.hovered = null;
      pane.cursor = null;
      pane.found = [];
      pane.marks = [];
      const place = new Map(model.labels.map((label, i) => [label, i]));
      pane.pinned = new Set(pins.map((label) => place.get(label)).filter((i) => i !== undefined));
      const again = kept !== null && this.selected?.side === side ? place.get(kept) : undefined;
      if (this.selected?.side === side) this.selected = again === undefined ? null : { side, node: again };
      pane.selected = this.selected?.side === side ? this.selected.node : null;
      pane.load(model);
      pane.title.textContent = model.title;
      const camera = this.memory.camera;
      if (camera) pane.sigma.getCamera().setState(camera);
    });
    this.versions = versions;
    const weights = this.panes.flatMap((pane) => (pane.model.m ? [pane.model.weight[pane.model.m - 1], pane.model.weight[0]] : []));
    this.high = weights.length ? Math.max(...weights) : 0;
    // Ten decades are enough for a slider; below that a weight is noise.
    this.low = weights.length ? Math.max(Math.min(...weights), this.high * 1e-10) : 0;
    this.setThreshold(this.memory.threshold ?? data.threshold ?? 0);
    this.legendSlot.replaceChildren(legend(this));
    this.root.dataset.loadMs = (performance.now() - started).toFixed(0);
  }

  /** Another graph has its own camera, threshold and pins: leave the present ones with what they belong to. */
  recall(key) {
    this.remember();
    this.key = key;
    this.memory = MEMORY.get(key) || {};
    MEMORY.set(key, this.memory);
    this.selected = null;
    this.hiddenGroups.clear();
    this.egoDepth = 0;
    this.panes.forEach((pane) => {
      pane.pinned.clear();
      pane.egoDepth = 0;
      pane.selected = null;
      if (pane.sigma && !this.memory.camera) pane.sigma.getCamera().setState({ x: 0.5, y: 0.5, ratio: 1, angle: 0 });
    });
  }

  applyLinks(links) {
    this.links = links ? new Links(links, this.panes[0].model.n, this.panes[1].model.n) : null;
    this.showMatches();
  }

  followTheme() {
    const theme = readTheme(this.root);
    if (theme.key === this.theme.key) return;
    this.theme = theme;
    this.panes.forEach((pane) => pane.recolor(theme));
  }

  // -- state -------------------------------------------------------------------------------------------------------

  remember() {
    this.memory.threshold = this.threshold;
    this.memory.pins = this.panes.map((pane) => [...pane.pinned].map((i) => pane.model.labels[i]));
    if (this.panes[0]?.sigma) this.memory.camera = this.panes[0].sigma.getCamera().getState();
  }

  report(name, value) {
    const text = JSON.stringify(value);
    if (this.told[name] === text) return;
    this.told[name] = text;
    this.tell(name, value);
  }

  slide(position, final) {
    this.setThreshold(weightAt(position, this.low, this.high));
    if (final) this.report("threshold", this.threshold);
  }

  setThreshold(value) {
    this.threshold = value;
    this.panes.forEach((pane) => pane.setThreshold(value));
    const shown = this.panes.reduce((sum, pane) => sum + pane.model.countAbove(value), 0);
    const total = this.panes.reduce((sum, pane) => sum + pane.model.m, 0);
    this.toolbar.showThreshold(value, shown, total, this.low, this.high);
    this.root.dataset.edges = String(shown);
    this.remember();
  }

  onHover(side, node) {
    this.hovered = node === null ? null : { side, node };
    this.showMatches();
    this.showTip();
  }

  select(at, tell = true) {
    this.selected = at;
    this.panes.forEach((pane, side) => {
      pane.selected = at && at.side === side ? at.node : null;
      pane.cursor = null;
    });
    if (!at && this.egoDepth) this.setEgo(0);
    else if (this.egoDepth) this.setEgo(this.egoDepth);
    this.showMatches();
    this.refreshText();
    if (tell) this.report("selected", at ? { side: at.side, node: at.node, version: this.panes[at.side].model.version } : null);
  }

  goTo(side, node) {
    if (node === null || node >= this.panes[side].model.n) return this.select(null, false);
    this.select({ side, node }, false);
    this.panes[side].centre(node, 0.6);
  }

  choose(match) {
    this.select({ side: match.side, node: match.node });
    this.panes[match.side].centre(match.node, 0.45);
    this.root.focus();
  }

  toggleEgo() {
    this.setEgo(this.egoDepth ? 0 : 1);
  }

  setEgo(depth) {
    this.egoDepth = depth;
    this.panes.forEach((pane, side) => {
      pane.egoDepth = this.selected?.side === side ? depth : 0;
      pane.refreshVisible();
    });
    this.refreshText();
  }

  togglePin() {
    if (!this.selected) return;
    const { pinned } = this.panes[this.selected.side];
    if (!pinned.delete(this.selected.node)) pinned.add(this.selected.node);
    this.remember();
    this.refreshText();
    this.panes.forEach((pane) => pane.render());
  }

  toggleLabels() {
    this.showLabels = !this.showLabels;
    this.panes.forEach((pane) => {
      pane.showLabels = this.showLabels;
      pane.render();
    });
    this.refreshText();
  }

  toggleLinks() {
    this.showLinks = !this.showLinks;
    this.refreshText();
    this.drawLinks();
  }

  toggleGroup(index) {
    if (!this.hiddenGroups.delete(index)) this.hiddenGroups.add(index);
    this.panes.forEach((pane) => {
      pane.hiddenGroups = this.hiddenGroups;
      pane.refreshVisible();
    });
    const button = this.legendSlot.querySelectorAll(".group")[index];
    button.setAttribute("aria-pressed", this.hiddenGroups.has(index) ? "false" : "true");
  }

  search(text, limit) {
    const out = [];
    this.panes.forEach((pane, side) => {
      pane.found = pane.model.search(text, 40);
      for (const node of pane.found.slice(0, limit)) {
        const detail = this.panes.length > 1 ? pane.model.title : `strength ${number(pane.model.strength[node])}`;
        out.push({ side, node, label: pane.model.labels[node], color: pane.groupColor(node), detail });
      }
      pane.render();
    });
    return out.slice(0, limit);
  }

  // -- camera ------------------------------------------------------------------------------------------------------

  onCamera(side, state) {
    if (this.follow !== null && this.follow !== side) return;
    this.follow = side;
    this.panes.forEach((pane, other) => other !== side && pane.sigma && pane.sigma.getCamera().setState(state));
    this.follow = null;
    this.memory.camera = state;
    this.tellCamera(state);
    this.moveTip();
  }

  tellCamera(state) {
    this.root.dataset.camera = [state.x, state.y, state.ratio].map((v) => v.toFixed(4)).join(",");
  }

  camera() {
    return this.panes[0].sigma.getCamera();
  }

  zoom(factor) {
    this.camera().animate({ ratio: this.camera().getBoundedRatio(this.camera().getState().ratio * factor) }, { duration: 120 });
  }

  fit() {
    this.camera().animate({ x: 0.5, y: 0.5, ratio: 1, angle: 0 }, { duration: 180 });
  }

  pan(dx, dy) {
    const state = this.camera().getState();
    this.camera().animate({ x: state.x + 0.12 * dx * state.ratio, y: state.y - 0.12 * dy * state.ratio }, { duration: 90 });
  }

  // -- keyboard ----------------------------------------------------------------------------------------------------

  onKey(event) {
    if (event.target !== this.root || event.ctrlKey || event.metaKey || event.altKey) {
      if (event.key === "Escape") this.escape();
      return;
    }
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const acts = {
      "+": () => this.zoom(1 / 1.5),
      "=": () => this.zoom(1 / 1.5),
      "-": () => this.zoom(1.5),
      0: () => this.fit(),
      e: () => this.selected && this.toggleEgo(),
      p: () => this.togglePin(),
      l: () => this.toggleLabels(),
      k: () => this.links && this.toggleLinks(),
      "/": () => this.toolbar.input.focus(),
      Enter: () => this.enter(),
      Escape: () => this.escape(),
    };
    if (event.key in arrows) this.arrow(arrows[event.key], event.shiftKey);
    else if (event.key in acts) acts[event.key]();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  here() {
    for (let side = 0; side < this.panes.length; side++) {
      const node = this.panes[side].cursor ?? this.panes[side].selected;
      if (node !== null) return { side, node };
    }
    return null;
  }

  enter() {
    const at = this.here();
    if (at) return this.select(at);
    const pane = this.panes[0];
    for (const node of pane.model.order) if (pane.visible[node]) return this.select({ side: 0, node });
  }

  escape() {
    if (this.egoDepth) return this.setEgo(0);
    this.panes.forEach((pane) => {
      pane.found = [];
      pane.hovered = null;
    });
    this.select(null);
  }

  /** With a node at hand, walk to the neighbour that lies that way; otherwise (or with Shift) pan. */
  arrow([dx, dy], shift) {
    const at = this.here();
    if (!at || shift) return this.pan(dx, dy);
    const pane = this.panes[at.side];
    const from = pane.position(at.node);
    let best = null;
    for (const { node } of pane.model.neighbours(at.node, this.threshold)) {
      if (!pane.visible[node]) continue;
      const to = pane.position(node);
      const along = (to.x - from.x) * dx + (to.y - from.y) * dy;
      const away = Math.hypot(to.x - from.x, to.y - from.y);
      if (away === 0 || along / away < 0.5) continue;
      const cost = away * (2 - along / away);
      if (!best || cost < best.cost) best = { node, cost };
    }
    if (!best) return this.say("No neighbour that way");
    pane.cursor = best.node;
    this.say(this.describe(at.side, best.node));
    const to = pane.position(best.node);
    const { width, height } = pane.sigma.getDimensions();
    if (to.x < 30 || to.y < 30 || to.x > width - 30 || to.y > height - 30) pane.centre(best.node, 1);
    this.showMatches();
    this.showTip();
  }

  // -- words and overlays ------------------------------------------------------------------------------------------

  describe(side, node) {
    const { model } = this.panes[side];
    const degree = model.neighbours(node, this.threshold).length;
    return `${model.labels[node]}: strength ${number(model.strength[node])}, ${count(degree)} neighbours`;
  }

  say(text) {
    this.status.textContent = text;
  }

  refreshText() {
    this.toolbar.sync();
    const { root, panes } = this;
    root.dataset.nodes = String(panes.reduce((sum, pane) => sum + pane.model.n, 0));
    root.dataset.selected = this.selected ? `${this.selected.side}:${this.selected.node}` : "";
    root.dataset.visible = String(panes.reduce((sum, pane) => sum + pane.visible.reduce((a, b) => a + b, 0), 0));
    root.dataset.ready = this.versions;
    this.tellCamera(this.camera().getState());
    const at = this.selected;
    this.say(at ? `Selected ${this.describe(at.side, at.node)}` : "Click or press Enter to select · drag to move · / to search");
  }

  focus() {
    return this.hovered ?? this.here();
  }

  showMatches() {
    const at = this.focus();
    this.panes.forEach((pane, side) => {
      pane.marks = [];
      if (at && this.links && side !== at.side) {
        const list = this.links.of(at.side, at.node);
        const total = list.reduce((sum, item) => sum + item.mass, 0) || 1;
        pane.marks = list.slice(0, 12).map((item) => ({ node: item.node, share: item.mass / total }));
      }
      pane.render();
    });
  }

  showTip() {
    const at = this.focus();
    this.tip.hidden = !at;
    if (!at) return;
    const { model } = this.panes[at.side];
    const rows = [
      element("bdi", { class: "name", text: model.labels[at.node] }),
      element("span", { text: `strength ${number(model.strength[at.node])}` }),
      element("span", { text: `${count(model.neighbours(at.node, this.threshold).length)} neighbours` }),
    ];
    if (model.notes) rows.push(element("span", { text: model.notes[at.node] }));
    if (this.links) rows.push(element("span", { text: this.matchText(at) }));
    this.tip.replaceChildren(...rows);
    this.moveTip();
  }

  matchText(at) {
    const list = this.links.of(at.side, at.node);
    if (!list.length) return "no partner";
    const other = this.panes[1 - at.side].model;
    const total = list.reduce((sum, item) => sum + item.mass, 0);
    return list
      .slice(0, 3)
      .map((item) => `→ ${other.labels[item.node]} ${((100 * item.mass) / total).toFixed(0)}%`)
      .join("  ");
  }

  moveTip() {
    const at = this.focus();
    if (!at || this.tip.hidden) return;
    const pane = this.panes[at.side];
    const point = pane.position(at.node);
    const frame = this.frame.getBoundingClientRect();
    const host = pane.host.getBoundingClientRect();
    const x = host.left - frame.left + point.x + pane.screenRadius(at.node) + 12;
    const y = host.top - frame.top + point.y + 12;
    const flip = x + this.tip.offsetWidth > frame.width;
    this.tip.style.left = `${Math.max(4, flip ? x - this.tip.offsetWidth - 28 - pane.screenRadius(at.node) * 2 : x)}px`;
    this.tip.style.top = `${Math.max(4, Math.min(y, frame.height - this.tip.offsetHeight - 4))}px`;
  }

  drawLinks() {
    const { width, height } = this.frame.getBoundingClientRect();
    const density = window.devicePixelRatio || 1;
    if (this.over.width !== Math.round(width * density) || this.over.height !== Math.round(height * density)) {
      this.over.width = Math.round(width * density);
      this.over.height = Math.round(height * density);
    }
    const context = this.over.getContext("2d");
    context.setTransform(density, 0, 0, density, 0, 0);
    context.clearRect(0, 0, width, height);
    if (!this.links || this.panes.length < 2 || !this.showLinks) return;
    const at = this.focus();
    const pairs = at
      ? this.links.of(at.side, at.node).map((item) => (at.side === 0 ? [at.node, item.node, item.mass] : [item.node, at.node, item.mass]))
      : this.heaviest();
    const top = pairs.reduce((most, pair) => Math.max(most, pair[2]), 0) || 1;
    const frame = this.frame.getBoundingClientRect();
    const hosts = this.panes.map((pane) => pane.host.getBoundingClientRect());
    for (const [left, right, mass] of pairs) {
      const a = this.panes[0].position(left);
      const b = this.panes[1].position(right);
      const inside = (p, host) => p.x >= 0 && p.y >= 0 && p.x <= host.width && p.y <= host.height;
      if (!inside(a, hosts[0]) || !inside(b, hosts[1])) continue;
      const x1 = a.x + hosts[0].left - frame.left;
      const y1 = a.y + hosts[0].top - frame.top;
      const x2 = b.x + hosts[1].left - frame.left;
      const y2 = b.y + hosts[1].top - frame.top;
      context.beginPath();
      context.moveTo(x1, y1);
      const bend = (x2 - x1) * 0.35;
      context.bezierCurveTo(x1 + bend, y1, x2 - bend, y2, x2, y2);
      context.strokeStyle = at ? this.theme.accent : this.panes[0].groupColor(left);
      context.globalAlpha = at ? 0.35 + 0.6 * (mass / top) : 0.1 + 0.2 * (mass / top);
      context.lineWidth = at ? 1 + 3 * (mass / top) : 0.9;
      context.stroke();
    }
    context.globalAlpha = 1;
  }

  heaviest() {
    const { links } = this;
    const strength = this.panes[0].model.strength;
    links.ranked ??= Array.from(links.mass.keys())
      .sort((a, b) => links.mass[b] * strength[links.source[b]] - links.mass[a] * strength[links.source[a]])
      .slice(0, LINK_LIMIT)
      .map((e) => [links.source[e], links.target[e], links.mass[e]]);
    return links.ranked;
  }

  // -- files -------------------------------------------------------------------------------------------------------

  async exportPng() {
    for (const [side, pane] of this.panes.entries()) save(`graph-${side + 1}.png`, await png(pane));
  }

  exportSvg() {
    this.panes.forEach((pane, side) => save(`graph-${side + 1}.svg`, svg(pane)));
  }

  kill() {
    this.remember();
    clearInterval(this.watch);
    this.resize.disconnect();
    this.panes.forEach((pane) => pane.kill());
    this.root.remove();
  }
}

function webglWorks() {
  const probe = document.createElement("canvas");
  return Boolean(probe.getContext("webgl2") || probe.getContext("webgl"));
}

const LIVE = new WeakMap();

export default function render(component) {
  const { data, parentElement, key, setStateValue } = component;
  let canvas = LIVE.get(parentElement);
  if (!canvas) {
    if (!webglWorks()) {
      const note = "This browser offers no WebGL, so the graph cannot be drawn here. The tables on this page hold the same data.";
      parentElement.replaceChildren(element("p", { class: "fallback", role: "alert", text: note }));
      return undefined;
    }
    canvas = new Canvas(parentElement, data.memory || key);
    LIVE.set(parentElement, canvas);
  }
  canvas.update(data, setStateValue);
  return () => {
    LIVE.delete(parentElement);
    canvas.kill();
  };
}
