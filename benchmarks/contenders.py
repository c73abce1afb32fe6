"""The ways of doing many items that `batches` compares, each measured while it does them."""

import asyncio
import resource
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psutil

from benchmarks import items
from benchmarks.items import Task
from benchmarks.parts import RunlaneWorker, Site
from ledger import Ledger
from ledger.batch_record import BatchRecord, batch_id
from runlane.errors import StartUncertain
from runsapi import Assistants
from tests.postgres_server import PostgresServer

_LONGEST = timedelta(minutes=15)
"""That one contender may take."""

Cpu = Callable[[], float]
"""Processor seconds that something has used so far."""


@dataclass(kw_only=True)
class Turn:
    """What one contender did."""

    items: int
    seconds: float = 0.0
    """From the first item that was handed over until the last one's end was known."""
    own_cpu: float = 0.0
    """Of all processes but the upstream."""
    upstream_cpu: float = 0.0
    events: float | None = None
    """Of Temporal's histories, for each item."""

    @property
    def rate(self) -> float:
        """Items a second."""
        return self.items / self.seconds

    @property
    def own_ms(self) -> float:
        """Milliseconds of a processor for each item."""
        return self.own_cpu / self.items * 1000

    @property
    def upstream_ms(self) -> float:
        """The same of the upstream."""
        return self.upstream_cpu / self.items * 1000


class Contenders:
    """Does items one way after another, against one upstream.

    Args:
        site: the parts.
        assistant_id: whose runs they are.
        at_a_time: items that each keeps under way.
    """

    def __init__(self, site: Site, assistant_id: str, at_a_time: int) -> None:
        self._site = site
        self._assistant_id = assistant_id
        self._at_a_time = at_a_time

    async def batch(
        self, number: int, worker: RunlaneWorker, ledger: Ledger, *more: Cpu, **environ: str
    ) -> Turn:
        """Do them by `runlane batch run`, its file of results included.

        Args:
            number: of items.
            worker: drives them, alone.
            ledger: its own.
            more: of the ledger's server.
            environ: by which the command finds that ledger.
        """
        source = write_input(self._site.data_dir, self._assistant_id, number)
        words = ("--max-in-flight", str(self._at_a_time), "--json")
        command = self._site.command(
            "batch run",
            worker,
            "batch",
            "run",
            str(source),
            "-o",
            f"{source}.out",
            *words,
            **environ,
        )
        turn = Turn(items=number)
        parts = (of_processes(worker.pid), of_processes(self._site.temporal.pid), *more)
        with self._measuring(turn, *parts):
            document = await command.start(_LONGEST)
            await command.wait()
        assert document["runlane"]["items"]["completed"] == number, document
        batch = await found(ledger, source)
        assert batch.ended_at is not None
        turn.seconds = (batch.ended_at - batch.created_at).total_seconds()
        handle = worker.client.temporal.get_workflow_handle(batch.id)
        turn.events = (await handle.describe()).history_length / number
        return turn

    async def runs(self, number: int, worker: RunlaneWorker) -> Turn:
        """Do them by one `Run` each, on a thread that this process makes."""
        turns = asyncio.Semaphore(self._at_a_time)
        started: list[str] = []
        turn = Turn(items=number)
        cpu = (of_processes(worker.pid), of_processes(self._site.temporal.pid), time.process_time)
        async with Assistants(self._site.upstream.url) as upstream:

            async def one(index: int) -> None:
                async with turns:
                    made = await upstream.request("POST", "/threads", body=items.thread(index))
                    run_id = await self._start(worker, made.data["id"])
                    started.append(run_id)
                    await worker.handle(run_id).result()

            with self._measuring(turn, *cpu):
                await asyncio.gather(*(one(index) for index in range(number)))
        described = await worker.handle(started[0]).describe()
        turn.events = described.history_length
        return turn

    async def program(self, number: int, module: str, *more: Cpu, database_url: str = "") -> Turn:
        """Do them by a program of their own, which tells how long it took them.

        Args:
            number: of items.
            module: the program.
            more: of its database's server.
            database_url: of its database, if it needs one.
        """
        wanted = Task(
            upstream_url=self._site.upstream.url,
            assistant_id=self._assistant_id,
            items=number,
            at_a_time=self._at_a_time,
            database_url=database_url,
        )
        child = self._site.module(module, module, wanted.as_argument())
        turn = Turn(items=number)
        with self._measuring(turn, *more):
            document = await child.start(_LONGEST)
            await child.wait()
        turn.seconds = document["seconds"]
        return turn

    async def _start(self, worker: RunlaneWorker, thread_id: str) -> str:
        """Start a run, and again where a busy Temporal's answer came too late: its key names it."""
        while True:
            with suppress(StartUncertain):
                run = await worker.client.runs.create(
                    thread_id, assistant_id=self._assistant_id, idempotency_key=thread_id
                )
                return run.id

    @contextmanager
    def _measuring(self, turn: Turn, *parts: Cpu) -> Iterator[None]:
        """Add up what the parts, and the children that end meanwhile, use of the processors."""
        upstream = of_processes(self._site.upstream.pid)
        own = (*parts, _of_ended_children)
        before, upstream_before = sum(cpu() for cpu in own), upstream()
        began = time.monotonic()
        yield
        turn.seconds = time.monotonic() - began
        turn.own_cpu = sum(cpu() for cpu in own) - before
        turn.upstream_cpu = upstream() - upstream_before


def write_input(directory: Path, assistant_id: str, number: int) -> Path:
    """Write a batch's input of so many items; return the file, whose name nobody has used."""
    source = directory / f"items-{secrets.token_hex(4)}.jsonl"
    with source.open("w") as file:
        for index in range(number):
            file.write(items.line(assistant_id, index) + "\n")
    return source


async def found(ledger: Ledger, source: Path) -> BatchRecord:
    """Return the batch of an input file."""
    batch = await ledger.batches.find(batch_id("", source.name))
    assert batch is not None
    return batch


def of_processes(*pids: int) -> Cpu:
    """Return what tells the processor time of processes that live on."""
    processes = [psutil.Process(pid) for pid in pids]

    def used() -> float:
        times = [process.cpu_times() for process in processes]
        return sum(each.user + each.system for each in times)

    return used


def of_postgres(server: PostgresServer) -> Cpu:
    """Return what tells the processor time of a server, ended connections included."""

    def used() -> float:
        times = [process.cpu_times() for process in server.processes()]
        ended = times[0].children_user + times[0].children_system
        return sum(each.user + each.system for each in times) + ended

    return used


def _of_ended_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
