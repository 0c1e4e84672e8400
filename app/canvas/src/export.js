// PNG from the canvases as they stand, SVG from the model: both of the present view and threshold, two graphs beside
// each other with the links between them.

export function save(name, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 2000);
}

const TITLE = { x: 12, y: 22 };

/** Where each pane stands in the frame: [{pane, x, y, width, height}]. */
function placed(canvas) {
  const frame = canvas.frame.getBoundingClientRect();
  return canvas.panes.map((pane) => {
    const { left, top, width, height } = pane.host.getBoundingClientRect();
    return { pane, x: left - frame.left, y: top - frame.top, width, height };
  });
}

export function png(canvas) {
  const { theme, frame } = canvas;
  const density = window.devicePixelRatio || 1;
  const out = document.createElement("canvas");
  const { width, height } = frame.getBoundingClientRect();
  out.width = Math.round(width * density);
  out.height = Math.round(height * density);
  const context = out.getContext("2d");
  context.scale(density, density);
  context.fillStyle = theme.background;
  context.fillRect(0, 0, width, height);
  for (const { pane, x, y, width, height } of placed(canvas)) {
    // WebGL buffers are cleared after compositing: draw now and copy in the same task.
    pane.sigma.render();
    const { edges, nodes } = pane.sigma.getCanvases();
    for (const layer of [edges, nodes, pane.layer]) context.drawImage(layer, x, y, width, height);
    context.font = `600 13px ${theme.font}`;
    context.fillStyle = theme.text;
    context.fillText(pane.model.title, x + TITLE.x, y + TITLE.y);
  }
  context.drawImage(canvas.overlay.layer, 0, 0, width, height);
  return new Promise((resolve) => out.toBlob(resolve, "image/png"));
}

const ESCAPES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
const escape = (text) => text.replace(/[&<>"']/g, (mark) => ESCAPES[mark]);

export function svg(canvas) {
  const { theme } = canvas;
  const { width, height } = canvas.frame.getBoundingClientRect();
  const size = `width="${width}" height="${height}"`;
  const panes = placed(canvas).map(
    ({ pane, x, y, width, height }) =>
      `<svg x="${x}" y="${y}" width="${width}" height="${height}">\n${drawing(pane)}\n` +
      `<text x="${TITLE.x}" y="${TITLE.y}" font-family="sans-serif" font-size="13" font-weight="600" fill="${theme.text}">` +
      `${escape(pane.model.title)}</text>\n</svg>`,
  );
  const point = ({ x, y }) => `${x.toFixed(1)},${y.toFixed(1)}`;
  const links = canvas.overlay.curves().map(
    ({ from, bend, to, color, alpha, width }) =>
      `<path d="M${point(from)} C${point({ x: from.x + bend, y: from.y })} ${point({ x: to.x - bend, y: to.y })} ${point(to)}" ` +
      `fill="none" stroke="${color}" stroke-opacity="${alpha.toFixed(2)}" stroke-width="${width.toFixed(2)}"/>`,
  );
  const source =
    `<svg xmlns="http://www.w3.org/2000/svg" ${size} viewBox="0 0 ${width} ${height}">\n` +
    `<rect width="100%" height="100%" fill="${theme.background}"/>\n${[...panes, ...links].join("\n")}\n</svg>\n`;
  return new Blob([source], { type: "image/svg+xml" });
}

/** One graph as lines, discs and texts. */
function drawing(pane) {
  const { width, height } = pane.sigma.getDimensions();
  const { model, look, theme } = pane;
  const at = Array.from({ length: model.n }, (_, i) => (pane.visible[i] ? pane.position(i) : null));
  const inside = (p) => p && p.x > -50 && p.y > -50 && p.x < width + 50 && p.y < height + 50;
  const lines = [];
  const top = model.m ? model.weight[0] : 1;
  for (let e = 0; e < model.m && model.weight[e] >= look.threshold; e++) {
    const a = at[model.source[e]];
    const b = at[model.target[e]];
    if (!inside(a) && !inside(b)) continue;
    if (!a || !b) continue;
    const same = model.group[model.source[e]] === model.group[model.target[e]];
    const color = same ? pane.groupColor(model.source[e]) : theme.edge;
    const share = Math.sqrt(model.weight[e] / top);
    lines.push(
      `<line x1="${a.x.toFixed(1)}" y1="${a.y.toFixed(1)}" x2="${b.x.toFixed(1)}" y2="${b.y.toFixed(1)}" ` +
        `stroke="${color}" stroke-opacity="${(0.1 + 0.6 * share).toFixed(2)}" stroke-width="${(0.5 + 3 * share).toFixed(2)}"/>`,
    );
  }
  const discs = [];
  for (let i = 0; i < model.n; i++) {
    if (!inside(at[i])) continue;
    discs.push(
      `<circle cx="${at[i].x.toFixed(1)}" cy="${at[i].y.toFixed(1)}" r="${pane.screenRadius(i).toFixed(1)}" ` +
        `fill="${pane.groupColor(i)}" stroke="${theme.background}"><title>${escape(model.labels[i])}</title></circle>`,
    );
  }
  const texts = [];
  for (const i of model.order.slice(0, 60)) {
    if (!inside(at[i]) || model.best[i] < look.threshold) continue;
    const x = at[i].x + pane.screenRadius(i) + 4;
    texts.push(
      `<text x="${x.toFixed(1)}" y="${(at[i].y + 4).toFixed(1)}" font-family="sans-serif" font-size="11" ` +
        `fill="${theme.text}" stroke="${theme.background}" stroke-width="3" paint-order="stroke">${escape(model.labels[i])}</text>`,
    );
  }
  return [...lines, ...discs, ...texts].join("\n");
}
