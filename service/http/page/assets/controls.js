// The form of settings: sliders, method and classes, as options of a request.

const NAMED = ["confidence", "iou", "nms", "score_by", "class_agnostic"];
// With more classes than this, one can search them.
const MANY_CLASSES = 12;

const $ = (id) => document.getElementById(id);

export class Controls {
  #model;
  #named;
  #colors;
  #changed;

  /**
   * @param colors a CSS colour for each class id
   * @param changed called with true while a slider moves, and with false when a value is settled
   */
  constructor(colors, changed) {
    this.#colors = colors;
    this.#changed = changed;
    $("settings").addEventListener("input", (event) => this.#input(event));
    $("settings").addEventListener("change", (event) => this.#settled(event));
    $("settings").addEventListener("submit", (event) => event.preventDefault());
  }

  /**
   * Take the classes and the defaults of a model.
   *
   * @param model the answer of `GET /model`
   * @param named the `model` and `version` that requests name, if any
   */
  use(model, named) {
    this.#model = model;
    this.#named = named;
    this.#listClasses();
    this.reset();
  }

  /** Back to the options that the server uses for a request without any. */
  reset() {
    for (const name of NAMED) {
      const value = this.#model.defaults[name];
      if (typeof value === "boolean") $(name).checked = value;
      else $(name).value = value;
    }
    this.#boxes().forEach((box) => { box.checked = true; });
    this.#describe();
  }

  chooseAll(chosen) {
    this.#shownBoxes().forEach((box) => { box.checked = chosen; });
    this.#changed(false);
  }

  /** The options as numbers and names; `classes` is a Set of ids, or null if all are on. */
  options() {
    const boxes = this.#boxes();
    const on = boxes.filter((box) => box.checked).map((box) => Number(box.value));
    return {
      ...this.#model.defaults,
      confidence: Number($("confidence").value),
      iou: Number($("iou").value),
      nms: $("nms").value,
      score_by: $("score_by").value,
      class_agnostic: $("class_agnostic").checked,
      classes: on.length === boxes.length ? null : new Set(on),
    };
  }

  /** The query of a request with these options; what the server does anyway is left out. */
  query(options = this.options()) {
    const query = new URLSearchParams(this.#named);
    for (const name of [...NAMED, "max_detections"]) {
      if (options[name] !== this.#model.defaults[name]) query.set(name, options[name]);
    }
    if (options.classes) query.set("classes", [...options.classes].map((id) => this.#nameOf(id)).join());
    const text = query.toString().replaceAll("%2C", ",");
    return text && `?${text}`;
  }

  /** The query of a request for all boxes before suppression whose score is at least `confidence`. */
  candidatesQuery(confidence) {
    const { score_by } = this.options();
    return `?${new URLSearchParams({ ...this.#named, confidence, nms: "none", score_by })}`;
  }

  /** Say beside each class how many boxes of it are shown. */
  count(detections) {
    const counts = new Map();
    for (const { class_id } of detections) counts.set(class_id, (counts.get(class_id) ?? 0) + 1);
    for (const box of this.#boxes()) {
      box.parentElement.querySelector(".count").textContent = counts.get(Number(box.value)) ?? "";
    }
  }

  // Names with commas cannot be sent as names.
  #nameOf(id) {
    const name = this.#model.contract.class_names[id];
    return name.includes(",") || name !== name.trim() ? id : name;
  }

  #listClasses() {
    const names = this.#model.contract.class_names;
    $("classes").replaceChildren(...names.map((name, id) => classItem(name, id, this.#colors[id % this.#colors.length])));
    $("class-filter").value = "";
    $("class-filter").hidden = names.length <= MANY_CLASSES;
  }

  #input({ target }) {
    if (target.id === "class-filter") return this.#filter(target.value);
    this.#describe();
    if (target.type === "range") this.#changed(true);
  }

  #settled({ target }) {
    if (target.id !== "class-filter") this.#changed(false);
  }

  #filter(text) {
    for (const item of $("classes").children) {
      item.hidden = !item.textContent.toLowerCase().includes(text.trim().toLowerCase());
    }
  }

  #describe() {
    $("confidence-value").textContent = Number($("confidence").value).toFixed(2);
    $("iou-value").textContent = Number($("iou").value).toFixed(2);
    const ignored = ["soft-gaussian", "none"].includes($("nms").value);
    $("iou").disabled = ignored;
    $("iou-hint").textContent = ignored
      ? `The method ${$("nms").value} uses no overlap threshold.`
      : "Boxes that overlap more than this compete.";
  }

  #boxes() {
    return [...$("classes").querySelectorAll("input")];
  }

  #shownBoxes() {
    return this.#boxes().filter((box) => !box.closest("li").hidden);
  }
}

function classItem(name, id, color) {
  const item = document.createElement("li");
  const label = document.createElement("label");
  const box = Object.assign(document.createElement("input"), { type: "checkbox", value: id, checked: true });
  const swatch = Object.assign(document.createElement("span"), { className: "swatch" });
  swatch.style.setProperty("--color", color);
  const count = Object.assign(document.createElement("span"), { className: "count" });
  label.append(box, swatch, Object.assign(document.createElement("span"), { className: "name", textContent: name }), count);
  item.append(label);
  return item;
}
