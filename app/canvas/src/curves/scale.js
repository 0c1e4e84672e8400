// Numbers on axes: where ticks go and how values are written.

/** About `wanted` round numbers between `low` and `high`; whole ones where `whole`. */
export function ticks(low, high, wanted, whole = false) {
  const raw = (high - low) / Math.max(wanted, 1);
  if (!(raw > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(raw));
  let step = power * ([1, 2, 5, 10].find((k) => k * power >= raw * (1 - 1e-9)) ?? 10);
  if (whole) step = Math.max(1, step);
  const out = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++) out.push(+(k * step).toPrecision(12));
  return out;
}

/** Powers of ten between two logarithms, with 2 and 5 between them where there would be fewer than three. */
export function decades(low, high) {
  const out = [];
  for (const parts of [[1], [1, 2, 5]]) {
    out.length = 0;
    for (let k = Math.floor(low); k <= Math.ceil(high); k++)
      for (const part of parts) {
        const at = k + Math.log10(part);
        if (at >= low - 1e-9 && at <= high + 1e-9) out.push(at);
      }
    if (out.length > 2) break;
  }
  return out;
}

/** A value for an axis: short. */
export function short(value) {
  const size = Math.abs(value);
  if (size >= 1e6) return `${+(value / 1e6).toPrecision(4)}M`;
  if (size >= 1e4) return `${+(value / 1e3).toPrecision(4)}k`;
  return exact(value, 4);
}

/** A value for reading: `digits` significant ones. */
export function exact(value, digits = 5) {
  const size = Math.abs(value);
  if (!Number.isFinite(value)) return "–";
  if (size !== 0 && (size < 1e-4 || size >= 1e9)) return value.toExponential(Math.max(digits - 2, 1)).replace(/\.?0+e/, "e");
  return size >= 1e4 ? Math.round(value).toLocaleString("en-US") : String(+value.toPrecision(digits));
}

/** Place of the entry of ascending `values` nearest to `wanted`. */
export function nearest(values, wanted) {
  let low = 0;
  let high = values.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (values[middle] < wanted) low = middle;
    else high = middle;
  }
  return wanted - values[low] <= values[high] - wanted ? low : high;
}
