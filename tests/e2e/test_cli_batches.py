"""Batches from the shell: commands and workers in processes of their own, and killed at will."""

import asyncio
import json
import re
import secrets
import signal
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.test_cli import Said, Shell, bare, shell
from tests.lab import eventually

__all__ = ["bare", "shell"]

QUICK = {"queued": 0.05, "in_progress": 0.05, "says": "On its way."}
SLOW = {"queued": 0.1, "in_progress": 1.5, "says": "On its way."}
ASKS = {"queued": 0.05, "in_progress": 0.05, "calls": [{"name": "refund"}]}
FAILS = {"queued": 0.05, "in_progress": 0.05, "ends": "failed"}

SHELF = '''
import time

import runlane


@runlane.tool(policy="auto", read_only=True)
def look_up(order_id: str) -> str:
    """Look an order up, and take longer than people's items are watched."""
    time.sleep(8)
    return "shipped"
'''

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


class Input:
    """A file of requests in the shell's directory, whose name no other test has."""

    def __init__(self, shell: Shell, assistant_id: str | None = None) -> None:
        self.shell = shell
        self.name = f"in-{secrets.token_hex(4)}.jsonl"
        self._assistant_id = assistant_id or shell.plant.lab.assistant_id
        self.count = 0

    def add(self, count: int, assistant_id: str | None = None, **body: Any) -> None:
        """Write so many requests at its end: `item-1`, `item-2` and so on."""
        with (self.shell.directory / self.name).open("a") as file:
            for _ in range(count):
                self.count += 1
                fields = {"assistant_id": assistant_id or self._assistant_id, **body}
                line = {
                    "custom_id": f"item-{self.count}",
                    "method": "POST",
                    "url": "/v1/threads/runs",
                    "body": fields,
                }
                file.write(json.dumps(line) + "\n")

    def ids(self) -> list[str]:
        """Return the custom ids, in order."""
        return [f"item-{number}" for number in range(1, self.count + 1)]

    async def created(self) -> list[str]:
        """Return whose runs there are upstream, by the stamps of all that our assistant has."""
        report = await asyncio.to_thread(self.shell.plant.simulator.runs)
        ours = [run for run in report if run["assistant_id"] == self._assistant_id]
        return sorted(run["metadata"]["runlane_run_id"] for run in ours)


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a file of results that are whole."""
    if not path.exists():
        return []
    whole = [text for text in path.read_text().splitlines(keepends=True) if text.endswith("\n")]
    return [json.loads(text) for text in whole]


async def until(path: Path, enough: Callable[[int], bool]) -> None:
    """Wait until a file has enough lines."""

    async def count() -> int:
        return len(lines(path))

    await eventually(count, enough, within=timedelta(seconds=60))


async def ended(process: asyncio.subprocess.Process) -> Said:
    """Wait for a command that was started."""
    out, err = await asyncio.wait_for(process.communicate(b""), 90)
    assert process.returncode is not None
    return Said(process.returncode, out.decode(), err.decode(), 0.0)


async def test_a_file_of_requests_becomes_a_file_of_results(shell: Shell) -> None:
    """One line for each item, in order where it is asked for; the same command says it is done;
    the same name with other content is refused.
    """
    await shell.plant.lab.scenario(rounds=[QUICK])
    given = Input(shell)
    given.add(12)
    out = shell.directory / "out.jsonl"

    done = await shell("batch", "run", given.name, "-o", "out.jsonl", code=0)
    ordered = await shell(
        *("batch", "results", given.name, "-o", "ordered.jsonl", "--ordered"), code=0
    )
    again = await shell("batch", "run", given.name, "-o", "out.jsonl", code=0)
    listed = await shell("batch", "list", "--json", code=0)
    printed = await shell("batch", "results", given.name, code=0)
    given.add(1)
    other = await shell("batch", "run", given.name, "-o", "out.jsonl", code=8)

    assert "12 completed" in done.out
    assert sorted(given.ids()[:12]) == sorted(line["custom_id"] for line in lines(out))
    assert {"completed"} == {line["response"]["body"]["status"] for line in lines(out)}
    assert not (shell.directory / "out.errors.jsonl").exists()
    in_order = lines(shell.directory / "ordered.jsonl")
    assert given.ids()[:12] == [line["custom_id"] for line in in_order]
    assert "12 completed" in ordered.out
    assert "has ended already" in again.err
    assert "belongs to batch_" in other.err
    assert given.name in [batch["runlane"]["name"] for batch in listed.document["data"]]
    assert out.read_text() == printed.out


async def test_batches_are_listed_by_pages_and_go_on_as_they_were_begun(shell: Shell) -> None:
    """A page says where the next one begins; options that were not given at the begin are told of,
    and results of a batch are never mixed with those of the same input done again.
    """
    lab = shell.plant.lab
    await lab.scenario(rounds=[QUICK])
    first, second = Input(shell), Input(shell)
    first.add(1)
    second.add(1, assistant_id=f"{lab.assistant_id}_long")
    await lab.scenario(assistant_id=f"{lab.assistant_id}_long", rounds=[{"in_progress": 600}])

    await shell("batch", "run", first.name, "-o", "first.jsonl", code=0)
    refused = await shell("batch", "run", first.name, "-o", "first.jsonl", "--again", code=1)
    again = await shell("batch", "run", first.name, "-o", "again.jsonl", "--again", code=0)
    await shell("batch", "run", second.name, "--detach", code=0)
    options = ("--rpm", "5", "--with-messages", "--detach")
    begun_otherwise = await shell("batch", "run", second.name, *options, code=0)
    page = await shell("batch", "list", "--limit", "1")
    listed = await shell("batch", "list", "--limit", "1", "--json")
    following = await shell("batch", "list", "--limit", "1", "--json", "--after", second.name)
    await shell("batch", "cancel", second.name, code=0)

    [line] = lines(shell.directory / "first.jsonl")
    its_id = line["runlane"]["batch_id"]
    assert f"first.jsonl holds results of {its_id}, another batch; nothing in it" in refused.err
    assert "1 completed" in again.out
    assert "It stays as it was begun; given now, of no use: --rpm, --with-messages." in (
        begun_otherwise.err
    )
    document = listed.document
    assert document["has_more"] is True
    assert document["data"][0]["id"] == document["first_id"] == document["last_id"]
    assert f"There are more:  runlane batch list --after {document['last_id']}" in page.err
    assert [first.name] == [batch["runlane"]["name"] for batch in following.document["data"]]


async def test_bad_lines_are_told_and_nothing_is_sent(shell: Shell) -> None:
    """All of them are told with their numbers, and stand in a file; without them it can go on."""
    await shell.plant.lab.scenario(rounds=[QUICK])
    given = Input(shell)
    given.add(2)
    given.add(1, temperature=3.0)
    given.add(1, instuctions="x")

    bad = await shell("batch", "run", given.name, "--json", code=2)
    nobody = await shell("batch", "status", given.name, code=6)
    checked = await shell(
        *("batch", "run", given.name, "--dry-run", "--skip-invalid"),
        *("--price-per-million-tokens", "2,8"),
        code=0,
    )
    done = await shell(
        *("batch", "run", given.name, "--skip-invalid", "--json", "-o", "out.jsonl"), code=0
    )

    reasons = {each["line"]: each["reason"] for each in bad.document["lines"]}
    assert [3, 4] == list(reasons)
    assert "body.temperature must be between 0 and 2" in reasons[3]
    assert "body.instuctions is not a parameter" in reasons[4]
    told = (shell.directory / f"{given.name}.problems.jsonl").read_text().splitlines()
    assert reasons == {each["line"]: each["reason"] for each in map(json.loads, told)}
    assert "There is no batch" in nobody.err
    assert "items       2" in checked.out
    assert "Nothing was sent." in checked.err
    assert {"total": 2, "completed": 2, "failed": 0} == done.document["request_counts"]


async def test_a_killed_command_is_gone_on_with(shell: Shell) -> None:
    """Killed three times while it writes results, and once within a line: no item is lost, and none
    is run or written twice.
    """
    await shell.plant.lab.scenario(rounds=[SLOW])
    given = Input(shell)
    given.add(60)
    out = shell.directory / "out.jsonl"
    command = ("batch", "run", given.name, "-o", "out.jsonl", "--max-in-flight", "8")

    for enough in (1, 20, 40):
        process = await shell.start(*command)
        await until(out, lambda count, enough=enough: count >= enough)  # type: ignore[misc]
        process.send_signal(signal.SIGKILL)
        await process.wait()
    with out.open("a") as file:
        file.write(lines(out)[-1]["id"])
    done = await shell(*command, code=0)

    assert "60 completed" in done.out
    assert sorted(given.ids()) == sorted(line["custom_id"] for line in lines(out))
    run_ids = sorted(line["response"]["request_id"] for line in lines(out))
    assert run_ids == await given.created()


async def test_what_failed_is_tried_again(shell: Shell) -> None:
    """Failures have a file of their own and exit code 3; once they succeed, each item still stands
    once in the results.
    """
    lab = shell.plant.lab
    await lab.scenario(rounds=[QUICK])
    await lab.scenario(assistant_id=f"{lab.assistant_id}_2", rounds=[FAILS])
    given = Input(shell)
    given.add(4)
    given.add(2, assistant_id=f"{lab.assistant_id}_2")
    out, errors = shell.directory / "out.jsonl", shell.directory / "out.errors.jsonl"

    failed = await shell("batch", "run", given.name, "-o", "out.jsonl", code=3)
    before = [line["custom_id"] for line in lines(errors)]
    await lab.scenario(assistant_id=f"{lab.assistant_id}_2", rounds=[QUICK])
    retried = await shell("batch", "retry-failed", given.name, code=0)
    watched = await shell("batch", "watch", given.name, "-o", "out.jsonl", code=0)

    assert "2 failed: server_error 2" in failed.out
    assert ["item-5", "item-6"] == sorted(before)
    assert "Trying 2 items again." in retried.err
    assert "6 completed" in watched.out
    assert sorted(given.ids()) == sorted(line["custom_id"] for line in lines(out))
    assert not errors.exists()


async def test_what_waits_for_people_is_left_or_waited_for(shell: Shell) -> None:
    """Only people's items are left: exit code 4, unless they are to be waited for."""
    lab = shell.plant.lab
    await lab.scenario(rounds=[QUICK])
    await lab.scenario(assistant_id=f"{lab.assistant_id}_2", rounds=[ASKS, QUICK])
    given = Input(shell)
    given.add(3)
    given.add(1, assistant_id=f"{lab.assistant_id}_2")
    out = shell.directory / "out.jsonl"

    left = await shell("batch", "run", given.name, "-o", "out.jsonl", code=4)
    partial = len(lines(out))
    waiting = await shell.start(
        *("batch", "run", given.name, "-o", "out.jsonl", "--wait-for-people")
    )
    (run_id,) = [
        run["metadata"]["runlane_run_id"]
        for run in await asyncio.to_thread(shell.plant.simulator.runs)
        if run["assistant_id"] == f"{lab.assistant_id}_2"
    ]
    run = (await shell("poll", run_id, "--json", code=4)).document
    call_id = run["runlane"]["pending"][0]["tool_call_id"]
    await shell("submit", run["id"], f"{call_id}=paid", code=0)
    done = await ended(waiting)

    assert "1 with people" in left.out
    assert f"batch watch {given.name} -o out.jsonl --wait-for-people\n" in left.err
    assert 3 == partial
    assert 0 == done.code, done
    assert sorted(given.ids()) == sorted(line["custom_id"] for line in lines(out))
    assert run["id"] in [line["response"]["request_id"] for line in lines(out)]


