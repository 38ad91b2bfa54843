// Which model is asked, where the server has several.

import { getModels } from "./api.js";

const select = document.getElementById("model-choice");

export class ModelChoice {
  #offered = [];
  #inUse = "";

  /** @param changed called when the user has chosen another model or version */
  constructor(changed) {
    select.addEventListener("change", () => changed());
  }

  /**
   * Offer every version that answers requests, or would be loaded for one.
   *
   * @returns whether another one than before is chosen then
   */
  async load() {
    const before = this.inWords;
    const { models } = await getModels();
    this.#offered = models.filter(({ state }) => state !== "UNAVAILABLE");
    select.replaceChildren(...this.#offered.map((each) => new Option(inWords(each))));
    this.#choose(before);
    select.parentElement.hidden = !this.isOpen;
    return this.inWords !== before;
  }

  #choose(words) {
    const index = this.#offered.findIndex((each) => inWords(each) === words);
    select.selectedIndex = index < 0 ? usual(this.#offered) : index;
  }

  /** Whether there is more than one to choose from. */
  get isOpen() {
    return this.#offered.length > 1;
  }

  /** What a request names: `model` and `version`, or nothing where there is no choice. */
  get named() {
    if (!this.isOpen) return {};
    const { name, version } = this.#offered[select.selectedIndex];
    return { model: name, version };
  }

  get inWords() {
    return select.selectedOptions[0]?.text ?? "";
  }

  /** The chosen one has been loaded. */
  keep() {
    this.#inUse = this.inWords;
  }

  /** The chosen one could not be loaded: the one before stays in use. */
  undo() {
    this.#choose(this.#inUse);
  }
}

function inWords({ name, version }) {
  return `${name}, version ${version}`;
}

// The one that gets most of the requests that name none.
function usual(offered) {
  const shares = offered.map(({ default: isDefault, share }) => (isDefault ? share : -1));
  return shares.indexOf(Math.max(...shares));
}
