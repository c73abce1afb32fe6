"""Ten thousand lines while everything is killed at random: each is run once, and none is lost.

`RUNLANE_CHAOS_SEED` makes the same kills in the same order, and `RUNLANE_CHAOS_ITEMS` fewer lines.
"""

import asyncio
import json
import os
import random
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from ledger import LedgerUnavailable
from ledger.batch_item import Item
from ledger.batch_record import BatchCounts
from runlane.batches import presenting
from tests.e2e.test_cli import Said
from tests.processes import ApiProcess
from tests.scattered import Command, Scattered, result_lines, scattered

ITEMS = int(os.environ.get("RUNLANE_CHAOS_ITEMS", "10000"))
SEED = int(os.environ.get("RUNLANE_CHAOS_SEED", "0")) or secrets.randbelow(2**31)
PEOPLE = 30
NAME, OUT, ERRORS = "tickets.jsonl", "out.jsonl", "out.errors.jsonl"
RUN = ("batch", "run", NAME, "-o", OUT, "--wait-for-people", "--max-in-flight", "256")
OFTEN = 0.02
"""The part of all requests that each fault hits."""
LIMITED = float(os.environ.get("RUNLANE_CHAOS_LIMITED", "0.002"))
"""The part that is answered by 429, after each of which a worker begins anew at ten requests a
second: with as many of them as of the others, ten thousand lines take a quarter of an hour."""

QUICK = {"queued": 0.05, "in_progress": 0.2, "says": "On its way."}
ASKS = {"queued": 0.05, "in_progress": 0.1, "calls": [{"name": "refund"}]}

FAULTS: dict[str, dict[str, Any]] = {
    "lost_answer": {},
    "reset": {},
    "slow": {"seconds": 0.5},
    "rate_limit": {"retry_after": 0.05},
    "server_error": {},
    "status": {"status": 503},
    "garbage": {},
    "error_after": {"status": 502},
    "headers": {"headers": {"openai-poll-after-ms": "soon", "retry-after": "never"}},
}
"""Each at any request. Streams, which the other two kinds cut, are none of a batch's."""
HELD = ("hold_before", "hold_after")
"""A few of these, whose callers are let wait and then cut off."""
MENDED = ("quota", "unauthorized")
"""One of these each, after which somebody has to resume the batch."""


class Chaos:
    """The pieces, the kills, and those who go on using what is left."""

    def __init__(self, pieces: Scattered, api: ApiProcess, run: Command) -> None:
        self._pieces = pieces
        self._api = api
        self._run = run
        self._random = random.Random(SEED)
        self._parts: dict[str, Any] = {"temporal": pieces.temporal, "api": api}
        self._tasks: list[asyncio.Task[None]] = []
        self._answered: set[str] = set()
        self.killed: Counter[str] = Counter()

    async def begin(self) -> None:
        """Start two workers."""
        for name in ("worker-1", "worker-2"):
            self._parts[name] = await self._pieces.worker(name)

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[asyncio.Event]:
        """Let kills, answers and mending go on; the event set, nothing is killed any more."""
        done = asyncio.Event()
        works = (self._kill_until(done), self._answer_people(), self._mend())
        self._tasks = [asyncio.create_task(work) for work in works]
        try:
            yield done
            self.check()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def check(self) -> None:
        """Raise what one of these tasks has failed of."""
        for task in self._tasks:
            if task.done():
                task.result()

    async def _kill_until(self, done: asyncio.Event) -> None:
        """Kill one piece or two, start them again, and so on; each comes first once."""
        names = ["run", *self._parts]
        left = self._random.sample(names, len(names))
        while not done.is_set():
            await asyncio.sleep(self._random.uniform(4, 12))
            fall = {left.pop()} if left else set(self._random.sample(names, self._most()))
            for name in sorted(fall):
                self.killed[name] += 1
                await (self._run.kill() if name == "run" else self._parts[name].kill())
            await asyncio.sleep(self._random.uniform(0, 2))
            # Nothing starts without Temporal.
            for name in sorted(fall - {"run"}, key=lambda name: name != "temporal"):
                await self._parts[name].start()

    def _most(self) -> int:
        return self._random.choice((1, 1, 2))

    async def _answer_people(self) -> None:
        """Answer what is asked, through the API, again until it is taken."""
        async with httpx.AsyncClient(timeout=20) as http:
            while True:
                for item in await self._promoted():
                    if item.run_id not in self._answered and await self._answer(http, item):
                        self._answered.add(str(item.run_id))
                await asyncio.sleep(1)

    async def _mend(self) -> None:
        """Resume the batch where it is paused, and let go of what is held."""
        simulator = self._pieces.simulator
        while True:
            faults = await asyncio.to_thread(simulator.faults)
            for fault in faults:
                if fault["waiting"] and fault["kind"] in HELD:
                    await asyncio.to_thread(simulator.release, fault["id"], answer=False)
            batch = await self._pieces.ledger.batches.by_name("", NAME)
            if batch is not None and batch.paused_at is not None:
                await self._pieces.command("operator", "batch", "resume", NAME)()
            await asyncio.sleep(1.5)

    async def _promoted(self) -> list[Item]:
        batch = await self._pieces.ledger.batches.by_name("", NAME)
        if batch is None:
            return []
        return list(await self._pieces.ledger.batch_items.promoted(batch.id))

    async def _answer(self, http: httpx.AsyncClient, item: Item) -> bool:
        url = f"{self._api.url}/threads/{item.made_thread}/runs/{item.run_id}"
        try:
            run = (await http.get(url)).json()
            if run.get("status") != "requires_action":
                return bool(run.get("status") == "completed")
            calls = run["required_action"]["submit_tool_outputs"]["tool_calls"]
            outputs = [{"tool_call_id": call["id"], "output": "paid"} for call in calls]
            taken = await http.post(f"{url}/submit_tool_outputs", json={"tool_outputs": outputs})
        except (httpx.HTTPError, ValueError):
            return False
        return taken.status_code == 200


