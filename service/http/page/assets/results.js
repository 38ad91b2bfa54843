// The answer as a table, as JSON, and as commands that give the same.

const $ = (id) => document.getElementById(id);

export class Results {
  #point;

  /** @param point called with the index of the box that the user points at in the table, or -1 */
  constructor(point) {
    this.#point = point;
    const tabs = [...document.querySelectorAll("[role=tab]")];
    tabs.forEach((tab) => tab.addEventListener("click", () => select(tabs, tab)));
    document.querySelector("[role=tablist]").addEventListener("keydown", (event) => moveTab(tabs, event));
    const body = $("boxes").tBodies[0];
    body.addEventListener("pointerover", ({ target }) => this.#point(rowIndex(target)));
    body.addEventListener("pointerleave", () => this.#point(-1));
    body.addEventListener("focusin", ({ target }) => this.#point(rowIndex(target)));
    body.addEventListener("focusout", () => this.#point(-1));
    body.addEventListener("keydown", moveRow);
    document.querySelectorAll("[data-copy]").forEach((button) => button.addEventListener("click", () => copy(button)));
  }

  /** List detections, the best first; without an answer there are none. */
  list(detections, colors, isAnswer) {
    $("boxes").hidden = !detections.length;
    $("no-boxes").hidden = detections.length > 0;
    $("no-boxes").textContent = isAnswer
      ? "No boxes. A lower confidence shows weaker ones."
      : "The boxes of your photo will be listed here.";
    const focused = document.activeElement.closest("#boxes tbody tr");
    const rows = detections.map((found, index) => row(found, index, colors[found.class_id % colors.length]));
    $("boxes").tBodies[0].replaceChildren(...rows);
    // Whoever reads the table with the keyboard stays where they were.
    if (focused) rows[Math.min(Number(focused.dataset.index), rows.length - 1)]?.focus();
  }

  /** Show times in ms, by their names, each with a bar beside the longest. */
  times(all) {
    const longest = Math.max(1, ...Object.values(all));
    $("timing").replaceChildren(...Object.entries(all).map(([words, ms]) => timeOf(words, Math.max(0, ms), longest)));
    $("timing").hidden = false;
  }

  json(answer) {
    $("json").textContent = JSON.stringify(answer, null, 2);
  }

  /** Show the request for a file of this name with `curl` and in Python. */
  commands(name, type, query, needsKey) {
    const address = new URL(`detect${query}`, document.baseURI).href;
    $("curl").textContent = curl(address, name, type, needsKey);
    $("python").textContent = python(address, name, type, needsKey);
  }
}

function curl(address, name, type, needsKey) {
  const key = needsKey ? ` -H "X-API-Key: $YOLOX_API_KEY"` : "";
  return `curl -H 'Content-Type: ${type}'${key} \\\n  --data-binary ${quoted(`@${name}`)} \\\n  ${quoted(address)}\n`;
}

function quoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

function python(address, name, type, needsKey) {
  const key = needsKey ? `, "X-API-Key": os.environ["YOLOX_API_KEY"]` : "";
  return `${needsKey ? "import os\n" : ""}from pathlib import Path

import requests

answer = requests.post(
    ${JSON.stringify(address)},
    data=Path(${JSON.stringify(name)}).read_bytes(),
    headers={"Content-Type": ${JSON.stringify(type)}${key}},
    timeout=30,
)
answer.raise_for_status()
for found in answer.json()["results"][0]["detections"]:
    print(found["class_name"], found["score"], found["box"])
`;
}

function row(found, index, color) {
  const { x1, y1, x2, y2 } = found.box;
  const made = document.createElement("tr");
  made.dataset.index = index;
  made.tabIndex = index ? -1 : 0; // the arrow keys lead to the others
  const head = Object.assign(document.createElement("th"), { scope: "row" });
  const swatch = Object.assign(document.createElement("span"), { className: "swatch" });
  swatch.style.setProperty("--color", color);
  head.append(swatch, found.class_name);
  const scores = [found.score, found.objectness, found.class_score].map((value) => value.toFixed(3));
  const cells = [...scores, ...[x1, y1, x2, y2].map((value) => value.toFixed(1))];
  made.append(head, ...cells.map((textContent) => Object.assign(document.createElement("td"), { textContent })));
  return made;
}

function timeOf(words, ms, longest) {
  const group = document.createElement("div");
  group.style.setProperty("--share", `${(100 * ms) / longest}%`);
  group.append(
    Object.assign(document.createElement("dt"), { textContent: words }),
    Object.assign(document.createElement("dd"), { textContent: `${ms.toFixed(1)} ms` }),
  );
  return group;
}

function rowIndex(target) {
  return Number(target.closest("tr").dataset.index);
}

function moveRow(event) {
  const current = event.target.closest("tr");
  const next = { ArrowDown: current.nextElementSibling, ArrowUp: current.previousElementSibling }[event.key];
  if (!next) return;
  event.preventDefault();
  current.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

function select(tabs, chosen) {
  for (const tab of tabs) {
    const isChosen = tab === chosen;
    tab.setAttribute("aria-selected", isChosen);
    tab.tabIndex = isChosen ? 0 : -1;
    $(tab.getAttribute("aria-controls")).hidden = !isChosen;
  }
}

function moveTab(tabs, event) {
  const at = tabs.indexOf(document.activeElement);
  const last = tabs.length - 1;
  const to = { ArrowRight: at === last ? 0 : at + 1, ArrowLeft: at ? at - 1 : last, Home: 0, End: last }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  select(tabs, tabs[to]);
  tabs[to].focus();
}

async function copy(button) {
  const text = $(button.dataset.copy).textContent;
  // Browsers offer the clipboard only to pages from https:// or from localhost.
  const copied = await navigator.clipboard?.writeText(text).then(() => true, () => false);
  if (!copied) getSelection().selectAllChildren($(button.dataset.copy));
  button.textContent = copied ? "Copied" : "Selected: press Ctrl+C";
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
}
