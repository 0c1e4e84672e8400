// The whole of one mount: one or two panes, their shared state, and what of it is told to Python.
import { SharedCamera } from "./camera.js";
import { element, count, number } from "./dom.js";
import { png, save, svg } from "./export.js";
import { Keyboard } from "./keyboard.js";
import { GraphModel, Links } from "./model.js";
import { Overlay } from "./overlay.js";
import { Pane } from "./pane.js";
import { readTheme } from "./theme.js";
import { Toolbar, legend, weightAt, zoomButtons } from "./toolbar.js";

// Each mount evaluates this module anew, so what has to outlive a remount (camera, threshold, pins) hangs on the window.
const MEMORY = (window[Symbol.for("gfviz.canvas")] ??= new Map());

export class Canvas {
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
    this.nonce = null; // of the last command obeyed
    this.known = {}; // what Python holds, as far as it was told or has said
    this.stamp = 0;
    this.camera = new SharedCamera(this);
    this.keyboard = new Keyboard(this);
    this.overlay = new Overlay(this);
    this.toolbar = new Toolbar(this);
    this.stages = element("div", { class: "stages" });
    this.status = element("div", { class: "status", "aria-live": "polite" });
    this.legendSlot = element("div", {});
    this.frame = element("div", { class: "frame" }, this.stages, this.overlay.layer, zoomButtons(this), this.overlay.tip);
    this.root = element(
      "div",
      {
        class: "gfviz",
        tabindex: "0",
        role: "application",
        "aria-label":
          "Graph. Enter selects, arrow keys walk to neighbours or pan, plus and minus zoom, slash searches, Escape clears, question mark lists all keys.",
        onkeydown: (event) => this.keyboard.handle(event),
      },
      this.toolbar.root,
      this.frame,
      this.legendSlot,
      this.status,
    );
    parent.append(this.root);
    this.theme = readTheme(this.root);
    this.resize = new ResizeObserver(() => this.panes.forEach((pane) => pane.fit()));
    this.resize.observe(this.frame);
    this.watch = setInterval(() => this.followTheme(), 700);
  }

  update(data, tell) {
    this.tell = tell;
    if (data.memory !== this.key) this.recall(data.memory);
    this.frame.style.height = `${data.height}px`;
    this.sideBySide(data.panes.length);
    const versions = data.panes.map((pane) => pane.version).join("|");
    const fresh = versions !== this.versions;
    const returned = fresh && Boolean(this.memory.camera);
    if (fresh) this.load(data, versions);
    this.applyLinks(data.links);
    // A canvas that is mounted anew has obeyed nothing yet: it takes over what Python holds.
    if (data.command && data.command.nonce !== this.nonce) this.obey(data.command, !returned);
    this.refreshText();
  }

  obey({ nonce, threshold, side, selected }, centre) {
    this.nonce = nonce;
    this.setThreshold(threshold);
    this.goTo(side || 0, selected, centre);
    // A node that Python holds and nobody has drawn is not selected here, but can be cleared from here.
    const here = this.selected;
    this.known = { threshold: JSON.stringify({ value: this.threshold }), selected: here ? JSON.stringify(here) : undefined };
  }

  sideBySide(wanted) {
    while (this.panes.length < wanted) {
      const side = this.panes.length;
      const host = element("div", { class: "pane" });
      this.stages.append(host);
      const pane = new Pane(host, this.theme, {
        hover: (_pane, node) => this.onHover(side, node),
        select: (_pane, node) => this.select(node === null ? null : { side, node }),
        camera: (_pane, state) => this.camera.moved(side, state),
        moved: () => this.remember(),
        drawn: () => this.overlay.drawLinks(),
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
      const model = new GraphModel(part);
      pane.hovered = null;
      pane.cursor = null;
      pane.found = [];
      pane.marks = [];
      const place = new Map(model.labels.map((label, i) => [label, i]));
      const pins = (this.memory.pins?.[side] || [])
        .map((pin) => ({ ...pin, node: model.labels[pin.node] === pin.label ? pin.node : place.get(pin.label) }))
        .filter((pin) => pin.node !== undefined);
      pane.pinned = new Set(pins.map((pin) => pin.node));
      const again = kept !== null && this.selected?.side === side ? place.get(kept) : undefined;
      if (this.selected?.side === side) this.selected = again === undefined ? null : { side, node: again };
      pane.selected = this.selected?.side === side ? this.selected.node : null;
      pane.load(model, pins);
      pane.title.textContent = model.title;
      const camera = this.memory.camera;
      if (camera) pane.sigma.getCamera().setState(camera);
    });
    this.versions = versions;
    this.known = {};
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
    this.overlay.showMatches();
  }

  followTheme() {
    const theme = readTheme(this.root);
    if (theme.key === this.theme.key) return;
    this.theme = theme;
    this.panes.forEach((pane) => pane.recolor(theme));
    this.legendSlot.replaceChildren(legend(this));
    this.overlay.drawLinks();
  }

  // -- state -------------------------------------------------------------------------------------------------------

  remember() {
    this.memory.threshold = this.threshold;
    this.memory.pins = this.panes.map((pane) =>
      [...pane.pinned].map((node) => ({ node, label: pane.model.labels[node], ...pane.model.at(node) })),
    );
    if (this.panes[0]?.sigma) this.memory.camera = this.panes[0].sigma.getCamera().getState();
  }

  /** Tell Python what it does not hold already. The stamp parts two reports of one value, between which it was changed. */
  report(name, value) {
    const text = JSON.stringify(value);
    if (this.known[name] === text) return;
    this.known[name] = text;
    this.stamp = Math.max(Date.now(), this.stamp + 1);
    this.tell(name, { ...value, versions: this.versions, stamp: this.stamp });
  }

  slide(position, final) {
    this.setThreshold(weightAt(position, this.low, this.high));
    if (final) this.report("threshold", { value: this.threshold });
  }

  setThreshold(wanted) {
    const value = Number.isFinite(wanted) ? wanted : 0;
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
    this.overlay.showMatches();
    this.overlay.showTip();
  }

  select(at, tell = true) {
    this.selected = at;
    this.panes.forEach((pane, side) => {
      pane.selected = at && at.side === side ? at.node : null;
      pane.cursor = null;
    });
    if (!at && this.egoDepth) this.setEgo(0);
    else if (this.egoDepth) this.setEgo(this.egoDepth);
    this.overlay.showMatches();
    this.refreshText();
    if (tell) this.report("selected", { side: at ? at.side : 0, node: at ? at.node : null });
  }

  goTo(side, node, centre) {
    if (node === null || node >= this.panes[side].model.n) return this.select(null, false);
    this.select({ side, node }, false);
    if (centre) this.panes[side].centre(node, 0.6);
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
    this.overlay.drawLinks();
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

  // -- words -------------------------------------------------------------------------------------------------------

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
    this.camera.tell();
    const at = this.selected;
    this.say(at ? `Selected ${this.describe(at.side, at.node)}` : "Click or press Enter to select · drag to move · / to search · ? for all keys");
  }

  // -- files -------------------------------------------------------------------------------------------------------

  async exportPng() {
    save(`${this.fileName()}.png`, await png(this));
  }

  exportSvg() {
    save(`${this.fileName()}.svg`, svg(this));
  }

  fileName() {
    return this.panes.length > 1 ? "graphs" : "graph";
  }

  kill() {
    this.remember();
    clearInterval(this.watch);
    this.resize.disconnect();
    this.panes.forEach((pane) => pane.kill());
    this.root.remove();
  }
}
