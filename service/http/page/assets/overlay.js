// The photo, and over it the boxes with labels that keep out of each other's way.

const SVG = "http://www.w3.org/2000/svg";
const LABEL_PX = 20;
const PADDING_PX = 5;
const MAX_STEPS = 6;
// More than a screen shows; phones refuse much larger canvases.
const MAX_SIDE = 2048;

const measure = document.createElement("canvas").getContext("2d");

export class Overlay {
  #stage; #canvas; #svg; #unshown; #read; #colors;
  #size = { width: 1, height: 1 };
  #detections = [];

  /**
   * @param stage the element that holds a canvas, an svg, and a text for photos that cannot be shown
   * @param colors a CSS colour for each class id
   */
  constructor(stage, colors) {
    this.#stage = stage;
    this.#canvas = stage.querySelector("canvas");
    this.#svg = stage.querySelector("svg");
    this.#unshown = stage.querySelector(".unshown");
    this.#read = this.#unshown.querySelector("span");
    this.#colors = colors;
    new ResizeObserver(() => this.#draw()).observe(this.#canvas);
    new ResizeObserver(() => this.#draw()).observe(stage);
  }

  /** Show an image file, upright; its boxes come later. */
  async show(photo) {
    const bitmap = await createImageBitmap(photo).catch(() => null);
    this.#unshown.hidden = bitmap !== null;
    this.#size = { width: bitmap?.width ?? 640, height: bitmap?.height ?? 480 };
    const scale = Math.min(1, MAX_SIDE / Math.max(this.#size.width, this.#size.height));
    this.#canvas.width = Math.max(1, Math.round(this.#size.width * scale));
    this.#canvas.height = Math.max(1, Math.round(this.#size.height * scale));
    if (bitmap) this.#canvas.getContext("2d").drawImage(bitmap, 0, 0, this.#canvas.width, this.#canvas.height);
    bitmap?.close();
    this.#canvas.hidden = false;
    this.#stage.classList.remove("empty");
  }

  /** Draw boxes in pixels of an image of this size, which only an answer tells; `name` is the image's. */
  boxes(detections, size, name) {
    this.#detections = detections;
    this.#read.hidden = !size.width; // only an answer shows that the server can
    if (size.width) this.#size = size;
    this.#canvas.setAttribute("aria-label", describe(name, detections));
    this.#draw();
  }

  /** Point out one box, or none of them (-1). */
  point(index) {
    this.#svg.classList.toggle("pointing", index >= 0);
    this.#svg.querySelectorAll("g").forEach((group) => {
      group.classList.toggle("pointed", Number(group.dataset.index) === index);
    });
  }

  #draw() {
    const { offsetLeft, offsetTop, offsetWidth: width, offsetHeight: height } = this.#canvas;
    if (!width || !height) return;
    const place = { left: offsetLeft, top: offsetTop, width, height };
    for (const [name, value] of Object.entries(place)) this.#svg.style.setProperty(name, `${value}px`);
    this.#svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    measure.font = `600 13px ${getComputedStyle(this.#svg).fontFamily}`;
    const scale = { x: width / this.#size.width, y: height / this.#size.height };
    const taken = [];
    const groups = this.#detections.map((found, index) => {
      const box = scaled(found.box, scale);
      const label = placed(labelOf(found, width), box, { width, height }, taken);
      return this.#group(found, index, box, label);
    });
    this.#svg.replaceChildren(...groups.reverse()); // the best on top
  }

  #group(found, index, box, label) {
    const group = element("g", { "data-index": index });
    const color = this.#colors[found.class_id % this.#colors.length];
    group.style.setProperty("--color", color);
    group.style.setProperty("--ink", inkOn(color));
    const frame = { x: box.x1, y: box.y1, width: box.x2 - box.x1, height: box.y2 - box.y1 };
    const text = element("text", { x: label.x + PADDING_PX, y: label.y + 14.5 });
    text.textContent = label.text;
    group.append(
      element("rect", { class: "halo", ...frame }),
      element("rect", { class: "frame", ...frame }),
      element("rect", { class: "label", x: label.x, y: label.y, width: label.width, height: LABEL_PX }),
      text,
    );
    return group;
  }
}

/** What a picture shows, in words. */
export function describe(name, detections) {
  const counts = new Map();
  for (const found of detections) counts.set(found.class_name, (counts.get(found.class_name) ?? 0) + 1);
  const list = [...counts].map(([what, count]) => `${count} ${what}`).join(", ");
  return `${name}: ${list || "nothing found"}`;
}

function labelOf(found, room) {
  let text = `${found.class_name} ${found.score.toFixed(2)}`;
  while (text.length > 1 && measure.measureText(text).width + 2 * PADDING_PX > room) text = `${text.slice(0, -2)}…`;
  return { text, width: measure.measureText(text).width + 2 * PADDING_PX };
}

// The first free place round the box, as on the pictures that the server draws.
function placed(label, box, picture, taken) {
  const places = around(box, label.width).map(({ x, y }) => ({
    ...label,
    x: Math.max(0, Math.min(x, picture.width - label.width)),
    y: Math.max(0, Math.min(y, picture.height - LABEL_PX)),
  }));
  const best = places.find((place) => !taken.some((other) => overlap(place, other))) ?? places[0];
  taken.push(best);
  return best;
}

function around(box, width) {
  const above = box.y1 >= LABEL_PX ? [box.y1 - LABEL_PX] : [];
  const rows = [...above, box.y1, box.y2, box.y2 - LABEL_PX];
  for (let step = 1; step < MAX_STEPS; step++) rows.push(box.y1 - (step + 1) * LABEL_PX, box.y1 + step * LABEL_PX);
  return rows.flatMap((y) => [{ x: box.x1, y }, { x: box.x2 - width, y }]);
}

function overlap(a, b) {
  return a.x < b.x + b.width && b.x < a.x + a.width && Math.abs(a.y - b.y) < LABEL_PX;
}

function scaled({ x1, y1, x2, y2 }, { x, y }) {
  return { x1: x1 * x, y1: y1 * y, x2: x2 * x, y2: y2 * y };
}

function inkOn(color) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
  return 0.299 * red + 0.587 * green + 0.114 * blue > 125 ? "#000" : "#fff";
}

function element(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}