async def test_a_batch_is_paused_resumed_and_cancelled(shell: Shell) -> None:
    """A pause says who and why, and nothing begins; a cancel ends what waits, and can't be
    taken back.
    """
    await shell.plant.lab.scenario(rounds=[SLOW])
    given = Input(shell)
    given.add(40)

    await shell("batch", "run", given.name, "--detach", "--max-in-flight", "2", code=0)
    paused = await shell("batch", "pause", given.name, "--reason", "too dear", code=0)
    status = await shell("batch", "status", given.name, "--json", code=0)
    resumed = await shell("batch", "resume", given.name, "--json", code=0)
    await shell("batch", "cancel", given.name, code=0)
    watched = await shell("batch", "watch", given.name, "-o", "out.jsonl", code=3)
    late = await shell("batch", "resume", given.name, code=8)

    assert "too dear" in paused.out
    assert "too dear" == status.document["runlane"]["paused"]["reason"]
    assert resumed.document["runlane"]["paused"] is None
    assert "cancelled" in watched.out
    assert sorted(given.ids()) == sorted(
        line["custom_id"] for line in lines(shell.directory / "out.jsonl")
    )
    assert "has ended: cancelled" in late.err


async def test_what_a_batch_may_cost_is_kept_to_and_raised(shell: Shell) -> None:
    """It pauses once its tokens have cost so much; status and watch say the figures and the
    command that goes on with more, and that command brings it to its end.
    """
    await shell.plant.lab.scenario(rounds=[QUICK])
    given = Input(shell)
    given.add(9)

    unpriced = await shell("batch", "run", given.name, "--max-cost", "1", code=2)
    run = (*("batch", "run", given.name, "--max-in-flight", "2"), "--detach")
    await shell(*run, "--price-per-million-tokens", "2.50,10", "--max-cost", "0.0012", code=0)

    async def told() -> Said:
        return await shell("batch", "status", given.name, code=0)

    status = await eventually(told, lambda said: "paused" in said.out)
    shown = await shell("batch", "status", given.name, "--json", code=0)
    refused = await shell("batch", "resume", given.name, code=2)
    await shell("batch", "resume", given.name, "--max-cost", "5", code=0)
    done = await shell("batch", "watch", given.name, code=0)

    assert "--max-cost needs --price-per-million-tokens" in unpriced.err
    assert re.search(r"budget: \d+ tokens have cost 0\.00\d+, of 0\.0012", status.out)
    assert re.search(r"cost +0\.00\d\d of 0\.0012", status.out)
    assert f"runlane batch resume {given.name} --max-cost AMOUNT" in status.err
    assert "0.0012" == shown.document["runlane"]["cost_limit"]
    assert "--max-cost must be more than the 0.00" in refused.err
    assert "9 completed" in done.out
    assert "cost        0.01 of 5.00" in re.sub(r"cost +", "cost        ", done.out)


