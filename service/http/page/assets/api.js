// Requests to the server. The API key is sent in a header, and kept only if the user wants it.

const STORED_KEY = "yolox-serve-api-key";
let key = sessionStorage.getItem(STORED_KEY) ?? "";

/** An answer that is not 2xx, or none at all. */
export class Problem extends Error {
  constructor({ title, detail, status = 0, request_id = "" }) {
    super(detail ? `${title}: ${detail}` : title);
    this.status = status;
    this.requestId = request_id;
  }
}

export function setKey(value, keep) {
  key = value;
  sessionStorage.removeItem(STORED_KEY);
  if (keep) sessionStorage.setItem(STORED_KEY, value);
}

/** The answer of `GET /model` about the default model, or about the `model` and `version` that are named. */
export async function getModel(named) {
  const query = new URLSearchParams(named).toString();
  return (await send(query ? `model?${query}` : "model")).json();
}

/** The answer of `GET /models`. */
export async function getModels() {
  return (await send("models")).json();
}

/** The colours of the classes. */
export async function getColors() {
  return (await send("page/colors.json")).json();
}

/** The JSON of `POST /detect` for one image file, with the request's time in ms as this page saw it. */
export async function detect(photo, query, signal) {
  const started = performance.now();
  const answer = await (await post(photo, query, "application/json", signal)).json();
  return { answer, roundTripMs: performance.now() - started };
}

/** The photo with its boxes, drawn by the server. */
export async function drawn(photo, query, type) {
  return (await post(photo, query, type)).blob();
}

function post(photo, query, accept, signal) {
  const type = photo.type.startsWith("image/") ? photo.type : "application/octet-stream";
  const headers = { "Content-Type": type, Accept: accept };
  return send(`detect${query}`, { method: "POST", body: photo, headers, signal });
}

async function send(path, { headers = {}, ...options } = {}) {
  const all = key ? { ...headers, "X-API-Key": key } : headers;
  let response;
  try {
    response = await fetch(path, { ...options, headers: all });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ title: "The server does not answer", detail: "is it running, and reachable from here?" });
  }
  if (!response.ok) throw await problemOf(response);
  return response;
}

async function problemOf(response) {
  const plain = { title: `The answer was ${response.status} ${response.statusText}`, status: response.status };
  const document = await response.json().catch(() => plain);
  const retry = response.headers.get("Retry-After");
  const problem = new Problem({ ...plain, ...document });
  if (retry) problem.message += ` (try again in ${retry} s)`;
  return problem;
}
