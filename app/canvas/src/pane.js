// One graph on the screen: sigma draws nodes and edges, a 2D layer above it the labels, the focus and the pins.
import Graph from "graphology";
import Sigma from "sigma";
import { floatColor } from "sigma/utils";
import { edgeProgram, nodeProgram } from "./programs.js";
import { placeLabels } from "./labels.js";
import { withAlpha } from "./theme.js";

const FOCUS_LIMIT = 400; // neighbours drawn on hover
const WIDEST = 2; // to which ratio of sides a layout is stretched
const NUDGE = 14; // pixels that a key moves a node
const MANY = 20000; // edges: so many are drawn faintest, and left out while the view moves

// Draws nothing and compiles nothing: hovered nodes are drawn on the layer above, and no edge is an arrow.
class Nothing {
  reallocate() {}
  process() {}
  render() {}
  kill() {}
}

export class Pane {
  /** `host` is an element; `hooks` {hover, select, camera, moved, drawn} are called with this pane first. */
  constructor(host, theme, hooks) {
    this.host = host;
    this.theme = theme;
    this.hooks = hooks;
    // edges: how many are drawn, of the heaviest; held: nothing is drawn yet.
    this.look = { held: false, threshold: 0, edges: 0, edgeAlpha: 1, nodeAlpha: 1, background: theme.backgroundRgb };
    this.hovered = null;
    this.selected = null;
    this.cursor = null;
    this.pinned = new Set();
    this.found = [];
    this.marks = []; // [{node, share}]: partners in the other graph
    this.hiddenGroups = new Set();
    this.egoDepth = 0;
    this.showLabels = true;
    this.visible = new Uint8Array(0);
    this.stage = document.createElement("div");
    this.stage.className = "stage";
    this.layer = document.createElement("canvas");
    this.layer.className = "layer";
    host.append(this.stage, this.layer);
    this.sigma = null;
    this.widths = new Map();
  }

  /** Draw `model`, with the `pins` [{node, x, y}] where they were left. */
  load(model, pins = []) {
    const { offsetWidth: width, offsetHeight: height } = this.host;
    if (width && height) model.stretch(Math.min(WIDEST, Math.max(1 / WIDEST, width / height)));
    model.move(pins);
    model.paint(this.theme.dark);
    this.model = model;
    this.widths.clear();
    this.computeVisible();
    const graph = this.buildGraph();
    // Sigma draws at once, and again with every setting: what comes out of a software renderer in a second is asked once.
    this.look.held = true;
    if (!this.sigma) this.start();
    const many = model.m > MANY;
    if (this.sigma.getSetting("hideEdgesOnMove") !== many) this.sigma.setSetting("hideEdgesOnMove", many);
    // A custom box must not outlive the graph it was made for.
    this.sigma.setCustomBBox(model.bbox);
    this.sigma.setGraph(graph);
    this.look.held = false;
    this.sigma.scheduleRender();
  }

  /** The nodes for sigma; the edges stay in the model, where their program reads them. */
  buildGraph() {
    const { model } = this;
    const graph = new Graph({ type: "undirected", multi: true, allowSelfLoops: false });
    const scale = model.n > 4000 ? 0.62 : model.n > 1200 ? 0.78 : 1;
    for (let i = 0; i < model.n; i++) {
      graph.addNode(String(i), {
        x: model.x[i],
        y: model.y[i],
        size: scale * this.radius(i),
        color: this.groupColor(i),
        best: model.best[i],
      });
    }
    return graph;
  }

  /** Width and packed colour of an edge, as a function of its number. */
  edgePaint() {
    const { model } = this;
    const top = model.m ? model.weight[0] : 1;
    const shades = this.shades(model.m).map((steps) => steps.map(floatColor));
    return (e) => {
      const share = Math.sqrt(model.weight[e] / top);
      const same = model.group[model.source[e]] === model.group[model.target[e]];
      const family = same ? model.group[model.source[e]] : model.groups.length;
      return [0.25 + 1.6 * share, shades[family][Math.min(15, Math.floor(share * 16))]];
    };
  }

  /** Edge colours by family (a community, or none) and by sixteen steps of weight. */
  shades(edges) {
    // Many edges lie over each other: the more there are, the fainter each, or the middle is one white blot.
    const [floor, reach] = edges > MANY ? [0.03, 0.25] : edges > 3000 ? [0.05, 0.4] : [0.12, 0.6];
    const colors = this.model.groups.map((g) => g.color).concat([this.theme.edge]);
    return colors.map((color) =>
      Array.from({ length: 16 }, (_, k) => withAlpha(color, floor + (reach * (k + 1)) / 16)),
    );
  }

