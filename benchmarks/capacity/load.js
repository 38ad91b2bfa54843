// One step of the ramp: requests arrive at a rate that does not depend on the answers.
// benchmarks/capacity/k6.py runs it, and reads what handleSummary writes.
import http from 'k6/http';
import { sleep } from 'k6';
import { Counter, Trend } from 'k6/metrics';

const step = JSON.parse(__ENV.STEP);
// k6 keeps a copy of each photo for each request that may be in flight.
const photos = step.photos.map((path) => open(path, 'b'));

const good = new Counter('good');
const late = new Counter('late');
const refused = new Counter('refused');
const failed = new Counter('failed');
const answered = new Trend('answered', true);

export const options = {
  scenarios: {
    step: {
      executor: 'constant-arrival-rate',
      rate: Math.max(1, Math.round(step.rate * step.seconds)),
      timeUnit: `${step.seconds}s`,
      duration: `${step.seconds}s`,
      preAllocatedVUs: step.clients,
      maxVUs: step.maxClients,
      gracefulStop: `${step.timeoutMs + step.jitterMs}ms`,
    },
  },
  discardResponseBodies: true,
  summaryTrendStats: ['med', 'p(95)', 'p(99)', 'max'],
};

export default function () {
  // Evenly spaced requests never meet. Delays longer than the spacing make them as random as users.
  sleep((Math.random() * step.jitterMs) / 1000);
  const photo = photos[Math.floor(Math.random() * photos.length)];
  const response = http.post(step.url, photo, { headers: step.headers, timeout: step.timeoutMs });
  if (response.status === 200) {
    answered.add(response.timings.duration);
    (response.timings.duration <= step.sloMs ? good : late).add(1);
  } else {
    (response.status === 503 || response.status === 429 ? refused : failed).add(1);
  }
}

export function handleSummary(data) {
  return { [step.summary]: JSON.stringify(data.metrics) };
}