@pytest.mark.parametrize(
    ("operation", "kind", "says", "mend"),
    [
        ("threads.create", "unauthorized", "credentials: The upstream answered 401", "API_KEY"),
        ("threads.create", "forbidden", "credentials: The upstream answered 403", "API_KEY"),
        ("runs.create", "quota", "quota: The upstream answered 429", "Raise the upstream"),
    ],
)
async def test_what_must_be_mended_outside_pauses_and_says_how_to_go_on(
    shell: Shell, operation: str, kind: str, says: str, mend: str
) -> None:
    """`run` says so while it waits, and `status` and `watch` too; mended and resumed, all lines
    complete, each with one run.
    """
    await shell.plant.lab.scenario(rounds=[QUICK])
    given = Input(shell)
    given.add(4)
    simulator = shell.plant.simulator
    fields = {"kind": kind, "times": 0}
    if kind == "forbidden":
        fields = {"kind": "status", "status": 403, "times": 0}
    fault = simulator.fault(operation, **fields)  # type: ignore[arg-type] # a test's own words
    try:
        run = await shell.start("batch", "run", given.name)

        async def told() -> Said:
            return await shell("batch", "status", given.name)

        status = await eventually(told, lambda said: "paused" in said.out)
    finally:
        simulator.remove_fault(fault)
    watch = await shell.start("batch", "watch", given.name)
    await shell("batch", "resume", given.name, code=0)
    ran, watched = await ended(run), await ended(watch)

    words = " ".join(status.out.split())
    assert says in words
    assert mend in words
    assert f"Go on with:  runlane batch resume {given.name}" in status.err
    assert says in ran.err
    assert f"Go on with:  runlane batch resume {given.name}" in ran.err
    assert "Going on." in ran.err
    assert f"Its results:  runlane batch results {given.name} -o FILE\n" in watched.err
    assert (0, 0) == (ran.code, watched.code)
    assert 4 == len(await given.created())


