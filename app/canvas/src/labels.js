// Labels without overlap: the strongest first, each in the first free place, never more than fit.

const CELL = 24;

class Occupancy {
  constructor(width, height) {
    this.columns = Math.ceil(width / CELL) + 1;
    this.cells = new Map();
    this.width = width;
    this.height = height;
  }

  // Boxes per coarse cell, so that a candidate is compared with its surroundings only.
  visit(box, act) {
    for (let cy = Math.floor(box.top / CELL); cy <= Math.floor(box.bottom / CELL); cy++)
      for (let cx = Math.floor(box.left / CELL); cx <= Math.floor(box.right / CELL); cx++)
        if (act(cy * this.columns + cx)) return true;
    return false;
  }

  free(box) {
    return !this.visit(box, (cell) =>
      (this.cells.get(cell) || []).some(
        (other) => box.left < other.right && other.left < box.right && box.top < other.bottom && other.top < box.bottom,
      ),
    );
  }

  take(box) {
    this.visit(box, (cell) => {
      if (!this.cells.has(cell)) this.cells.set(cell, []);
      this.cells.get(cell).push(box);
      return false;
    });
  }
}

function shorten(label) {
  const points = Array.from(label);
  return points.length > 24 ? `${points.slice(0, 23).join("")}…` : label;
}

/** Draw the labels of `lit` and `forced` nodes first, then (without focus) of the strongest nodes in view. */
export function placeLabels(pane, context, width, height, lit, forced) {
  const { model, look, theme } = pane;
  const taken = new Occupancy(width, height);
  const seen = new Set();
  const limit = Math.max(12, Math.round((width * height) / 9000));
  context.textBaseline = "middle";
  context.textAlign = "left";
  context.lineJoin = "round";
  const attempt = (node, weight) => {
    if (seen.has(node) || !pane.visible[node]) return false;
    seen.add(node);
    const at = pane.position(node);
    if (at.x < -20 || at.y < -10 || at.x > width + 20 || at.y > height + 10) return false;
    const radius = pane.screenRadius(node);
    const size = weight === "focus" ? 13 : Math.max(10.5, Math.min(14, 9 + radius * 0.45));
    const font = `${weight === "normal" ? 400 : 600} ${size.toFixed(1)}px ${theme.font}`;
    const text = shorten(model.labels[node]);
    context.font = font;
    const key = `${font}|${node}`;
    let measured = pane.widths.get(key);
    if (measured === undefined) {
      if (pane.widths.size > 20000) pane.widths.clear();
      measured = context.measureText(text).width;
      pane.widths.set(key, measured);
    }
    const half = size / 2 + 1;
    for (const x of [at.x + radius + 4, at.x - radius - 4 - measured]) {
      const box = { left: x - 1, right: x + measured + 2, top: at.y - half, bottom: at.y + half };
      if (weight !== "focus" && !taken.free(box)) continue;
      taken.take(box);
      context.lineWidth = 3.5;
      context.strokeStyle = theme.background;
      context.strokeText(text, x, at.y);
      context.fillStyle = theme.text;
      context.fillText(text, x, at.y);
      return true;
    }
    return false;
  };
  const focus = pane.focus();
  if (focus !== null) attempt(focus, "focus");
  for (const node of forced) attempt(node, "forced");
  for (const node of lit) attempt(node, "normal");
  let drawn = 0;
  if (pane.showLabels && !lit.length) {
    // Off-screen nodes cost little; a bound on the tries keeps a frame short when the view is crowded.
    let tries = 0;
    for (const node of model.order) {
      if (drawn >= limit || tries > 2500) break;
      if (model.best[node] < look.threshold || !pane.visible[node]) continue;
      tries++;
      if (attempt(node, "normal")) drawn++;
    }
  }
  pane.labelsDrawn = drawn;
}
