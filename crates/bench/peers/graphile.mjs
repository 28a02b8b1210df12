// graphile-worker on PostgreSQL. BATCHED=1 takes jobs into a local queue and completes them in batches; otherwise each job
// is taken and completed by a statement of its own.
import { Logger, makeWorkerUtils, run } from 'graphile-worker';
import pg from 'pg';
import { inBatches, openLoop, put, serve, tally, transact } from './lines.mjs';

const batched = process.env.BATCHED === '1';
const concurrency = 24;
const logger = new Logger(() => (level, message) => {
  if (level === 'error') process.stderr.write(`${message}\n`);
});
const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: concurrency + 4 });
let utils;
const ready = async () => (utils ??= await makeWorkerUtils({ pgPool: pool, logger }));
const add = async (kind, jobs) =>
  (await ready()).addJobs(jobs.map((payload) => ({ identifier: kind, payload })));

const taskList = {
  async noop(job) {
    tally.started(job);
    tally.finished += 1;
  },
  async effects(job) {
    tally.started(job);
    await put(job.n);
    await transact(job.n);
    tally.finished += 1;
  },
};

serve({
  async migrate() {
    await (await ready()).migrate();
  },
  enqueue: ({ kind, from, count }) => inBatches(from, count, (jobs) => add(kind, jobs)),
  async open({ kind, from, rate, seconds }) {
    return { sent: await openLoop(from, rate, seconds, (jobs) => add(kind, jobs)) };
  },
  async work() {
    const worker = batched
      ? { localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 }
      : {};
    await run({
      pgPool: pool,
      logger,
      taskList,
      noHandleSignals: true,
      preset: { worker: { concurrentJobs: concurrency, pollInterval: 1000, ...worker } },
    });
  },
  async left() {
    const { rows } = await pool.query('select count(*)::int as left from graphile_worker._private_jobs');
    return rows[0];
  },
});
