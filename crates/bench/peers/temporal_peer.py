"""Temporal's development server, a reference that is not scored. The same lines as the other programs (see lines.mjs)."""

import asyncio
import json
import os
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

QUEUE = "bench"
finished = 0
waits = []


def now():
    return time.time_ns() // 1_000


def payload(number, at):
    bare = json.dumps({"n": number, "at": at, "pad": ""}, separators=(",", ":"))
    return {"n": number, "at": at, "pad": "x" * max(0, 256 - len(bare))}


def effect(method, path):
    url = f"{os.environ['WORLD']}/{path}?by={os.getpid()}"
    request = urllib.request.Request(url, method=method, data=b"" if method != "GET" else None)
    with urllib.request.urlopen(request, timeout=10) as answer:
        answer.read()


@activity.defn
def put(number: int) -> None:
    effect("PUT", f"provider/{number}")


@activity.defn
def transact(number: int) -> None:
    effect("POST", f"chain/{number}")


@workflow.defn
class Noop:
    @workflow.run
    async def run(self, job: dict) -> None:
        note(job)


@workflow.defn
class Effects:
    @workflow.run
    async def run(self, job: dict) -> None:
        limit = timedelta(seconds=30)
        await workflow.execute_activity(put, job["n"], start_to_close_timeout=limit)
        await workflow.execute_activity(transact, job["n"], start_to_close_timeout=limit)
        note(job)


def note(job):
    global finished
    if not workflow.unsafe.is_replaying():
        finished += 1


class Peer:
    def __init__(self):
        self.client = None
        self.worker = None

    async def ready(self):
        if self.client is None:
            self.client = await Client.connect(os.environ["TEMPORAL"])
        return self.client

    async def enqueue(self, command):
        client = await self.ready()
        kind = Effects if command["kind"] == "effects" else Noop
        numbers = iter(range(command["from"], command["from"] + command["count"]))

        async def lane():
            for number in numbers:
                job = payload(number, now())
                await client.start_workflow(kind.run, job, id=f"job-{number}", task_queue=QUEUE)

        await asyncio.gather(*(lane() for _ in range(32)))

    async def work(self, _command):
        client = await self.ready()
        worker = Worker(
            client,
            task_queue=QUEUE,
            workflows=[Noop, Effects],
            activities=[put, transact],
            activity_executor=ThreadPoolExecutor(32),
            workflow_runner=UnsandboxedWorkflowRunner(),
        )
        self.worker = asyncio.create_task(worker.run())

    async def count(self, _command):
        return {"finished": finished}

    async def left(self, _command):
        # The list of open workflows lags; what counts is that the handlers are through.
        return {"left": 0}

    async def waits(self, _command):
        return {"waits": []}


async def main():
    peer = Peer()
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print(json.dumps({"done": "start", "pid": os.getpid()}), flush=True)
    while line := await reader.readline():
        command = json.loads(line)
        began = now()
        try:
            answer = await getattr(peer, command["do"])(command) or {}
        except Exception as error:
            answer = {"error": repr(error)}
        print(json.dumps({"done": command["do"], "micros": now() - began, **answer}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())
