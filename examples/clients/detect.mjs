// One photo with fetch, in Node 18 or newer; the function runs in browsers as it is.
//
//   node examples/clients/detect.mjs photo.jpg http://127.0.0.1:8000
//
// A page of another origin needs the server's setting cors_origins.

export async function detect(image, url, options = {}, tries = 5) {
  const address = `${url}/detect?${new URLSearchParams(options)}`;
  const response = await fetch(address, {
    method: "POST",
    headers: { "Content-Type": "application/octet-stream" },
    body: image, // a Blob, a File of an <input>, or an ArrayBuffer
    signal: AbortSignal.timeout(30_000),
  });
  if (response.status === 503 && tries > 1) {
    const seconds = Number(response.headers.get("Retry-After") ?? 1);
    await new Promise((done) => setTimeout(done, seconds * 1000 * (1 + Math.random() / 2)));
    return detect(image, url, options, tries - 1);
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(`${answer.title}: ${answer.detail}`);
  return answer.results[0];
}

if (typeof process !== "undefined" && process.argv[1]?.endsWith("detect.mjs")) {
  const { readFile } = await import("node:fs/promises");
  const [path, url] = process.argv.slice(2);
  const { detections } = await detect(await readFile(path), url, { confidence: 0.3 });
  for (const { class_name, score, box } of detections) console.log(class_name, score, box);
}