async def test_the_stop_switch_pauses_a_batch_and_says_both_commands(shell: Shell) -> None:
    """`runlane stop --all` lets nothing be created; the batch says whose stop it is, and that it
    needs to go on once that is over.
    """
    await shell.plant.lab.scenario(rounds=[QUICK])
    given = Input(shell)
    given.add(4)
    await shell("stop", "--all", "--reason", "looks wrong", code=0)
    try:
        run = await shell.start("batch", "run", given.name)

        async def told() -> Said:
            return await shell("batch", "status", given.name)

        status = await eventually(told, lambda said: "paused" in said.out)
        created = len(await given.created())
    finally:
        await shell("resume", "--all", code=0)
    await shell("batch", "resume", given.name, code=0)
    ran = await ended(run)

    assert "looks wrong" in status.out
    assert "Once the stop is over (runlane resume), go on with:" in status.err
    assert "Once the stop is over (runlane resume), go on with:" in ran.err
    assert f"runlane batch resume {given.name}" in ran.err
    assert 0 == created
    assert 0 == ran.code
    assert 4 == len(await given.created())


async def test_workers_answer_the_calls_of_their_tools(bare: Shell) -> None:
    """With tools, each run is handed their schemas, and needs nobody where a policy lets it run:
    the command sees them to their end, however long a tool takes.
    """
    (bare.directory / "shelf.py").write_text(SHELF)
    bare.environ |= {"RUNLANE_TOOLS": "shelf", "PYTHONPATH": str(bare.directory)}
    await bare.plant.worker(RUNLANE_TOOLS="shelf", PYTHONPATH=str(bare.directory))
    given = Input(bare, f"{bare.plant.lab.assistant_id}_tools")
    given.add(3)

    await bare("batch", "run", given.name, "-o", "out.jsonl", "--with-tools", code=0)

    bodies = [line["response"]["body"] for line in lines(bare.directory / "out.jsonl")]
    assert 3 == len(bodies)
    assert {"look_up"} == {tool["function"]["name"] for body in bodies for tool in body["tools"]}