  radius(i) {
    const top = this.model.maxStrength;
    return 2.4 + 8.5 * (top > 0 ? Math.sqrt(this.model.strength[i] / top) : 0);
  }

  groupColor(i) {
    return this.model.groups[this.model.group[i]].color;
  }

  /** Sigma, yet without a graph: the first it had would be worked through again once it knows the graph's box. */
  start() {
    this.sigma = new Sigma(new Graph(), this.stage, {
      allowInvalidContainer: true,
      renderLabels: false,
      zIndex: false,
      stagePadding: 36,
      minCameraRatio: 0.02,
      maxCameraRatio: 4,
      hideEdgesOnMove: this.model.m > MANY,
      // Under sigma's own names: it compiles its own programs for those of them that are not given.
      nodeProgramClasses: { circle: nodeProgram(this.look) },
      nodeHoverProgramClasses: { circle: Nothing },
      edgeProgramClasses: { line: edgeProgram(this), arrow: Nothing },
      defaultDrawNodeHover: () => {},
      nodeReducer: (key, data) => (this.visible[+key] ? data : { ...data, hidden: true }),
    });
    this.sigma.on("afterRender", () => this.look.held || this.draw());
    this.sigma.on("enterNode", ({ node }) => this.hover(+node));
    this.sigma.on("leaveNode", () => this.hover(null));
    this.sigma.on("clickNode", ({ node, event }) => {
      event.preventSigmaDefault();
      this.hooks.select(this, +node);
    });
    this.sigma.on("doubleClickNode", ({ node, event }) => {
      event.preventSigmaDefault();
      this.centre(+node, 0.35);
    });
    this.sigma.on("clickStage", () => this.hooks.select(this, null));
    this.sigma.getCamera().on("updated", (state) => this.hooks.camera(this, state));
    this.bindDrag();
  }

  bindDrag() {
    let node = null;
    let moved = false;
    this.sigma.on("downNode", (event) => {
      node = event.node;
      moved = false;
    });
    const captor = this.sigma.getMouseCaptor();
    captor.on("mousemovebody", (event) => {
      if (node === null) return;
      moved = true;
      this.moveNode(+node, this.sigma.viewportToGraph(event));
      event.preventSigmaDefault();
      event.original.preventDefault();
    });
    captor.on("mouseup", () => {
      if (node !== null && moved) {
        this.pinned.add(+node);
        this.hooks.moved(this);
      }
      node = null;
    });
  }

  moveNode(node, at) {
    // Freeze the box: otherwise moving an outer node rescales everything under the pointer.
    if (!this.sigma.getCustomBBox()) this.sigma.setCustomBBox(this.sigma.getBBox());
    this.sigma.getGraph().mergeNodeAttributes(String(node), { x: at.x, y: at.y });
    this.model.x[node] = at.x;
    this.model.y[node] = at.y;
  }

  /** Move a node by one step of a key, and pin it there. */
  nudge(node, dx, dy) {
    const at = this.position(node);
    this.moveNode(node, this.sigma.viewportToGraph({ x: at.x + NUDGE * dx, y: at.y + NUDGE * dy }));
    this.pinned.add(node);
  }

  hover(node) {
    if (this.hovered === node) return;
    this.hovered = node;
    this.hooks.hover(this, node);
  }

  focus() {
    return this.hovered ?? this.cursor ?? this.selected;
  }

  /** Redraw with the present focus and threshold: uniforms only, no per-edge work. */
  render() {
    const focused = this.focus() !== null || this.marks.length > 0;
    this.look.edgeAlpha = focused ? 0.16 : 1;
    this.look.nodeAlpha = focused ? 0.32 : 1;
    if (this.sigma) this.sigma.scheduleRender();
  }

  setThreshold(value) {
    this.look.threshold = value;
    this.look.edges = this.model.countAbove(value);
    if (this.egoDepth) this.refreshVisible();
    this.render();
  }

  computeVisible() {
    const { model } = this;
    this.visible = new Uint8Array(model.n).fill(1);
    if (this.egoDepth && this.selected !== null) {
      this.visible = model.ego(this.selected, this.egoDepth, this.look.threshold);
    }
    if (this.hiddenGroups.size) {
      for (let i = 0; i < model.n; i++) if (this.hiddenGroups.has(model.group[i])) this.visible[i] = 0;
    }
  }

  /** The place on the page has another size, perhaps. */
  fit() {
    if (!this.sigma) return;
    const { width, height } = this.sigma.getDimensions();
    if (width !== this.stage.offsetWidth || height !== this.stage.offsetHeight) this.sigma.scheduleRender();
  }

