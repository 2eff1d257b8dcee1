"""awa-pg in `cargo xtask bench jobs`: one process of it, doing one case.

    python awa_peer.py URL CASE SETTINGS

SETTINGS is a JSON object. Every case prints one JSON line at its end; a case that is timed from outside first
prints {"ready": true} and waits for a line on standard input, so that starting Python is not counted.

Jobs go in by `enqueue_many_copy`, its path for bulk. The worker's settings follow its guide on configuration
for very fast jobs: claim batches of 512 and completion batches of 512 flushed after 1 ms (both its defaults),
hundreds of workers, since a trivial job holds a permit until its completion is durable, and a pool of
connections larger than it needs. How many workers and physical queues (`PartitionedQueue`) is found by the bench.
"""

import asyncio
import json
import math
import random
import sys
import time
from dataclasses import dataclass

import awa

QUEUE = "bench"


@dataclass
class Trivial:
    number: int


def say(line):
    print(json.dumps(line), flush=True)


async def go():
    """Waits until the bench says go."""
    say({"ready": True})
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


async def query(client, statement):
    transaction = await client.transaction()
    try:
        return await transaction.fetch_one(statement)
    finally:
        await transaction.rollback()


def partitions(settings):
    return awa.PartitionedQueue(QUEUE, settings["partitions"])


async def start(client, settings):
    queue = partitions(settings)
    await client.start(
        queue.queue_configs(max_workers_per_partition=settings["workers"] // settings["partitions"]),
        poll_interval_ms=settings["poll"],
    )


async def prepare(client, settings):
    """Creates the schema; a worker that starts and stops switches a new one to the queue storage of its 0.6 line."""
    await client.migrate()

    @client.task(Trivial, queue=QUEUE)
    async def handle(job):
        pass

    await start(client, settings)
    await client.shutdown(timeout_ms=5_000)
    say({"ok": True})


async def enqueue(client, settings):
    """Enqueues jobs in calls of `batch` from `callers` callers, until there are `jobs` or `seconds` are over."""
    jobs, batch, queue = settings.get("jobs", sys.maxsize), settings["batch"], partitions(settings)
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
                await client.insert(Trivial(first), **queue.route_by_index(first))
            else:
                rows = [Trivial(number) for number in range(first, min(first + batch, jobs))]
                routes = [queue.route_by_index(row.number) for row in rows]
                await client.enqueue_many_copy(rows, opts=routes if len(queue) > 1 else None, queue=QUEUE)
            latencies.append((time.monotonic() - begun) * 1e3)
            enqueued += min(batch, jobs - first)

    await query(client, "SELECT 1 AS one")
    await go()
    begun_all = time.monotonic()
    await asyncio.gather(*(caller() for _ in range(settings["callers"])))
    say({"jobs": enqueued, "seconds": time.monotonic() - begun_all, "latencies": latencies})


async def work(client, settings):
    """Works until the bench says stop, which it says when all processes together have handled every job.

    Shutting down waits until the completions are durable.
    """
    handled, told = 0, -1

    @client.task(Trivial, queue=QUEUE)
    async def handle(job):
        nonlocal handled
        handled += 1

    await query(client, "SELECT 1 AS one")
    await go()
    begun = time.monotonic()
    await start(client, settings)
    stop = asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    while not stop.done():
        if handled != told:
            told = handled
            say({"progress": told})
        await asyncio.wait([stop], timeout=0.02)
    await client.shutdown(timeout_ms=60_000)
    say({"handled": handled, "seconds": time.monotonic() - begun})


async def latency(client, settings):
    """From before a job is enqueued until its handler begins, on a queue that is otherwise empty."""
    arrived = None

    @client.task(Trivial, queue=QUEUE)
    async def handle(job):
        if not arrived.done():
            arrived.set_result(time.monotonic())

    await start(client, settings)
    latencies = []
    for sample in range(-20, settings["samples"]):
        await asyncio.sleep(settings["pause"] / 1e3 * (0.5 + random.random()))
        arrived = asyncio.get_running_loop().create_future()
        begun = time.monotonic()
        await client.insert(Trivial(sample), queue=QUEUE)
        taken = (await arrived - begun) * 1e3
        if sample >= 0:  # the first ones warm up
            latencies.append(taken)
    say({"latencies": latencies})
    await client.shutdown(timeout_ms=5_000)


async def count(client, settings):
    """How many jobs are not completed: those that are, it drops with the segment of the queue they lie in.

    Its statistics are exact, and take minutes where the server has not looked at the tables yet.
    """
    transaction = await client.transaction()
    await transaction.execute("ANALYZE")
    await transaction.commit()
    stats = await client.queue_stats()
    say({"left": sum(s.total_queued + s.running + s.failed + s.waiting_external for s in stats)})


CASES = {case.__name__: case for case in (prepare, enqueue, work, latency, count)}


async def main():
    url, name, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3] if len(sys.argv) > 3 else "{}")
    settings = {"workers": 256, "partitions": 1, "poll": 200, "connections": 50} | settings
    client = awa.AsyncClient(url, max_connections=settings["connections"])
    try:
        await CASES[name](client, settings)
    finally:
        await client.close()


asyncio.run(main())