async def test_a_disk_without_room_is_said_and_gone_on_from(shell: Shell) -> None:
    """The command ends with words, the batch doesn't, and the same command brings the rest."""
    await shell.plant.lab.scenario(rounds=[SLOW])
    given = Input(shell)
    given.add(30)
    out = shell.directory / "out.jsonl"
    await shell("batch", "run", given.name, "--detach", "--max-in-flight", "2", code=0)
    await eventually(given.created, lambda created: len(created) >= 2)
    # So that there are results to come, however long the command takes to begin.
    await shell("batch", "pause", given.name, code=0)

    process = await shell.start("batch", "watch", given.name, "-o", "out.jsonl")
    await until(out, lambda count: count >= 2)
    room = (out.stat().st_size + 100, psutil.RLIM_INFINITY)
    psutil.Process(process.pid).rlimit(psutil.RLIMIT_FSIZE, room)
    await shell("batch", "resume", given.name, code=0)
    full = await ended(process)
    done = await shell("batch", "watch", given.name, "-o", "out.jsonl", code=0)

    assert 1 == full.code
    assert "Can't write results to out.jsonl" in full.err
    assert "nothing is lost" in full.err
    assert "30 completed" in done.out
    assert sorted(given.ids()) == sorted(line["custom_id"] for line in lines(out))


async def test_without_a_worker_it_is_said(bare: Shell) -> None:
    """The command's first word comes within two seconds of its start; it says why nothing happens,
    and Ctrl-C that the batch goes on.
    """
    given = Input(bare)
    given.add(1)

    began = time.monotonic()
    process = await bare.start("batch", "run", given.name, "-o", "out.jsonl")
    assert process.stderr is not None
    said = (await asyncio.wait_for(process.stderr.readline(), 20)).decode()
    first_word = time.monotonic() - began
    assert f"Checking {given.name} …\n" == said
    assert first_word < 2.0
    while "runlane worker" not in said:
        line = await asyncio.wait_for(process.stderr.readline(), 20)
        assert line, f"it ended, and said {said!r}"
        said += line.decode()
    process.send_signal(signal.SIGINT)
    left = await ended(process)

    assert 130 == left.code
    assert f"goes on. See  runlane batch watch {given.name} -o out.jsonl\n" in left.err
