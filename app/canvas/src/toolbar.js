// The strip above the canvas and the legend below it. All controls are ordinary, focusable elements.
import { count, element, number } from "./dom.js";

const STEPS = 1000;
const MATCHES = 8;

/** Slider position 0..STEPS to a weight: logarithmic, because weights span decades. */
export function weightAt(position, low, high) {
  if (position <= 0 || !(high > 0)) return 0;
  if (low >= high) return high;
  return low * Math.pow(high / low, position / STEPS);
}

export function positionOf(weight, low, high) {
  if (!(weight > low) || low >= high) return 0;
  return Math.round((STEPS * Math.log(weight / low)) / Math.log(high / low));
}

function button(text, title, act, kind = "") {
  return element("button", { type: "button", class: `tool ${kind}`, title, "aria-label": title, text, onclick: act });
}

/** Zoom in the corner of the frame, where maps have it. */
export function zoomButtons(canvas) {
  return element(
    "div",
    { class: "zoom join", role: "group", "aria-label": "Zoom" },
    button("−", "Zoom out (−)", () => canvas.camera.zoom(1.5), "icon"),
    button("+", "Zoom in (+)", () => canvas.camera.zoom(1 / 1.5), "icon"),
    button("Fit", "Show the whole graph (0)", () => canvas.camera.fit()),
  );
}

export class Toolbar {
  constructor(canvas) {
    this.canvas = canvas;
    this.matches = [];
    this.active = -1;
    this.input = element("input", {
      type: "search",
      class: "search",
      placeholder: "Search a token",
      "aria-label": "Search a token",
      role: "combobox",
      "aria-expanded": "false",
      "aria-controls": "gf-matches",
      autocomplete: "off",
      spellcheck: "false",
      oninput: () => this.search(),
      onkeydown: (event) => this.searchKey(event),
      onblur: () => setTimeout(() => this.closeList(), 120),
      onfocus: () => this.search(),
    });
    this.list = element("ul", { class: "matches", role: "listbox", id: "gf-matches", hidden: true });
    this.slider = element("input", {
      type: "range",
      min: 0,
      max: STEPS,
      value: 0,
      class: "threshold",
      "aria-label": "Hide edges lighter than",
      oninput: () => canvas.slide(Number(this.slider.value), false),
      onchange: () => canvas.slide(Number(this.slider.value), true),
    });
    this.readout = element("output", { class: "readout" });
    this.ego = button("Ego", "Show only the selected node and what it touches (E)", () => canvas.toggleEgo());
    this.pin = button("Pin", "Keep this node's label and place (P)", () => canvas.togglePin());
    this.labels = button("Labels", "Show or hide labels (L)", () => canvas.toggleLabels());
    this.links = button("Links", "Draw the coupling between matched nodes (K)", () => canvas.toggleLinks());
    this.root = element(
      "div",
      { class: "toolbar", role: "toolbar", "aria-label": "Graph controls" },
      element("span", { class: "searchbox" }, this.input, this.list),
      element("label", { class: "slider" }, element("span", { class: "caption", text: "Weight ≥" }), this.slider, this.readout),
      element("span", { class: "space" }),
      this.ego,
      this.pin,
      this.labels,
      this.links,
      element(
        "span",
        { class: "join" },
        button("PNG", "Save this view as a PNG image", () => canvas.exportPng()),
        button("SVG", "Save this view as an SVG drawing", () => canvas.exportSvg()),
      ),
    );
  }

  sync() {
    const { canvas } = this;
    const pressed = (button, on) => button.setAttribute("aria-pressed", on ? "true" : "false");
    pressed(this.ego, canvas.egoDepth > 0);
    pressed(this.labels, canvas.showLabels);
    pressed(this.links, canvas.showLinks);
    this.links.hidden = !canvas.links;
    const node = canvas.selected;
    this.ego.disabled = !node;
    this.pin.disabled = !node;
    pressed(this.pin, Boolean(node && canvas.panes[node.side].pinned.has(node.node)));
  }

  showThreshold(value, shown, total, low, high) {
    this.slider.value = String(positionOf(value, low, high));
    const text = `${value > 0 ? number(value) : "0"} · ${count(shown)} of ${count(total)} edges`;
    this.readout.textContent = `${value > 0 ? number(value) : "0"} · ${count(shown)} edges`;
    this.slider.setAttribute("aria-valuetext", text);
  }

  search() {
    this.matches = this.canvas.search(this.input.value, MATCHES);
    this.active = -1;
    this.list.replaceChildren(
      ...this.matches.map((match, k) =>
        element(
          "li",
          {
            role: "option",
            id: `gf-match-${k}`,
            onmousedown: (event) => {
              event.preventDefault();
              this.choose(k);
            },
          },
          element("span", { class: "dot", style: `background:${match.color}` }),
          element("bdi", { text: match.label }),
          element("span", { class: "quiet", text: match.detail }),
        ),
      ),
    );
    if (this.input.value.trim() && !this.matches.length)
      this.list.replaceChildren(element("li", { class: "quiet", text: "No such token in this graph" }));
    const open = Boolean(this.input.value.trim());
    this.list.hidden = !open;
    this.input.setAttribute("aria-expanded", String(open));
  }

  searchKey(event) {
    event.stopPropagation();
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && this.matches.length) {
      event.preventDefault();
      this.active = (this.active + step + this.matches.length) % this.matches.length;
      [...this.list.children].forEach((item, k) => item.setAttribute("aria-selected", String(k === this.active)));
      this.input.setAttribute("aria-activedescendant", `gf-match-${this.active}`);
    } else if (event.key === "Enter" && this.matches.length) {
      event.preventDefault();
      this.choose(Math.max(0, this.active));
    } else if (event.key === "Escape") {
      this.input.value = "";
      this.search();
      this.canvas.root.focus();
    }
  }

  choose(k) {
    const match = this.matches[k];
    this.input.value = "";
    this.search();
    this.canvas.choose(match);
  }

  closeList() {
    this.list.hidden = true;
    this.input.setAttribute("aria-expanded", "false");
  }
}

/** Communities as toggles: name, size (of each graph, where there are two), colour. */
export function legend(canvas) {
  const { model } = canvas.panes[0];
  const sizes = (index) => canvas.panes.map((pane) => count(pane.model.groups[index]?.count ?? 0)).join(" | ");
  const items = model.groups.map((group, index) =>
    element(
      "button",
      {
        type: "button",
        class: "group",
        "aria-pressed": canvas.hiddenGroups.has(index) ? "false" : "true",
        title: "Show or hide this group",
        onclick: () => canvas.toggleGroup(index),
      },
      element("span", { class: "dot", style: `background:${group.color}` }),
      element("bdi", { text: group.name }),
      element("span", { class: "quiet", text: sizes(index) }),
    ),
  );
  return element("div", { class: "legend", role: "group", "aria-label": "Groups" }, ...items);
}