  refreshVisible() {
    this.computeVisible();
    if (this.sigma) this.sigma.refresh({ schedule: true });
  }

  recolor(theme) {
    this.theme = theme;
    this.look.background = theme.backgroundRgb;
    this.model.paint(theme.dark);
    const painted = (key, node) => ({ ...node, color: this.groupColor(+key) });
    this.sigma.getGraph().updateEachNodeAttributes(painted, { attributes: ["color"] });
    this.sigma.refresh({ schedule: true });
    this.render();
  }

  position(i) {
    const shown = this.sigma.getNodeDisplayData(String(i));
    return shown ? this.sigma.framedGraphToViewport(shown) : { x: -1e6, y: -1e6 };
  }

  screenRadius(i) {
    const shown = this.sigma.getNodeDisplayData(String(i));
    return shown ? this.sigma.scaleSize(shown.size) : 0;
  }

  centre(i, ratio) {
    const shown = this.sigma.getNodeDisplayData(String(i));
    if (!shown) return;
    const camera = this.sigma.getCamera();
    camera.animate({ x: shown.x, y: shown.y, ratio: Math.min(camera.getState().ratio, ratio) }, { duration: 220 });
  }

  draw() {
    const { width, height } = this.sigma.getDimensions();
    const density = window.devicePixelRatio || 1;
    if (this.layer.width !== width * density || this.layer.height !== height * density) {
      this.layer.width = width * density;
      this.layer.height = height * density;
    }
    const context = this.layer.getContext("2d");
    context.setTransform(density, 0, 0, density, 0, 0);
    context.clearRect(0, 0, width, height);
    this.paint(context, width, height);
    this.hooks.drawn(this);
  }

  /** Everything above the WebGL layers; also called by the PNG export. */
  paint(context, width, height) {
    const focus = this.focus();
    const forced = new Set(this.pinned);
    const lit = [];
    if (focus !== null && this.visible[focus]) {
      forced.add(focus);
      const around = this.model.neighbours(focus, this.look.threshold).filter((item) => this.visible[item.node]);
      this.paintFocus(context, focus, around.slice(0, FOCUS_LIMIT));
      lit.push(focus, ...around.slice(0, 40).map((item) => item.node));
    }
    for (const { node, share } of this.marks) {
      this.disc(context, node, this.groupColor(node));
      this.ring(context, node, this.theme.accent, 2 + 3 * share);
      lit.push(node);
    }
    for (const node of this.found) {
      this.disc(context, node, this.groupColor(node));
      this.ring(context, node, this.theme.accent, 2);
      lit.push(node);
    }
    for (const node of this.pinned) this.ring(context, node, this.theme.text, 1.5);
    if (this.selected !== null && this.visible[this.selected]) this.ring(context, this.selected, this.theme.accent, 3);
    if (this.showLabels || lit.length || forced.size) placeLabels(this, context, width, height, lit, forced);
  }

  paintFocus(context, focus, around) {
    const from = this.position(focus);
    const top = around.length ? around[0].weight : 1;
    context.lineCap = "round";
    for (const { node, weight } of around) {
      const to = this.position(node);
      context.strokeStyle = this.groupColor(node);
      context.globalAlpha = 0.35 + 0.55 * (weight / top);
      context.lineWidth = 0.8 + 2.6 * Math.sqrt(weight / top);
      context.beginPath();
      context.moveTo(from.x, from.y);
      context.lineTo(to.x, to.y);
      context.stroke();
    }
    context.globalAlpha = 1;
    for (const { node } of around) this.disc(context, node, this.groupColor(node));
    this.disc(context, focus, this.groupColor(focus));
    this.ring(context, focus, this.theme.text, 1.5);
  }

  disc(context, node, color) {
    const at = this.position(node);
    context.beginPath();
    context.arc(at.x, at.y, this.screenRadius(node), 0, 2 * Math.PI);
    context.fillStyle = color;
    context.fill();
    context.lineWidth = 1;
    context.strokeStyle = this.theme.background;
    context.stroke();
  }

  ring(context, node, color, width) {
    const at = this.position(node);
    context.beginPath();
    context.arc(at.x, at.y, this.screenRadius(node) + 1.5 + width / 2, 0, 2 * Math.PI);
    context.lineWidth = width;
    context.strokeStyle = color;
    context.stroke();
  }

  kill() {
    if (this.sigma) this.sigma.kill();
    this.sigma = null;
    this.host.replaceChildren();
  }
}
