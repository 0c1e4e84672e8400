// PNG from the canvases as they stand, SVG from the model: both of the present view and threshold.

export function save(name, blob) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 2000);
}

export function png(pane) {
  // WebGL buffers are cleared after compositing: draw now and copy in the same task.
  pane.sigma.render();
  const canvases = pane.sigma.getCanvases();
  const out = document.createElement("canvas");
  out.width = pane.layer.width;
  out.height = pane.layer.height;
  const context = out.getContext("2d");
  context.fillStyle = pane.theme.background;
  context.fillRect(0, 0, out.width, out.height);
  for (const name of ["edges", "nodes"]) context.drawImage(canvases[name], 0, 0, out.width, out.height);
  context.drawImage(pane.layer, 0, 0);
  return new Promise((resolve) => out.toBlob(resolve, "image/png"));
}

const ESCAPES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
const escape = (text) => text.replace(/[&<>"']/g, (mark) => ESCAPES[mark]);

export function svg(pane) {
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
  const body = [...lines, ...discs, ...texts].join("\n");
  const source =
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}">\n` +
    `<rect width="100%" height="100%" fill="${theme.background}"/>\n${body}\n</svg>\n`;
  return new Blob([source], { type: "image/svg+xml" });
}
