// What lies above the panes: the tooltip, the marks on partners, the coupling's lines from one graph to the other.
import { count, element, number } from "./dom.js";

const LINK_LIMIT = 160;
const PARTNERS = 12;

export class Overlay {
  constructor(canvas) {
    this.canvas = canvas;
    this.layer = element("canvas", { class: "over" });
    this.tip = element("div", { class: "tip", role: "tooltip", hidden: true });
  }

  /** The node that is looked at: {side, node} or null. */
  focus() {
    return this.canvas.hovered ?? this.canvas.keyboard.here();
  }

  showMatches() {
    const at = this.focus();
    const { links, panes } = this.canvas;
    panes.forEach((pane, side) => {
      pane.marks = [];
      if (at && links && side !== at.side) {
        const list = links.of(at.side, at.node);
        const total = list.reduce((sum, item) => sum + item.mass, 0) || 1;
        pane.marks = list.slice(0, PARTNERS).map((item) => ({ node: item.node, share: item.mass / total }));
      }
      pane.render();
    });
  }

  showTip() {
    const at = this.focus();
    this.tip.hidden = !at;
    if (!at) return;
    const { model } = this.canvas.panes[at.side];
    const rows = [
      element("bdi", { class: "name", text: model.labels[at.node] }),
      element("span", { text: `strength ${number(model.strength[at.node])}` }),
      element("span", { text: `${count(model.neighbours(at.node, this.canvas.threshold).length)} neighbours` }),
    ];
    if (this.canvas.links) rows.push(element("span", { text: this.matchText(at) }));
    this.tip.replaceChildren(...rows);
    this.moveTip();
  }

  matchText(at) {
    const list = this.canvas.links.of(at.side, at.node);
    if (!list.length) return "no partner";
    const other = this.canvas.panes[1 - at.side].model;
    const total = list.reduce((sum, item) => sum + item.mass, 0);
    return list
      .slice(0, 3)
      .map((item) => `→ ${other.labels[item.node]} ${((100 * item.mass) / total).toFixed(0)}%`)
      .join("  ");
  }

  moveTip() {
    const at = this.focus();
    if (!at || this.tip.hidden) return;
    const pane = this.canvas.panes[at.side];
    const point = pane.position(at.node);
    const frame = this.canvas.frame.getBoundingClientRect();
    const host = pane.host.getBoundingClientRect();
    const radius = pane.screenRadius(at.node);
    const x = host.left - frame.left + point.x + radius + 12;
    const y = host.top - frame.top + point.y + 12;
    const flip = x + this.tip.offsetWidth > frame.width;
    this.tip.style.left = `${Math.max(4, flip ? x - this.tip.offsetWidth - 28 - radius * 2 : x)}px`;
    this.tip.style.top = `${Math.max(4, Math.min(y, frame.height - this.tip.offsetHeight - 4))}px`;
  }

  drawLinks() {
    const { width, height } = this.canvas.frame.getBoundingClientRect();
    const context = this.clear(width, height);
    for (const { from, bend, to, color, alpha, width: line } of this.curves()) {
      context.beginPath();
      context.moveTo(from.x, from.y);
      context.bezierCurveTo(from.x + bend, from.y, to.x - bend, to.y, to.x, to.y);
      context.strokeStyle = color;
      context.globalAlpha = alpha;
      context.lineWidth = line;
      context.stroke();
    }
    context.globalAlpha = 1;
  }

  /** The links that are shown, as curves in the frame: of the node looked at, else the heaviest. */
  curves() {
    const { links, panes, showLinks, frame: element } = this.canvas;
    if (!links || panes.length < 2 || !showLinks) return [];
    const frame = element.getBoundingClientRect();
    const at = this.focus();
    const pairs = at
      ? links.of(at.side, at.node).map((item) => (at.side === 0 ? [at.node, item.node, item.mass] : [item.node, at.node, item.mass]))
      : this.heaviest();
    const top = pairs.reduce((most, pair) => Math.max(most, pair[2]), 0) || 1;
    const hosts = panes.map((pane) => pane.host.getBoundingClientRect());
    const shown = [];
    for (const [left, right, mass] of pairs) {
      const ends = [panes[0].position(left), panes[1].position(right)];
      if (!panes[0].visible[left] || !panes[1].visible[right]) continue;
      if (ends.some((p, side) => p.x < 0 || p.y < 0 || p.x > hosts[side].width || p.y > hosts[side].height)) continue;
      const [from, to] = ends.map((p, side) => ({ x: p.x + hosts[side].left - frame.left, y: p.y + hosts[side].top - frame.top }));
      shown.push({
        from,
        to,
        bend: (to.x - from.x) * 0.35,
        color: at ? this.canvas.theme.accent : panes[0].groupColor(left),
        alpha: at ? 0.35 + 0.6 * (mass / top) : 0.1 + 0.2 * (mass / top),
        width: at ? 1 + 3 * (mass / top) : 0.9,
      });
    }
    return shown;
  }

  clear(width, height) {
    const density = window.devicePixelRatio || 1;
    const [columns, rows] = [Math.round(width * density), Math.round(height * density)];
    if (this.layer.width !== columns || this.layer.height !== rows) Object.assign(this.layer, { width: columns, height: rows });
    const context = this.layer.getContext("2d");
    context.setTransform(density, 0, 0, density, 0, 0);
    context.clearRect(0, 0, width, height);
    return context;
  }

  /** Without a focus only the links that carry most: all of them would be a blot. */
  heaviest() {
    const { links } = this.canvas;
    const { strength } = this.canvas.panes[0].model;
    links.ranked ??= Array.from(links.mass.keys())
      .sort((a, b) => links.mass[b] * strength[links.source[b]] - links.mass[a] * strength[links.source[a]])
      .slice(0, LINK_LIMIT)
      .map((e) => [links.source[e], links.target[e], links.mass[e]]);
    return links.ranked;
  }
}
