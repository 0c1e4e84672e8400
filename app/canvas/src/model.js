// The graph as typed arrays: what Python sent, plus the adjacency that hovering and ego networks read.

function bytes(text) {
  const raw = atob(text);
  const out = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
  return out.buffer;
}

export const floats = (text) => new Float32Array(bytes(text));
export const integers = (text) => new Uint32Array(bytes(text));

const extent = (values) => [values.reduce((a, b) => Math.min(a, b)), values.reduce((a, b) => Math.max(a, b))];

/** One graph of `n` nodes and `m` edges (heaviest first), decoded from the message. */
export class GraphModel {
  constructor(data) {
    this.version = data.version;
    this.title = data.title || "";
    this.labels = data.labels;
    this.n = data.labels.length;
    this.x = floats(data.x);
    this.y = floats(data.y);
    this.strength = floats(data.strength);
    this.group = integers(data.group);
    this.groups = data.groups.map((group) => ({ ...group })); // [{name, count, light, dark, color}]
    this.paint(false);
    this.source = integers(data.source);
    this.target = integers(data.target);
    this.weight = floats(data.weight);
    this.m = this.weight.length;
    this.bbox = data.bbox || null;
    this.factor = 1;
    this.indexAdjacency();
    this.best = new Float32Array(this.n);
    for (let e = 0; e < this.m; e++) {
      const w = this.weight[e];
      if (w > this.best[this.source[e]]) this.best[this.source[e]] = w;
      if (w > this.best[this.target[e]]) this.best[this.target[e]] = w;
    }
    this.order = Uint32Array.from(this.strength.keys()).sort((a, b) => this.strength[b] - this.strength[a]);
    this.maxStrength = this.n ? this.strength[this.order[0]] : 0;
    this.lowered = this.labels.map((label) => label.toLowerCase());
  }

  /** Give the groups the colours of one theme. */
  paint(dark) {
    for (const group of this.groups) group.color = dark ? group.dark : group.light;
  }

  /** Multiply all x by `factor`: a layout is square, a pane seldom is. */
  stretch(factor) {
    this.factor = factor;
    for (let i = 0; i < this.n; i++) this.x[i] *= factor;
    if (this.bbox) this.bbox = { x: this.bbox.x.map((x) => x * factor), y: this.bbox.y };
  }

  /** Where a node is, whatever the shape of the pane. */
  at(i) {
    return { x: this.x[i] / this.factor, y: this.y[i] };
  }

  /** Put some nodes elsewhere: [{node, x, y}] as `at` tells them. The frame stays what it was without that. */
  move(places) {
    if (places.length) this.bbox ??= { x: extent(this.x), y: extent(this.y) };
    for (const { node, x, y } of places) {
      this.x[node] = x * this.factor;
      this.y[node] = y;
    }
  }

  indexAdjacency() {
    const start = new Uint32Array(this.n + 1);
    for (let e = 0; e < this.m; e++) {
      start[this.source[e] + 1]++;
      start[this.target[e] + 1]++;
    }
    for (let i = 0; i < this.n; i++) start[i + 1] += start[i];
    const cursor = start.slice(0, this.n);
    const edges = new Uint32Array(2 * this.m);
    for (let e = 0; e < this.m; e++) {
      edges[cursor[this.source[e]]++] = e;
      edges[cursor[this.target[e]]++] = e;
    }
    this.start = start;
    this.incident = edges;
  }

  /** Neighbours of `i` over edges of at least `threshold`, heaviest first: [{node, edge, weight}]. */
  neighbours(i, threshold) {
    const out = [];
    for (let k = this.start[i]; k < this.start[i + 1]; k++) {
      const edge = this.incident[k];
      const weight = this.weight[edge];
      if (weight < threshold) continue;
      out.push({ node: this.source[edge] === i ? this.target[edge] : this.source[edge], edge, weight });
    }
    return out;
  }

  /** How many edges reach `threshold`: they are sorted, so a binary search. */
  countAbove(threshold) {
    let low = 0;
    let high = this.m;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.weight[middle] >= threshold) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Nodes within `depth` steps of `root` as a 0/1 mask. */
  ego(root, depth, threshold) {
    const seen = new Uint8Array(this.n);
    seen[root] = 1;
    let front = [root];
    for (let d = 0; d < depth; d++) {
      const next = [];
      for (const i of front)
        for (const { node } of this.neighbours(i, threshold))
          if (!seen[node]) {
            seen[node] = 1;
            next.push(node);
          }
      front = next;
    }
    return seen;
  }

  /** Best matches of a typed string: exact, then prefix, then inside; the stronger node first. */
  search(text, limit) {
    const wanted = text.trim().toLowerCase();
    if (!wanted) return [];
    const exact = [];
    const prefix = [];
    const inside = [];
    for (const i of this.order) {
      const label = this.lowered[i];
      const bare = label.replaceAll("␣", "");
      if (bare === wanted || label === wanted) exact.push(i);
      else if (bare.startsWith(wanted)) prefix.push(i);
      else if (label.includes(wanted)) inside.push(i);
    }
    return exact.concat(prefix, inside).slice(0, limit);
  }
}

/** A coupling between two graphs, row and column access: `rows[i]` = [{node, mass}], heaviest first. */
export class Links {
  constructor(data, left, right) {
    const source = integers(data.source);
    const target = integers(data.target);
    this.source = source;
    this.target = target;
    this.mass = floats(data.mass);
    this.sides = [Array.from({ length: left }, () => []), Array.from({ length: right }, () => [])];
    for (let e = 0; e < source.length; e++) {
      this.sides[0][source[e]].push({ node: target[e], mass: this.mass[e] });
      this.sides[1][target[e]].push({ node: source[e], mass: this.mass[e] });
    }
    for (const side of this.sides) for (const list of side) list.sort((a, b) => b.mass - a.mass);
    this.maxMass = this.mass.reduce((a, b) => Math.max(a, b), 0);
  }

  of(side, node) {
    return this.sides[side][node] || [];
  }
}
