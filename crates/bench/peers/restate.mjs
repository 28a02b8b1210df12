// Restate: the server calls a service of ours, whose steps it journals. With PAIR=1 two processes share the service's
// port, so that one of them can be killed.
import cluster from 'node:cluster';
import http2 from 'node:http2';
import * as restate from '@restatedev/restate-sdk';
import { call, openLoop, payload, put, serve, tally, transact, now } from './lines.mjs';

// The SDK takes this for granted; Node 20 lacks it.
Promise.withResolvers ??= function withResolvers() {
  const parts = {};
  parts.promise = new Promise((resolve, reject) => Object.assign(parts, { resolve, reject }));
  return parts;
};

const { INGRESS, ADMIN, SERVICE_PORT, PAIR } = process.env;
const json = { 'content-type': 'application/json' };

const bench = restate.service({
  name: 'bench',
  handlers: {
    async noop(_context, job) {
      tally.started(job);
      tally.finished += 1;
    },
    async effects(context, job) {
      tally.started(job);
      await context.run('put', () => put(job.n));
      await context.run('transact', () => transact(job.n));
      tally.finished += 1;
    },
  },
});

function listen() {
  const server = http2.createServer(restate.createEndpointHandler({ services: [bench] }));
  return new Promise((resolve) => server.listen(Number(SERVICE_PORT), '127.0.0.1', resolve));
}

async function register() {
  const body = JSON.stringify({ uri: `http://127.0.0.1:${SERVICE_PORT}` });
  const { status, text } = await call('POST', `${ADMIN}/deployments`, body, json);
  if (status >= 300) throw new Error(`the deployment was refused: ${status} ${text}`);
}

async function send(kind, job) {
  const { status, text } = await call('POST', `${INGRESS}/bench/${kind}/send`, JSON.stringify(job), json);
  if (status >= 300) throw new Error(`an invocation was refused: ${status} ${text}`);
}

if (PAIR === '1' && cluster.isWorker) {
  listen();
} else {
  serve({
    async enqueue({ kind, from, count }) {
      let next = from;
      const lane = async () => {
        while (next < from + count) await send(kind, payload(next++, now()));
      };
      await Promise.all(Array.from({ length: 64 }, lane));
    },
    async open({ kind, from, rate, seconds }) {
      const batch = (jobs) => Promise.all(jobs.map((job) => send(kind, job)));
      return { sent: await openLoop(from, rate, seconds, batch) };
    },
    async work() {
      const pids = [];
      if (PAIR === '1') {
        const ready = [];
        for (let number = 0; number < 2; number += 1) {
          const child = cluster.fork();
          pids.push(child.process.pid);
          ready.push(new Promise((resolve) => child.once('listening', resolve)));
        }
        await Promise.all(ready);
      } else {
        await listen();
      }
      await register();
      return { pids };
    },
    async left() {
      const query = "select count(1) as left from sys_invocation where status != 'completed'";
      const { text } = await call('POST', `${ADMIN}/query`, JSON.stringify({ query }), {
        ...json,
        accept: 'application/json',
      });
      return { left: JSON.parse(text).rows[0].left };
    },
  });
}
