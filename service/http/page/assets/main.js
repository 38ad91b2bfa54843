// The page: what the user does, and what is shown then.

import { detect, drawn, getColors, getModel } from "./api.js";
import { LiveFeed } from "./camera.js";
import { Controls } from "./controls.js";
import { askForKey } from "./key.js";
import { ModelChoice } from "./models.js";
import { describe, Overlay } from "./overlay.js";
import { Results } from "./results.js";
import { suppress } from "./suppress.js";

// Candidates below it are not even asked for: the slider ends there.
const MIN_CONFIDENCE = 0.01;
const ANNOUNCE_EVERY_MS = 3000;
const RETRY_MS = 1000;
// Arrow keys settle at each step; the server is asked when they pause.
const SETTLE_MS = 150;
const EXAMPLES = { qr_code: "parcel.jpg", cup: "coffee.jpg" };
const STAGES = { decode: "Decode", queue: "Queue", inference: "Inference", postprocess: "Postprocess" };

const $ = (id) => document.getElementById(id);
const pause = (ms) => new Promise((resolve) => { setTimeout(resolve, ms); });

class Page {
  #model; #colors; #controls; #overlay; #results;
  #choice = new ModelChoice(() => this.#guarded(() => this.#changeModel()));
  #feed = new LiveFeed();
  #photo = null;
  #candidates = null; // of this photo and this query: a promise of an answer to nms=none
  #request = null;
  #turn = 0; // counts changes, so that no late answer hides a newer one
  #needsKey = false;
  #announced = 0;
  #example;

  async start() {
    this.#bind();
    this.#colors = await getColors();
    this.#results = new Results((index) => this.#overlay.point(index));
    this.#overlay = new Overlay($("stage"), this.#colors);
    this.#controls = new Controls(this.#colors, (moving) => this.#settingsChanged(moving));
    await this.#guarded(() => this.#load());
  }

  /** Ask for the models, which needs the API key; the first answer fills the form. */
  async #load() {
    const isAnother = await this.#choice.load();
    if (isAnother || !this.#model) await this.#useModel();
  }

  async #useModel() {
    const { named, inWords } = this.#choice;
    const model = await getModel(named);
    if (inWords !== this.#choice.inWords) return false; // the user has gone on to another
    this.#choice.keep();
    this.#model = model;
    this.#controls.use(model, named);
    this.#introduce(inWords);
    return true;
  }

