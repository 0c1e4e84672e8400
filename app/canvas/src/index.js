// Entry of the Streamlit component: one canvas for each place on a page, killed when Streamlit unmounts it.
import { Canvas } from "./canvas.js";
import { element } from "./dom.js";

const NO_WEBGL = "This browser offers no WebGL, so the graph cannot be drawn here. The tables on this page hold the same data.";
const LIVE = new WeakMap();

function webglWorks() {
  const probe = document.createElement("canvas");
  return Boolean(probe.getContext("webgl2") || probe.getContext("webgl"));
}

export default function render(component) {
  const { data, parentElement, key, setStateValue } = component;
  let canvas = LIVE.get(parentElement);
  if (!canvas) {
    canvas = new Canvas(parentElement, data.memory || key);
    LIVE.set(parentElement, canvas);
  }
  try {
    canvas.update(data, setStateValue);
  } catch (error) {
    // Asked only now: making a context to see whether one can be made would delay every first picture.
    if (webglWorks()) throw error;
    LIVE.delete(parentElement);
    canvas.kill();
    parentElement.replaceChildren(element("p", { class: "fallback", role: "alert", text: NO_WEBGL }));
    return undefined;
  }
  return () => {
    LIVE.delete(parentElement);
    canvas.kill();
  };
}
