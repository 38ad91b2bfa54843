// The camera's frames, one at a time: the next is taken when the answer to the last is shown.

const JPEG_QUALITY = 0.85;
const RATE_WINDOW_MS = 2000;

export class LiveFeed {
  #video = Object.assign(document.createElement("video"), { muted: true, playsInline: true });
  #canvas = document.createElement("canvas");
  #running = null;
  #shown = [];

  get running() {
    return this.#running !== null;
  }

  /**
   * Start a camera, and hand over its frames until `stop`.
   *
   * @param deviceId the camera, or "" for the one that looks away from the user
   * @param handle async; called with each frame as a JPEG file and the time of its capture
   * @throws Error in words for people, if there is no camera
   */
  async start(deviceId, handle) {
    this.stop();
    this.#video.srcObject = await openCamera(deviceId);
    await this.#video.play();
    const run = {};
    this.#running = run;
    this.#shown = [];
    this.#loop(run, handle);
  }

  stop() {
    this.#running = null;
    this.#video.srcObject?.getTracks().forEach((track) => track.stop());
    this.#video.srcObject = null;
  }

  /** Frames a second over the last two seconds; call it once for each frame that is shown. */
  countFrame() {
    const now = performance.now();
    this.#shown = [...this.#shown.filter((time) => now - time < RATE_WINDOW_MS), now];
    const seconds = (now - this.#shown[0]) / 1000;
    return seconds ? (this.#shown.length - 1) / seconds : 0;
  }

  /** The cameras, and the one in use; their names are known once one was allowed. */
  async cameras() {
    const devices = await navigator.mediaDevices.enumerateDevices();
    const current = this.#video.srcObject?.getVideoTracks()[0]?.getSettings().deviceId;
    return { list: devices.filter(({ kind }) => kind === "videoinput"), current };
  }

  async #loop(run, handle) {
    while (this.#running === run) {
      const captured = performance.now();
      const frame = await this.#frame();
      if (this.#running === run) await handle(frame, captured);
      // A hidden page gets no animation frames, so it sends nothing either.
      await new Promise(requestAnimationFrame);
    }
  }

  async #frame() {
    this.#canvas.width = this.#video.videoWidth;
    this.#canvas.height = this.#video.videoHeight;
    this.#canvas.getContext("2d").drawImage(this.#video, 0, 0);
    return new Promise((resolve) => this.#canvas.toBlob(resolve, "image/jpeg", JPEG_QUALITY));
  }
}

async function openCamera(deviceId) {
  if (!navigator.mediaDevices) {
    throw new Error("Browsers give the camera only to pages from https:// or from localhost. Open this page there.");
  }
  const choice = deviceId ? { deviceId: { exact: deviceId } } : { facingMode: "environment" };
  const video = { ...choice, width: { ideal: 640 }, height: { ideal: 480 } };
  try {
    return await navigator.mediaDevices.getUserMedia({ video });
  } catch (error) {
    throw new Error(REASONS[error.name] ?? `The camera cannot be used: ${error.message}`);
  }
}

const REASONS = {
  NotAllowedError: "This page may not use the camera. Allow it in the browser's settings for this site.",
  NotFoundError: "No camera was found.",
  NotReadableError: "The camera is in use by another program.",
};
