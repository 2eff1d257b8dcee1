// graphile-worker in `cargo xtask bench jobs`: one process of it, doing one case.
//
//   node graphile.mjs URL CASE SETTINGS
//
// SETTINGS is a JSON object. Every case prints one JSON line at its end; a case that is timed from outside
// first prints {"ready":true} and waits for a line on standard input, so that starting Node.js is not counted.
//
// The settings of the worker are those of graphile-worker's own performance test and page on performance
// (localQueue with a short refetchDelay, completeJobBatchDelay and failJobBatchDelay of 0, one connection
// more than concurrent jobs). How many jobs and processes run at once is found by the bench.

import { once } from "node:events";
import { createInterface } from "node:readline";

import { Logger, makeWorkerUtils, run, runMigrations, runOnce } from "graphile-worker";
import pg from "pg";

// A line logged for each job would be measured too; its own performance test turns it off the same way.
process.env.NO_LOG_SUCCESS = "1";

const TASK = "trivial";
const [url, name, text = "{}"] = process.argv.slice(2);
const settings = { concurrency: 24, localQueue: 500, ...JSON.parse(text) };

const say = (line) => process.stdout.write(JSON.stringify(line) + "\n");
const seconds = (start) => Number(process.hrtime.bigint() - start) / 1e9;
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const logger = new Logger(() => (level, message) => {
  if (level === "error") process.stderr.write(`graphile-worker: ${message}\n`);
});

/** Waits until the bench says go. */
async function go() {
  say({ ready: true });
  const lines = createInterface({ input: process.stdin });
  await once(lines, "line");
  lines.close();
}

/** Connections that are open before the clock starts. */
async function pool(size) {
  const pool = new pg.Pool({ connectionString: url, max: size });
  pool.on("error", (error) => process.stderr.write(`graphile-worker: ${error}\n`));
  pool.on("connect", (client) => client.on("error", (error) => process.stderr.write(`graphile-worker: ${error}\n`)));
  const clients = await Promise.all(Array.from({ length: size }, () => pool.connect()));
  clients.forEach((client) => client.release());
  return pool;
}

function options(pgPool) {
  const { concurrency, localQueue } = settings;
  return {
    pgPool,
    logger,
    noHandleSignals: true,
    preset: {
      worker: {
        concurrentJobs: concurrency,
        maxPoolSize: concurrency + 1,
        localQueue: { size: localQueue, refetchDelay: { durationMs: 10 } },
        completeJobBatchDelay: 0,
        failJobBatchDelay: 0,
      },
    },
  };
}

const cases = {
  async prepare() {
    await runMigrations({ connectionString: url, logger });
    say({ ok: true });
  },

  /** Enqueues jobs in calls of `batch` from `callers` callers, until there are `jobs` or `seconds` are over. */
  async enqueue() {
    const { jobs, seconds: limit, batch, callers } = { jobs: Infinity, seconds: Infinity, ...settings };
    const pgPool = await pool(callers);
    const utils = await makeWorkerUtils({ pgPool, logger });
    await go();
    const start = process.hrtime.bigint();
    const latencies = [];
    let next = 0;
    const caller = async () => {
      while (next < jobs && seconds(start) < limit) {
        const first = next;
        next = Math.min(next + batch, jobs);
        const begun = process.hrtime.bigint();
        if (batch === 1) {
          await utils.addJob(TASK, { number: first });
        } else {
          const specs = [];
          for (let number = first; number < Math.min(first + batch, jobs); number++) {
            specs.push({ identifier: TASK, payload: { number } });
          }
          await utils.addJobs(specs);
        }
        latencies.push(seconds(begun) * 1e3);
      }
    };
    await Promise.all(Array.from({ length: callers }, caller));
    say({ jobs: next, seconds: seconds(start), latencies });
    await utils.release();
    await pgPool.end();
  },

  /** Works until no job is left. Completions are flushed when runOnce returns. */
  async work() {
    let handled = 0;
    const pgPool = await pool(settings.concurrency + 1);
    await go();
    const start = process.hrtime.bigint();
    await runOnce(options(pgPool), { [TASK]: () => void handled++ });
    say({ handled, seconds: seconds(start) });
    await pgPool.end();
  },

  /** From before a job is enqueued until its handler begins, on a queue that is otherwise empty. */
  async latency() {
    const { samples, pause } = settings;
    const pgPool = await pool(settings.concurrency + 1);
    const producers = await pool(1);
    const utils = await makeWorkerUtils({ pgPool: producers, logger });
    let begun;
    const runner = await run(options(pgPool), { [TASK]: () => begun?.(process.hrtime.bigint()) });
    const latencies = [];
    for (let sample = -20; sample < samples; sample++) {
      await sleep(pause * (0.5 + Math.random()));
      const handler = new Promise((resolve) => (begun = resolve));
      const start = process.hrtime.bigint();
      await utils.addJob(TASK, { number: sample });
      const latency = Number((await handler) - start) / 1e6;
      // The first ones warm up.
      if (sample >= 0) latencies.push(latency);
    }
    say({ latencies });
    await runner.stop();
    await utils.release();
    await producers.end();
    await pgPool.end();
  },

  /** Completes every job by its own function, which deletes them: each leaves a dead row. */
  async discard() {
    const pgPool = await pool(1);
    const utils = await makeWorkerUtils({ pgPool, logger });
    const { rows } = await pgPool.query("SELECT array_agg(id) AS ids FROM graphile_worker._private_jobs");
    const discarded = await utils.completeJobs(rows[0].ids);
    say({ discarded: discarded.length });
    await utils.release();
    await pgPool.end();
  },

  /** How many jobs are left; what is done leaves no row. */
  async count() {
    const pgPool = await pool(1);
    const { rows } = await pgPool.query("SELECT count(*)::int AS left FROM graphile_worker._private_jobs");
    say({ left: rows[0].left });
    await pgPool.end();
  },
};

if (!Object.hasOwn(cases, name)) throw new Error(`no case ${name}: ${Object.keys(cases).join(", ")}`);
await cases[name]();
