// What all programs here share: commands on standard input, one JSON object a line, each answered by one line; the
// payload; the fake world that effects go to. A program ends when its input does.
import http from 'node:http';
import readline from 'node:readline';

/** Microseconds since the epoch, by the same clock as the benchmark's. */
export const now = () => Math.round((performance.timeOrigin + performance.now()) * 1000);

/** A payload of 256 bytes as JSON: its number, and when it was to be enqueued. */
export function payload(number, at) {
  const bare = JSON.stringify({ n: number, at, pad: '' });
  return { n: number, at, pad: 'x'.repeat(Math.max(0, 256 - bare.length)) };
}

const agent = new http.Agent({ keepAlive: true, maxSockets: 256 });

/** One request; the answer's status and text. */
export function call(method, url, body, headers = {}) {
  return new Promise((resolve, reject) => {
    const request = http.request(url, { method, agent, headers }, (answer) => {
      let text = '';
      answer.setEncoding('utf8');
      answer.on('data', (piece) => (text += piece));
      answer.on('end', () => resolve({ status: answer.statusCode, text }));
    });
    request.on('error', reject);
    request.end(body);
  });
}

async function effect(method, path) {
  const { status } = await call(method, `${process.env.WORLD}/${path}?by=${process.pid}`);
  if (status !== 200) throw new Error(`the world answered ${status}`);
}

/** The first effect: a PUT with a key. */
export const put = (number) => effect('PUT', `provider/${number}`);
/** The second effect: a transaction. */
export const transact = (number) => effect('POST', `chain/${number}`);

/** How long each job waited, and how many were done. */
export const tally = {
  finished: 0,
  waits: [],
  started(job) {
    this.waits.push(now() - job.at);
  },
};

/** Enqueues in batches of 500, four batches at a time. */
export async function inBatches(from, count, one) {
  const begins = [];
  for (let at = from; at < from + count; at += 500) begins.push(at);
  const lane = async () => {
    for (let at = begins.shift(); at !== undefined; at = begins.shift()) {
      const size = Math.min(500, from + count - at);
      await one(Array.from({ length: size }, (_, place) => payload(at + place, now())));
    }
  };
  await Promise.all([lane(), lane(), lane(), lane()]);
}

/** An open loop: every millisecond what is due by then, whether or not the last batch is through. */
export async function openLoop(from, rate, seconds, batch) {
  const began = now();
  const pending = new Set();
  let sent = 0;
  while (now() - began < seconds * 1e6) {
    const jobs = [];
    for (; began + (sent * 1e6) / rate <= now(); sent += 1) {
      jobs.push(payload(from + sent, Math.round(began + (sent * 1e6) / rate)));
    }
    if (jobs.length > 0) {
      const promise = batch(jobs).finally(() => pending.delete(promise));
      pending.add(promise);
    }
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  await Promise.all(pending);
  return sent;
}

/** Answers commands until there are no more. */
export function serve(commands) {
  commands.count ??= async () => ({ finished: tally.finished });
  commands.waits ??= async () => ({ waits: tally.waits.splice(0) });
  const lines = readline.createInterface({ input: process.stdin });
  lines.on('line', async (line) => {
    const command = JSON.parse(line);
    try {
      const began = now();
      const answer = await commands[command.do](command);
      console.log(JSON.stringify({ done: command.do, micros: now() - began, ...answer }));
    } catch (error) {
      console.log(JSON.stringify({ done: command.do, error: String(error?.stack ?? error) }));
    }
  });
  lines.on('close', () => process.exit(0));
  console.log(JSON.stringify({ done: 'start', pid: process.pid }));
}
