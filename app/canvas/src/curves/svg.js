// SVG described first and then shown by changing what is there. A chart that is redrawn every second for hours must not
// make every element anew: Blink frees them all, but does not move what lives between, so its pages fill with holes.
const SPACE = "http://www.w3.org/2000/svg";

/** An element to be: its attributes (null: none) and children, descriptions or text. */
export const svg = (tag, attributes = {}, ...children) => ({ tag, attributes, children });

/** The element of a description. */
export function made({ tag, attributes, children }) {
  const element = document.createElementNS(SPACE, tag);
  dress(element, attributes);
  show(element, ...children);
  return element;
}

/** Make `wanted` (descriptions or text) the children of an element, with as much as possible of those it has. */
export function show(parent, ...wanted) {
  wanted.forEach((item, at) => {
    const now = parent.childNodes[at];
    if (typeof item === "string") {
      if (now?.nodeType !== Node.TEXT_NODE) put(parent, now, document.createTextNode(item));
      else if (now.data !== item) now.data = item;
    } else if (now?.localName !== item.tag) {
      put(parent, now, made(item));
    } else {
      dress(now, item.attributes);
      show(now, ...item.children);
    }
  });
  while (parent.childNodes.length > wanted.length) parent.lastChild.remove();
}

function put(parent, now, element) {
  if (now) now.replaceWith(element);
  else parent.append(element);
}

function dress(element, attributes) {
  for (const name of element.getAttributeNames()) if ((attributes[name] ?? null) === null) element.removeAttribute(name);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
  }
}
