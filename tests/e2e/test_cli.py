"""Every command as a process of its own, against real parts: what it prints, and its exit code."""

import asyncio
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from runlane.embedded import EmbeddedTemporal
from tests.processes import Plant

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "lookup_order",
            "parameters": {"type": "object", "properties": {"order_id": {"type": "string"}}},
        },
    }
]

pytestmark = pytest.mark.slow


@dataclass
class Said:
    """What a command left behind."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document on standard output."""
        found: dict[str, Any] = json.loads(self.out)
        return found


class Shell:
    """Calls `runlane` with the plant's environment, in a directory of the test's own."""

    def __init__(self, plant: Plant, directory: Path) -> None:
        self.plant = plant
        self.directory = directory
        self.environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("RUNLANE_", "TEMPORAL_"))
        }
        self.environ |= plant._environ

    async def start(self, *args: str) -> asyncio.subprocess.Process:
        """Start a command."""
        return await asyncio.create_subprocess_exec(
            str(Path(sys.executable).with_name("runlane")),
            *args,
            cwd=self.directory,
            env=self.environ,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def __call__(self, *args: str, stdin: str = "", code: int | None = None) -> Said:
        """Run a command to its end; `code` is the exit code it must have."""
        began = time.monotonic()
        process = await self.start(*args)
        out, err = await asyncio.wait_for(process.communicate(stdin.encode()), 90)
        assert process.returncode is not None
        said = Said(process.returncode, out.decode(), err.decode(), time.monotonic() - began)
        assert code is None or said.code == code, (args, said)
        return said

    async def create(self, *args: str, tools: bool = True) -> str:
        """Start a run on the lab's thread and return its id."""
        lab = self.plant.lab
        body = json.dumps({"assistant_id": lab.assistant_id, **({"tools": TOOLS} if tools else {})})
        options = ("--thread", lab.thread_id, "--params", "-", *args)
        said = await self("create", *options, stdin=body, code=0)
        return said.out.split()[0]

    async def waiting(self) -> tuple[str, str]:
        """Start a run, wait until it waits for an answer, and return its id and the call's."""
        run_id = await self.create()
        said = await self("poll", run_id, "--json", code=4)
        return run_id, said.document["runlane"]["pending"][0]["tool_call_id"]


@pytest_asyncio.fixture
async def bare(plant: Plant, tmp_path: Path) -> Shell:
    """A shell next to a queue that no worker serves."""
    return Shell(plant, tmp_path)


@pytest_asyncio.fixture
async def shell(bare: Shell) -> AsyncIterator[Shell]:
    """A shell next to a queue with a worker."""
    await bare.plant.worker()
    yield bare


async def test_a_run_is_driven_from_the_shell(shell: Shell) -> None:
    """Created, polled, answered from a file, answered again, polled to its end, looked at."""
    run_id = await shell.create("--idempotency-key", "k")
    waits = await shell("poll", run_id, code=4)
    call_id = waits.out.rstrip().split()[-1].removesuffix("=OUTPUT")
    (shell.directory / "answer.json").write_text('{"state": "shipped"}')
    answer = f"{call_id}=@answer.json"
    accepted = await shell("submit", run_id, answer, "--wait", code=0)
    again = await shell("submit", run_id, answer, code=0)
    late = await shell("submit", run_id, f"{call_id}=other", code=8)
    done = await shell("poll", run_id, code=0)

    assert "requires_action    lookup_order {" in waits.out
    assert f"Waits for 1 answer. Give it:  runlane submit {run_id} {call_id}=OUTPUT" in waits.out
    assert f"{call_id}  accepted\n" in accepted.out
    assert "completed" in accepted.out
    assert f"{call_id}  duplicate" in again.out
    assert f"{call_id}  late" in late.out
    assert "0.0 s  completed\n" in done.out
    assert run_id == await shell.create("--idempotency-key", "k")
    await shell("create", "--thread", "other", "--assistant", "a", "--idempotency-key", "k", code=8)


async def test_a_run_is_shown_in_short_in_full_and_in_a_list(shell: Shell) -> None:
    """`retrieve`, `view`, `list` and `steps` are 0 whatever the status."""
    run_id, call_id = await shell.waiting()
    thread_id = shell.plant.lab.thread_id

    short = await shell("retrieve", run_id, code=0)
    full = await shell("view", run_id, code=0)
    listed = await shell("list", "--thread", thread_id, "--status", "requires_action", code=0)
    recorded = await shell("list", "--all-ages", "--thread", thread_id, code=0)
    steps = await shell("steps", run_id, code=0)

    for said in (short, full, listed):
        assert run_id in said.out
        assert "requires_action" in said.out
        assert "lookup_order" in said.out
    assert call_id in short.out
    assert "attempt 1" in full.out
    assert "events" in full.out
    assert "As Temporal knew at" in listed.err
    assert run_id in recorded.out
    assert "As the ledger knew at" in recorded.err
    assert "lookup_order" in steps.out
    step_id = steps.out.splitlines()[1].split()[0]
    step = await shell("steps", run_id, step_id, code=0)
    assert f"{call_id}  not given yet" in step.out
    await shell("steps", run_id, "step_none", code=6)


async def test_json_is_one_document_of_the_protocols_shape(shell: Shell) -> None:
    """The Run object with one more key, the list's envelope, and words on standard error."""
    run_id, call_id = await shell.waiting()
    view = (await shell("view", run_id, "--json", code=0)).document
    listed = (await shell("list", "--json", "--thread", view["thread_id"], code=0)).document
    steps = (await shell("steps", run_id, "--json", code=0)).document
    given = await shell("submit", run_id, f"{call_id}=x", "--json", code=0)
    done = await shell("poll", run_id, "--json", code=0)
    refused = await shell("submit", run_id, f"{call_id}=y", "--json", code=8)

    assert ("thread.run", run_id, "requires_action") == (view["object"], view["id"], view["status"])
    assert {
        "upstream_run_id",
        "attempt",
        "parked",
        "blocked",
        "pending",
        "answers",
        "simulated",
    } <= (set(view["runlane"]))
    assert ("list", run_id, run_id, False) == tuple(
        listed[key] for key in ("object", "first_id", "last_id", "has_more")
    )
    assert "runlane" in listed["data"][0]
    assert run_id == steps["data"][0]["run_id"]
    assert [{"tool_call_id": call_id, "status": "accepted", "room": None}] == (
        given.document["runlane"]["receipts"]
    )
    assert "completed" == done.document["status"]
    assert "answers_refused" == refused.document["error"]["code"]
    assert "late" == refused.document["receipts"][0]["status"]


async def test_waiting_commands_tell_how_a_run_ended(shell: Shell) -> None:
    """0 completed, 3 ended otherwise, 4 waits for answers, 7 the timeout passed."""
    lab = shell.plant.lab
    completed = await shell(
        "create", "--thread", lab.thread_id, "--assistant", lab.assistant_id, "--wait"
    )
    failing = f"asst_{secrets.token_hex(6)}"
    await lab.scenario(assistant_id=failing, rounds=[{"ends": "failed"}])
    failed = await shell("create", "--thread", lab.thread_id, "--assistant", failing, "--wait")
    slow = f"asst_{secrets.token_hex(6)}"
    await lab.scenario(assistant_id=slow, rounds=[{"queued": 60}])
    waiting = await shell("create", "--thread", lab.thread_id, "--assistant", slow)
    slow_id = waiting.out.split()[0]
    timed_out = await shell("poll", slow_id, "--timeout", "1s", "--json")
    cancelled = await shell("cancel", slow_id)
    ended = await shell("poll", slow_id)

    assert (0, 3, 7, 0, 3) == tuple(
        said.code for said in (completed, failed, timed_out, cancelled, ended)
    )
    assert slow_id == timed_out.document["id"]
    assert "goes on" in timed_out.err
    assert "cancelled" in ended.out


async def test_a_cancel_that_came_too_late_says_so(shell: Shell) -> None:
    """Exit code 3, and how the run ended."""
    run_id = await shell.create("--wait", tools=False)

    said = await shell("cancel", run_id, code=3)

    assert "Too late to cancel: the run ended as completed." in said.err


async def test_metadata_is_replaced_from_the_shell(shell: Shell) -> None:
    """Pairs after the option belong to it, as people type them."""
    run_id, _ = await shell.waiting()

    said = await shell("update", run_id, "--metadata", "a=1", "b=two words", "--json", code=0)

    assert {"a": "1", "b": "two words"} == said.document["metadata"]


async def test_a_run_is_nudged_from_the_shell(shell: Shell) -> None:
    """A nudge prints how the run stands; for a run that doesn't exist it is exit code 6."""
    run_id = await shell.create()

    said = await shell("nudge", run_id, code=0)
    assert run_id in said.out
    await shell("nudge", "run_NOBODY", code=6)


async def test_a_stream_prints_events_as_they_become_known(shell: Shell) -> None:
    """From the creation to where the run waits; the exit code is the wait's."""
    lab = shell.plant.lab
    body = json.dumps({"assistant_id": lab.assistant_id, "tools": TOOLS})

    said = await shell(
        "create", "--thread", lab.thread_id, "--params", "-", "--stream", stdin=body, code=4
    )

    events = [line.split()[-1] for line in said.out.splitlines() if " s  thread.run." in line]
    assert "thread.run.created" == events[0]
    assert "thread.run.requires_action" == events[-1]


async def test_answers_come_from_a_submit_body_too(shell: Shell) -> None:
    """`--outputs -` reads the protocol's own body."""
    run_id, call_id = await shell.waiting()
    body = {"tool_outputs": [{"tool_call_id": call_id, "output": "x"}]}

    said = await shell("submit", run_id, "--outputs", "-", "--wait", stdin=json.dumps(body), code=0)

    assert "accepted" in said.out
    assert "completed" in said.out


async def test_what_does_not_exist_is_told(shell: Shell) -> None:
    """Exit code 6 everywhere."""
    for command in ("retrieve", "view", "poll", "cancel", "steps"):
        said = await shell(command, "run_none", "--json", code=6)
        assert "run_not_found" == said.document["error"]["code"]
    await shell("submit", "run_none", "a=b", code=6)
    await shell("update", "run_none", "--metadata", "a=b", code=6)
    await shell("list", "--after", "run_none", code=6)


async def test_an_answer_over_a_megabyte_is_refused_before_it_is_sent(shell: Shell) -> None:
    """The run lives on and takes a shorter one."""
    run_id, call_id = await shell.waiting()
    (shell.directory / "large").write_text("x" * 2_200_000)

    said = await shell("submit", run_id, f"{call_id}=@large", code=8)

    assert "1,000,000" in said.err
    await shell("submit", run_id, f"{call_id}=short", "--wait", code=0)


async def test_without_a_worker_every_waiting_command_says_so(bare: Shell) -> None:
    """Within two seconds, with the command that starts one; reading commands answer anyway."""
    run_id = await bare.create()
    command = (await bare("list", code=0)).seconds
    poll = await bare.start("poll", run_id)
    began = time.monotonic()
    assert poll.stderr is not None
    line = (await asyncio.wait_for(poll.stderr.readline(), 20)).decode()
    took = time.monotonic() - began
    poll.send_signal(signal.SIGINT)
    out, err = await asyncio.wait_for(poll.communicate(), 20)

    assert "No worker has answered" in line
    assert "runlane worker" in line
    assert took < 4 + 2 * command, "a command alone takes about a second; beside other tests, more"
    assert 130 == poll.returncode
    assert f"{run_id} goes on" in err.decode()
    assert b"completed" not in out
    retrieved = await bare("retrieve", run_id, code=0)
    listed = await bare("list", "--thread", bare.plant.lab.thread_id, code=0)
    assert "this is as of" in retrieved.err
    assert run_id in listed.out
    for unheard in (("submit", run_id, "a=b"), ("cancel", run_id)):
        said = await bare(*unheard, "--json", code=5)
        assert "no_worker" == said.document["error"]["code"]
        assert "runlane worker" in said.err
    timed_out = await bare("poll", run_id, "--timeout", "1s", code=7)
    assert "queued" in timed_out.out


async def test_a_wait_goes_on_when_a_worker_comes(bare: Shell) -> None:
    """Whoever waits need not start again once somebody has started a worker."""
    run_id = await bare.create(tools=False)
    poll = await bare.start("poll", run_id)
    await asyncio.sleep(2)
    await bare.plant.worker()
    out, err = await asyncio.wait_for(poll.communicate(), 60)

    assert 0 == poll.returncode
    assert b"completed" in out
    assert b"No worker has answered" in err


async def test_temporal_that_is_not_there_is_told(bare: Shell) -> None:
    """Exit code 5, with the address and the remedy."""
    bare.environ["TEMPORAL_ADDRESS"] = "127.0.0.1:1"

    for command in (("list",), ("poll", "run_1"), ("create", "--thread", "t", "--assistant", "a")):
        said = await bare(*command, "--json", code=5)
        assert "temporal_unreachable" == said.document["error"]["code"]
        assert "127.0.0.1:1" in said.err
        assert "runlane up" in said.err


async def test_a_missing_namespace_is_no_missing_run(bare: Shell) -> None:
    """Exit code 5 rather than 6: the run may well exist, elsewhere."""
    bare.environ["TEMPORAL_NAMESPACE"] = "nowhere"

    for command in (("list",), ("retrieve", "run_1"), ("submit", "run_1", "a=b")):
        said = await bare(*command, "--json", code=5)
        assert "namespace_not_found" == said.document["error"]["code"]
        assert "'nowhere'" in said.err


async def test_a_bad_setting_is_bad_input(bare: Shell) -> None:
    """Exit code 2, and the variable's name."""
    bare.environ["RUNLANE_UPSTREAM_URL"] = "ftp://nowhere"

    said = await bare("list", "--json", code=2)

    assert "RUNLANE_UPSTREAM_URL" == said.document["error"]["param"]


async def test_doctor_says_what_to_do_about_each_finding(bare: Shell, tmp_path: Path) -> None:
    """Exit code 1 while something is to be mended, 0 once nothing is."""
    # A server that knows no other test's runs.
    async with EmbeddedTemporal(tmp_path / "server") as server:
        bare.environ["TEMPORAL_ADDRESS"] = server.address
        bare.plant._environ["TEMPORAL_ADDRESS"] = server.address
        sick = await bare("doctor", code=1)
        await bare.plant.worker()
        run_id = await bare.create(tools=False)
        await bare("poll", run_id, code=0)
        well = await bare("doctor", "--json", code=0)
        bare.environ["RUNLANE_UPSTREAM_URL"] = "http://127.0.0.1:1/v1"
        no_upstream = await bare("doctor", "--json", code=1)
        bare.environ["TEMPORAL_ADDRESS"] = "127.0.0.1:1"
        no_temporal = await bare("doctor", code=1)
        await bare.plant.dispose()

    assert "Start one: runlane worker" in sick.out
    assert well.document["healthy"] is True
    assert "simulated" in well.out
    problems = [entry for entry in no_upstream.document["checks"] if entry["level"] == "problem"]
    assert ["upstream"] == [entry["check"] for entry in problems]
    assert problems[0]["remedy"]
    assert "Can't reach Temporal at 127.0.0.1:1" in no_temporal.out


async def test_worker_and_simulate_print_one_document_when_ready(bare: Shell) -> None:
    """And end by SIGTERM with 0; modules of the caller's own directory are not taken for ours."""
    (bare.directory / "worker.py").write_text("raise SystemExit('not this one')")
    (bare.directory / "runsapi").mkdir()
    for command, key in (("simulate", "url"), ("worker", "task_queue")):
        process = await bare.start(command, "--json")
        assert process.stdout is not None
        lines = b""
        while True:
            lines += await asyncio.wait_for(process.stdout.readline(), 60)
            try:
                document = json.loads(lines)
            except ValueError:
                continue
            break
        process.terminate()
        await asyncio.wait_for(process.communicate(), 60)

        assert document[key]
        assert process.pid == document["pid"]
        assert 0 == process.returncode


async def test_arguments_of_a_call_cannot_drive_the_terminal(shell: Shell) -> None:
    """A model's text is shown, not obeyed."""
    lab = shell.plant.lab
    evil = "\x1b[2J\x07\r\nrun_fake  completed"
    await lab.scenario(rounds=[{"calls": [{"name": "lookup_order", "arguments": evil}]}])
    run_id, _ = await shell.waiting()

    for command in (("retrieve", run_id), ("poll", run_id), ("list", "--thread", lab.thread_id)):
        said = await shell(*command)
        assert "\x1b" not in said.out
        assert "\x07" not in said.out
        assert "\nrun_fake" not in said.out
