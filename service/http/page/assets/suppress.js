// Overlap suppression as the server does it (service/core/suppress.py), for a preview while a slider moves.

const MIN_SCORE = 1.1754943508222875e-38; // the smallest normal float32, as on the server

/**
 * Prune overlapping boxes.
 *
 * @param candidates detections of an answer to `nms=none`, best first
 * @param options `confidence`, `nms`, `iou`, `sigma`, `class_agnostic`, `max_detections`, and `classes`,
 *   a Set of class ids or null for all
 * @returns the kept detections with their decayed scores, best first
 */
export function suppress(candidates, options) {
  const waiting = candidates
    .filter((found) => found.score >= options.confidence)
    .filter((found) => options.classes === null || options.classes.has(found.class_id))
    .map((found) => ({ found, score: found.score }));
  const kept = [];
  while (waiting.length && kept.length < options.max_detections) {
    const [best] = waiting.splice(indexOfBest(waiting), 1);
    kept.push({ ...best.found, score: best.score });
    decayRivals(best, waiting, options);
    removeBelow(waiting, Math.max(options.confidence, MIN_SCORE));
  }
  return kept;
}

function indexOfBest(waiting) {
  let best = 0;
  waiting.forEach((each, index) => { if (each.score > waiting[best].score) best = index; });
  return best;
}

function decayRivals(best, waiting, options) {
  const rivals = options.class_agnostic
    ? waiting
    : waiting.filter((each) => each.found.class_id === best.found.class_id);
  const mean = rivals.reduce((sum, each) => sum + each.score, 0) / rivals.length;
  for (const rival of rivals) {
    const overlap = iou(best.found.box, rival.found.box);
    rival.score *= weight(overlap, mean, options);
  }
}

function weight(overlap, mean, { nms, iou: threshold, sigma }) {
  if (nms === "soft-gaussian") return Math.exp(-(overlap ** 2) / sigma);
  if (nms === "none" || overlap <= threshold) return 1;
  if (nms === "soft-mean") return Math.exp(-(overlap ** 2) / Math.max(mean, MIN_SCORE));
  return nms === "soft-linear" ? 1 - overlap : 0;
}

function removeBelow(waiting, minimum) {
  for (let index = waiting.length - 1; index >= 0; index--) {
    if (waiting[index].score < minimum) waiting.splice(index, 1);
  }
}

/** Intersection over union of two boxes. */
export function iou(a, b) {
  const width = Math.max(0, Math.min(a.x2, b.x2) - Math.max(a.x1, b.x1));
  const height = Math.max(0, Math.min(a.y2, b.y2) - Math.max(a.y1, b.y1));
  const union = area(a) + area(b) - width * height;
  return union > 0 ? (width * height) / union : 0;
}

function area({ x1, y1, x2, y2 }) {
  return (x2 - x1) * (y2 - y1);
}