def write_input(path: Path) -> int:
    """Write the lines, the people's among the others; return how many are theirs."""
    people = 0
    with path.open("w") as file:
        for number in range(ITEMS):
            asks = number % (ITEMS // PEOPLE) == 7
            people += asks
            body = {
                "assistant_id": "asst_asks" if asks else "asst_quick",
                "thread": {"messages": [{"role": "user", "content": f"Where is {number}?"}]},
            }
            line = {"method": "POST", "url": "/v1/threads/runs", "body": body}
            file.write(json.dumps({"custom_id": f"ticket-{number}", **line}) + "\n")
    return people


def order_faults(pieces: Scattered) -> None:
    """Order each kind, from now on."""
    simulator = pieces.simulator
    for number, (kind, fields) in enumerate(FAULTS.items()):
        part = LIMITED if kind == "rate_limit" else OFTEN
        simulator.fault("*", kind, times=0, probability=part, seed=SEED + number, **fields)
    # Where a create is sent or looked for, it tells the truth about a thread, and ends the line.
    simulator.fault("runs.retrieve", "not_found", times=0, probability=OFTEN, seed=SEED)
    for operation in ("threads.create", "runs.create", "runs.retrieve"):
        for kind in HELD:
            simulator.fault(operation, kind, times=3, after=ITEMS // 10)
    for number, kind in enumerate(MENDED):
        simulator.fault("runs.create", kind, after=(number + 1) * ITEMS // 4)


async def counted(pieces: Scattered) -> BatchCounts | None:
    """Return where the items stand; None where the ledger has none yet, or doesn't answer."""
    try:
        batch = await pieces.ledger.batches.by_name("", NAME)
        return None if batch is None else await pieces.ledger.batches.counts(batch.id)
    except LedgerUnavailable:
        return None


def expected_code(said: Said, errors: list[dict[str, Any]]) -> int:
    """Return the exit code: of a batch that had ended when the command was given again, it is 0."""
    return 3 if errors and "has ended already" not in said.err else 0


@pytest.mark.slow
@pytest.mark.timeout(1500)
async def test_ten_thousand_lines_outlive_everything(tmp_path: Path) -> None:
    """Workers, Temporal, the API and the command are killed at random, while a fiftieth of all
    requests goes wrong in each way. Each line ends once, has one upstream run, and all tokens are
    counted; what a line met too often is in the errors file, and completes when tried again.
    """
    print(f"RUNLANE_CHAOS_SEED={SEED}")
    began = time.monotonic()
    async with scattered(tmp_path) as pieces:
        for name, rounds in (("asst_quick", [QUICK]), ("asst_asks", [ASKS, QUICK])):
            pieces.simulator.scenario(assistant_id=name, rounds=rounds)
        order_faults(pieces)
        place = pieces.place("run")
        people = write_input(place / NAME)
        run = pieces.command("run", *RUN)
        chaos = Chaos(pieces, await pieces.api(), run)
        await chaos.begin()
        async with chaos.at_work() as ended_soon:
            running = asyncio.create_task(run())
            while not running.done():
                counts = await counted(pieces)
                # Not before all are there: a file that is being stored has few that wait.
                if counts is not None and presenting.ended(counts) >= ITEMS - ITEMS // 100:
                    ended_soon.set()
                chaos.check()
                await asyncio.wait({running}, timeout=2)
            said = running.result()
            took = time.monotonic() - began
            first, told = result_lines(place / OUT), result_lines(place / ERRORS)
            await asyncio.to_thread(pieces.simulator.clear_faults)
            if told:
                await pieces.command("operator", "batch", "retry-failed", NAME)()
            again = await run()
        results, left = result_lines(place / OUT), result_lines(place / ERRORS)
        upstream = await asyncio.to_thread(pieces.simulator.runs)
        submits = await asyncio.to_thread(
            lambda: pieces.simulator.requests(operation="runs.submit_tool_outputs")["accepted"]
        )
        counts = await counted(pieces)

    kinds = Counter(line["error"]["code"] for line in told)
    print(f"{ITEMS} lines in {took:.0f} s; killed: {dict(chaos.killed)}; failed at first: {kinds}")
    ids = [f"ticket-{number}" for number in range(ITEMS)]
    assert sorted(ids) == sorted(line["custom_id"] for line in first)
    assert sorted(ids) == sorted(line["custom_id"] for line in results)
    for all_lines, errors in ((first, told), (results, left)):
        assert [line for line in all_lines if line["error"] is not None] == errors
    assert expected_code(said, told) == said.code, said
    assert {"uncertain"} >= {line["runlane"]["state"] for line in left}
    assert expected_code(again, left) == again.code, again

    created = Counter(run["metadata"]["runlane_run_id"] for run in upstream)
    completed = {line["runlane"]["run_id"] for line in results if line["error"] is None}
    uncertain = {line["runlane"]["run_id"] for line in left}
    assert {1} == set(created.values())
    assert completed <= set(created) <= completed | uncertain
    assert people == sum(run["assistant_id"] == "asst_asks" for run in upstream)
    assert people == submits["runs.submit_tool_outputs"]

    spent = {run["metadata"]["runlane_run_id"]: run["usage"]["total_tokens"] for run in upstream}
    told_of = {
        line["runlane"]["run_id"]: line["response"]["body"]["usage"]["total_tokens"]
        for line in results
        if line["error"] is None
    }
    assert {run_id: spent[run_id] for run_id in completed} == told_of
    assert counts is not None
    assert sum(told_of.values()) == counts.usage.total_tokens
