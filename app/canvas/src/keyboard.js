// Everything the pointer can do, from the keyboard; `HELP` is what the ? key says.

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const EDGE = 30; // pixels from the frame at which a walk moves the camera along

export const HELP =
  "Enter select · arrows walk to a neighbour (Shift: pan, Alt: move the node) · O other graph · E ego · P pin · L labels · " +
  "K links · + − 0 zoom · / search · Esc clear";

export class Keyboard {
  constructor(canvas) {
    this.canvas = canvas;
    this.acts = {
      "+": () => canvas.camera.zoom(1 / 1.5),
      "=": () => canvas.camera.zoom(1 / 1.5),
      "-": () => canvas.camera.zoom(1.5),
      0: () => canvas.camera.fit(),
      e: () => canvas.selected && canvas.toggleEgo(),
      p: () => canvas.togglePin(),
      l: () => canvas.toggleLabels(),
      k: () => canvas.links && canvas.toggleLinks(),
      o: () => this.otherSide(),
      "/": () => canvas.toolbar.input.focus(),
      "?": () => canvas.say(HELP),
      Enter: () => this.enter(),
      Escape: () => this.escape(),
    };
  }

  handle(event) {
    const { canvas } = this;
    if (event.target !== canvas.root || event.ctrlKey || event.metaKey) {
      if (event.key === "Escape") this.escape();
      return;
    }
    if (event.key in ARROWS) {
      if (event.altKey) this.nudge(ARROWS[event.key]);
      else this.arrow(ARROWS[event.key], event.shiftKey);
    } else if (event.key in this.acts && !event.altKey) this.acts[event.key]();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  /** The node under the cursor, else the selected one: {side, node} or null. */
  here() {
    const { panes } = this.canvas;
    for (let side = 0; side < panes.length; side++) {
      const node = panes[side].cursor ?? panes[side].selected;
      if (node !== null) return { side, node };
    }
    return null;
  }

  strongest(side) {
    const pane = this.canvas.panes[side];
    for (const node of pane.model.order) if (pane.visible[node]) return { side, node };
    return null;
  }

  enter() {
    const at = this.here() ?? this.strongest(0);
    if (at) this.canvas.select(at);
  }

  escape() {
    const { canvas } = this;
    if (canvas.egoDepth) return canvas.setEgo(0);
    canvas.panes.forEach((pane) => {
      pane.found = [];
      pane.hovered = null;
    });
    canvas.select(null);
  }

  /** To the best partner of the present node in the other graph, or to its strongest node. */
  otherSide() {
    const { canvas } = this;
    if (canvas.panes.length < 2) return;
    const at = this.here();
    const side = at ? 1 - at.side : 1;
    const partner = at && canvas.links ? canvas.links.of(at.side, at.node)[0] : null;
    const next = partner ? { side, node: partner.node } : this.strongest(side);
    if (next) canvas.select(next);
  }

  /** Move the present node itself, and keep it there. */
  nudge([dx, dy]) {
    const at = this.here();
    if (!at) return;
    this.canvas.panes[at.side].nudge(at.node, dx, dy);
    this.canvas.remember();
    this.canvas.refreshText();
  }

  /** With a node at hand, walk to the neighbour that lies that way; otherwise (or with Shift) pan. */
  arrow([dx, dy], shift) {
    const { canvas } = this;
    const at = this.here();
    if (!at || shift) return canvas.camera.pan(dx, dy);
    const pane = canvas.panes[at.side];
    const best = this.nearest(pane, at.node, dx, dy);
    if (!best) return canvas.say("No neighbour that way");
    pane.cursor = best.node;
    canvas.say(canvas.describe(at.side, best.node));
    const to = pane.position(best.node);
    const { width, height } = pane.sigma.getDimensions();
    if (to.x < EDGE || to.y < EDGE || to.x > width - EDGE || to.y > height - EDGE) pane.centre(best.node, 1);
    canvas.overlay.showMatches();
    canvas.overlay.showTip();
  }

  nearest(pane, start, dx, dy) {
    const from = pane.position(start);
    let best = null;
    for (const { node } of pane.model.neighbours(start, this.canvas.threshold)) {
      if (!pane.visible[node]) continue;
      const to = pane.position(node);
      const along = (to.x - from.x) * dx + (to.y - from.y) * dy;
      const away = Math.hypot(to.x - from.x, to.y - from.y);
      if (away === 0 || along / away < 0.5) continue;
      const cost = away * (2 - along / away);
      if (!best || cost < best.cost) best = { node, cost };
    }
    return best;
  }
}
