// BullMQ on Redis.
import { Queue, Worker } from 'bullmq';
import { inBatches, openLoop, put, serve, tally, transact } from './lines.mjs';

const connection = { host: '127.0.0.1', port: Number(process.env.REDIS_PORT), maxRetriesPerRequest: null };
let queue;
const ready = () => (queue ??= new Queue('bench', { connection }));
const add = (kind, jobs) =>
  ready().addBulk(jobs.map((data) => ({ name: kind, data, opts: { removeOnComplete: true } })));

serve({
  enqueue: ({ kind, from, count }) => inBatches(from, count, (jobs) => add(kind, jobs)),
  async open({ kind, from, rate, seconds }) {
    return { sent: await openLoop(from, rate, seconds, (jobs) => add(kind, jobs)) };
  },
  async work() {
    const worker = new Worker(
      'bench',
      async (job) => {
        tally.started(job.data);
        if (job.name === 'effects') {
          await put(job.data.n);
          await transact(job.data.n);
        }
        tally.finished += 1;
      },
      { connection, concurrency: 100 },
    );
    worker.on('error', (error) => process.stderr.write(`${error}\n`));
    await worker.waitUntilReady();
  },
  async left() {
    const counts = await ready().getJobCounts('waiting', 'active', 'delayed', 'prioritized');
    return { left: Object.values(counts).reduce((sum, count) => sum + count, 0) };
  },
});
