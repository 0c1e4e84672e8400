// Colours come from Streamlit's CSS variables on the host element, so both themes and a user's own work.

let probe = null;

function channel(text) {
  probe ??= document.createElement("canvas").getContext("2d");
  probe.fillStyle = "#000";
  probe.fillStyle = text.trim();
  const value = probe.fillStyle;
  if (value.startsWith("#")) return [1, 3, 5].map((k) => parseInt(value.slice(k, k + 2), 16));
  const numbers = value.match(/[\d.]+/g) || ["0", "0", "0"];
  return numbers.slice(0, 3).map(Number);
}

export function readTheme(element) {
  const style = getComputedStyle(element);
  const read = (name, fallback) => style.getPropertyValue(name).trim() || fallback;
  const background = read("--st-background-color", "#ffffff");
  const rgb = channel(background);
  const dark = rgb[0] * 0.299 + rgb[1] * 0.587 + rgb[2] * 0.114 < 128;
  return {
    background,
    backgroundRgb: rgb.map((v) => v / 255),
    text: read("--st-text-color", dark ? "#fafafa" : "#1b1f24"),
    accent: read("--st-primary-color", "#0072b2"),
    font: read("--st-font", "sans-serif"),
    edge: dark ? "#8f99a8" : "#8a929c",
    dark,
    key: [background, read("--st-text-color", ""), read("--st-primary-color", "")].join("|"),
  };
}

export function withAlpha(color, alpha) {
  const [r, g, b] = channel(color);
  const hex = (v) => Math.round(v).toString(16).padStart(2, "0");
  return `#${hex(r)}${hex(g)}${hex(b)}${hex(alpha * 255)}`;
}
