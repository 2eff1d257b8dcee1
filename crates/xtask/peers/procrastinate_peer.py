"""procrastinate in `cargo xtask bench jobs`: one process of it, doing one case.

    python procrastinate_peer.py URL CASE SETTINGS

SETTINGS is a JSON object. Every case prints one JSON line at its end; a case that is timed from outside first
prints {"ready": true} and waits for a line on standard input, so that starting Python is not counted.

Jobs go in by `batch_defer_async`, its path for bulk. Its guide names two ways to more throughput, several
processes and `concurrency`; it claims and finishes jobs one at a time and has no batches. How many of both is
found by the bench. Finished jobs are kept (`delete_jobs="never"`), its default.
"""

import asyncio
import json
import logging
import math
import random
import sys
import time

import procrastinate

QUEUE = "bench"
logging.disable(logging.WARNING)  # a line logged for each job would be measured too


def say(line):
    print(json.dumps(line), flush=True)


async def go():
    """Waits until the bench says go."""
    say({"ready": True})
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


def options(settings):
    return {
        "queues": [QUEUE],
        "concurrency": settings["concurrency"],
        "delete_jobs": "never",
        "install_signal_handlers": False,
    }


async def prepare(app, settings):
    await app.schema_manager.apply_schema_async()
    say({"ok": True})


async def enqueue(app, settings):
    """Enqueues jobs in calls of `batch` from `callers` callers, until there are `jobs` or `seconds` are over."""
    jobs, batch = settings.get("jobs", sys.maxsize), settings["batch"]
    deferrer = app.configure_task("trivial", queue=QUEUE)
    latencies, enqueued = [], 0
    numbers = iter(range(0, jobs, batch))

    async def caller():
        nonlocal enqueued
        while time.monotonic() - begun_all < settings.get("seconds", math.inf):
            first = next(numbers, None)
            if first is None:
                break
            begun = time.monotonic()
            if batch == 1:
                await deferrer.defer_async(number=first)
            else:
                rows = ({"number": number} for number in range(first, min(first + batch, jobs)))
                await deferrer.batch_defer_async(*rows)
            latencies.append((time.monotonic() - begun) * 1e3)
            enqueued += min(batch, jobs - first)

    await go()
    begun_all = time.monotonic()
    await asyncio.gather(*(caller() for _ in range(settings["callers"])))
    say({"jobs": enqueued, "seconds": time.monotonic() - begun_all, "latencies": latencies})


async def work(app, settings):
    """Works until no job is left; a worker that does not wait ends after its last job is stored as finished."""
    handled = 0

    @app.task(name="trivial", queue=QUEUE)
    async def handle(number):
        nonlocal handled
        handled += 1

    await go()
    begun = time.monotonic()
    await app.run_worker_async(wait=False, **options(settings))
    say({"handled": handled, "seconds": time.monotonic() - begun})


async def latency(app, settings):
    """From before a job is enqueued until its handler begins, on a queue that is otherwise empty."""
    arrived = None

    @app.task(name="trivial", queue=QUEUE)
    async def handle(number):
        if not arrived.done():
            arrived.set_result(time.monotonic())

    worker = asyncio.create_task(app.run_worker_async(wait=True, **options(settings)))
    await asyncio.sleep(0.5)
    latencies = []
    for sample in range(-20, settings["samples"]):
        await asyncio.sleep(settings["pause"] / 1e3 * (0.5 + random.random()))
        arrived = asyncio.get_running_loop().create_future()
        begun = time.monotonic()
        await handle.defer_async(number=sample)
        taken = (await arrived - begun) * 1e3
        if sample >= 0:  # the first ones warm up
            latencies.append(taken)
    say({"latencies": latencies})
    worker.cancel()
    await asyncio.gather(worker, return_exceptions=True)


async def discard(app, settings):
    """Finishes every job with its own function, which deletes them: each leaves a dead row."""
    finish = (
        "SELECT count(procrastinate_finish_job_v1(id, 'succeeded', true)) AS jobs FROM procrastinate_jobs "
        "WHERE status = 'todo'"
    )
    row = await app.connector.execute_query_one_async(finish)
    say({"discarded": row["jobs"]})


async def count(app, settings):
    """How many jobs were completed."""
    completed = "SELECT count(*) AS jobs FROM procrastinate_jobs WHERE status = 'succeeded'"
    row = await app.connector.execute_query_one_async(completed)
    say({"completed": row["jobs"]})


CASES = {case.__name__: case for case in (prepare, enqueue, work, latency, discard, count)}


async def main():
    url, name, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3] if len(sys.argv) > 3 else "{}")
    settings = {"concurrency": 10} | settings
    # As many connections as it can use at once, open before the clock starts: one for each job, one that listens.
    connections = settings["concurrency"] + 2
    connector = procrastinate.PsycopgConnector(conninfo=url, min_size=connections, max_size=connections)
    app = procrastinate.App(connector=connector)
    async with app.open_async():
        await CASES[name](app, settings)


asyncio.run(main())