  async #changeModel() {
    this.#request?.abort();
    this.#turn++;
    if (this.#photo) $("source").textContent = "waiting for the model…";
    try {
      if (!(await this.#useModel())) return;
    } catch (error) {
      this.#choice.undo();
      if (this.#photo) $("source").textContent = "no answer";
      throw error;
    }
    this.#announce(`${this.#choice.inWords}. ${this.#model.contract.class_names.length} classes.`);
    if (this.#photo && !this.#feed.running) await this.#askServer();
  }

  #introduce(inWords) {
    const { contract, provider } = this.#model;
    const served = `${contract.name}, version ${contract.version}`;
    $("model").textContent = this.#choice.isOpen ? `on ${provider}` : `${inWords || served}, on ${provider}`;
    $("settings").classList.add("ready");
    const known = contract.class_names.find((name) => name in EXAMPLES);
    document.querySelector("[data-act=example]").hidden = known === undefined;
    this.#example = EXAMPLES[known];
    this.#showCommands();
  }

  #bind() {
    $("settings").addEventListener("pointerenter", () => this.#fetchCandidates());
    $("settings").addEventListener("focusin", () => this.#fetchCandidates());
    const acts = {
      choose: () => $("file").click(),
      camera: () => (this.#feed.running ? this.#stopCamera() : this.#startCamera("")),
      example: () => this.#openExample(),
      download: () => this.#download(),
      reset: () => { this.#controls.reset(); this.#settingsChanged(false); },
      "all-classes": () => this.#controls.chooseAll(true),
      "no-classes": () => this.#controls.chooseAll(false),
    };
    document.addEventListener("click", ({ target }) => {
      const act = acts[target.closest("[data-act]")?.dataset.act];
      if (act) this.#guarded(async () => act());
    });
    $("key-button").addEventListener("click", () => this.#askForKey(() => this.#load()));
    $("file").addEventListener("change", () => this.#take($("file").files));
    $("camera-choice").addEventListener("change", ({ target }) => this.#guarded(() => this.#startCamera(target.value)));
    document.addEventListener("paste", ({ clipboardData }) => this.#take(clipboardData.files));
    document.addEventListener("drop", (event) => { event.preventDefault(); this.#drag(false); this.#take(event.dataTransfer.files); });
    document.addEventListener("dragover", (event) => { event.preventDefault(); this.#drag(true); });
    document.addEventListener("dragleave", ({ relatedTarget }) => { if (!relatedTarget) this.#drag(false); });
  }

  #drag(over) {
    $("stage").classList.toggle("dragged", over);
  }

  // Photos

  #take(files) {
    const photo = files[0];
    $("file").value = "";
    if (photo) this.#guarded(() => this.#open(photo));
  }

  async #openExample() {
    const response = await fetch(`docs/${this.#example}`);
    const blob = await response.blob();
    await this.#open(new File([blob], this.#example, { type: blob.type }));
  }

  async #open(photo) {
    if (photo.type && !photo.type.startsWith("image/")) {
      throw new Error(`“${photo.name}” is not an image (${photo.type}). Choose a JPEG, PNG, WebP or another picture.`);
    }
    if (!this.#model) await this.#load();
    checkSize(photo, this.#model.limits.max_body_bytes);
    this.#stopCamera();
    this.#photo = photo;
    this.#candidates = null;
    this.#show([], {}, "asking the server…");
    this.#results.json(null);
    $("timing").hidden = true;
    $("bar").hidden = false;
    await this.#overlay.show(photo);
    await this.#askServer();
  }

  /** The server's own answer with the present settings. */
  async #askServer() {
    this.#turn++;
    this.#showCommands();
    $("problem").hidden = true;
    const options = this.#controls.options();
    if (options.classes?.size === 0) return this.#showNoClass();
    this.#request?.abort();
    this.#request = new AbortController();
    $("stage").setAttribute("aria-busy", "true");
    try {
      const { answer, roundTripMs } = await detect(this.#photo, this.#controls.query(options), this.#request.signal);
      this.#show(answer.results[0].detections, answer.results[0], "as the server answered");
      this.#results.json(answer);
      this.#showTimes(answer.timing_ms, { "Network and rest": roundTripMs - answer.timing_ms.total });
      this.#announce(`${$("summary").textContent}. ${describe(this.#photo.name, answer.results[0].detections)}`);
    } catch (error) {
      if (error.name !== "AbortError") $("source").textContent = "no answer";
      throw error;
    } finally {
      $("stage").removeAttribute("aria-busy");
    }
  }

  // Settings

  #settingsChanged(moving) {
    this.#showCommands();
    if (!this.#photo || this.#feed.running) return; // the next frame is asked for with them
    this.#request?.abort();
    const turn = ++this.#turn;
    this.#guarded(() => this.#preview(turn));
    if (!moving) setTimeout(() => { if (turn === this.#turn) this.#guarded(() => this.#askServer()); }, SETTLE_MS);
  }

  /** What the server would answer, from its candidates, until it has answered. */
  async #preview(turn) {
    const { detections, width, height } = (await this.#fetchCandidates()).answer.results[0];
    if (turn !== this.#turn) return;
    const options = this.#controls.options();
    const isCut = detections.length === options.max_detections;
    const source = `preview from ${isCut ? "the best " : ""}${detections.length} candidates`;
    this.#show(suppress(detections, options), { width, height }, source);
  }

  /** All boxes of the photo before suppression, fetched once for each model and way to score. */
  #fetchCandidates() {
    if (!this.#photo || this.#feed.running) return null;
    const photo = this.#photo;
    const query = this.#controls.candidatesQuery(MIN_CONFIDENCE);
    if (this.#candidates?.query !== query || this.#candidates.photo !== photo) {
      const answer = detect(photo, query);
      answer.catch(() => { this.#candidates = null; }); // the request that waits for it says why
      this.#candidates = { photo, query, answer };
    }
    return this.#candidates.answer;
  }

  // The camera

  async #startCamera(deviceId) {
    if (!this.#model) await this.#load();
    this.#request?.abort();
    this.#turn++;
    $("problem").hidden = true;
    await this.#feed.start(deviceId, (frame, captured) => this.#frame(frame, captured));
    this.#showCamera(true);
    const { list, current } = await this.#feed.cameras();
    $("cameras").hidden = list.length < 2;
    $("camera-choice").replaceChildren(...list.map(({ deviceId: id, label }) => new Option(label || "Camera", id, false, id === current)));
  }

  #stopCamera() {
    this.#feed.stop();
    this.#showCamera(false);
  }

  #showCamera(on) {
    $("cameras").hidden = true;
    $("stage").classList.toggle("live", on);
    if (on) $("bar").hidden = false;
    document.querySelectorAll("[data-act=camera]").forEach((button) => {
      button.textContent = on ? "Stop the camera" : "Use the camera";
    });
  }

  async #frame(frame, captured) {
    const options = this.#controls.options();
    try {
      const { answer, roundTripMs } = await detect(frame, this.#controls.query(options));
      if (!this.#feed.running) return;
      await this.#showFrame(frame, answer, roundTripMs, captured, options);
      $("problem").hidden = true;
    } catch (error) {
      await this.#frameFailed(error);
    }
  }

  async #showFrame(frame, answer, roundTripMs, captured, options) {
    const name = "camera.jpg";
    this.#photo = new File([frame], name, { type: frame.type });
    const [result] = answer.results;
    const detections = options.classes?.size === 0 ? [] : result.detections;
    await this.#overlay.show(frame);
    const rate = this.#feed.countFrame();
    this.#show(detections, result, `live, ${rate.toFixed(rate < 10 ? 1 : 0)} frames a second`);
    this.#results.json(answer);
    this.#showTimes(answer.timing_ms, {
      "Network and rest": roundTripMs - answer.timing_ms.total,
      "Camera to screen": performance.now() - captured,
    });
    if (performance.now() - this.#announced > ANNOUNCE_EVERY_MS) this.#announce(describe("Camera", detections));
  }

  async #frameFailed(error) {
    if (error.status === 503 || error.status === 504) {
      this.#complain(error);
      await pause(RETRY_MS);
      return;
    }
    this.#stopCamera();
    this.#guarded(async () => { throw error; });
  }

  // What is shown

  /** Without a size there is no answer yet, and nothing to count or to download. */
  #show(detections, { width, height }, source) {
    const count = `${detections.length} ${detections.length === 1 ? "object" : "objects"}`;
    $("summary").textContent = width ? count : "";
    $("source").textContent = source;
    document.querySelector("[data-act=download]").hidden = !width;
    this.#overlay.boxes(detections, { width, height }, this.#photo.name);
    this.#results.list(detections, this.#colors, Boolean(width));
    this.#controls.count(detections);
  }

  #showNoClass() {
    this.#show([], {}, "every class is off");
    this.#results.json(null);
    $("timing").hidden = true;
  }

  #showTimes(timing, further) {
    const server = Object.entries(STAGES).map(([name, words]) => [words, timing[name]]);
    this.#results.times({ ...Object.fromEntries(server), ...further });
  }

  #showCommands() {
    const { name, type } = this.#photo ?? { name: "photo.jpg", type: "image/jpeg" };
    const query = this.#controls.query();
    this.#results.commands(name, type || "application/octet-stream", query, this.#needsKey);
  }

  #announce(text) {
    this.#announced = performance.now();
    $("announcement").textContent = text;
  }

  async #download() {
    const photo = this.#photo;
    const type = photo.type === "image/jpeg" ? "image/jpeg" : "image/png";
    const picture = await drawn(photo, this.#controls.query(), type);
    const stem = photo.name.replace(/\.[^.]*$/, "");
    const link = Object.assign(document.createElement("a"), {
      href: URL.createObjectURL(picture),
      download: `${stem}-detected.${type.split("/")[1].replace("jpeg", "jpg")}`,
    });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  }

  // What goes wrong

  async #guarded(work) {
    try {
      await work();
    } catch (error) {
      if (error.name === "AbortError") return;
      if (error.status === 401) await this.#askForKey(work);
      else this.#complain(error);
    }
  }

  async #askForKey(work) {
    this.#needsKey = true;
    $("key-button").hidden = false;
    try {
      await askForKey(work);
      if (!this.#model) $("model").textContent = "The server wants an API key.";
    } catch (error) {
      this.#complain(error);
    }
  }

  #complain(error) {
    $("problem").hidden = false;
    $("problem").textContent = error.message;
  }
}

// The server would refuse it before it is sent, and some browsers then only say that they failed.
function checkSize(photo, maxBytes) {
  if (photo.size <= maxBytes) return;
  const [size, most] = [photo.size, maxBytes].map((bytes) => (bytes / 1e6).toFixed(1));
  throw new Error(`“${photo.name}” has ${size} MB, and this server takes at most ${most} MB. Send a smaller copy.`);
}

new Page().start();
