"""Commands that decide and stop through the API, which is a process of its own."""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from runlane import reading
from tests.e2e.test_cli import Said, Shell, bare
from tests.e2e.test_cli_approvals import _text, shell, start_worker
from tests.e2e.test_up import clean, runlane, up
from tests.lab import eventually

__all__ = ["bare", "shell"]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


class Server:
    """A `runlane api` that serves."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self.process = process
        self.url = url
        """With `/v1`."""

    async def kill(self) -> None:
        """End it without a word."""
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()


@asynccontextmanager
async def serving(shell: Shell) -> AsyncIterator[Server]:
    """Start `runlane api`, and have it end as a supervisor does."""
    process = await shell.start("api", "--port", "0", "--json")
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 60)
        assert line, (await process.communicate())[1].decode()
        document = json.loads(line)
        assert process.pid == document["pid"]
        yield Server(process, document["url"])
        if process.returncode is None:
            process.terminate()
            _, said = await asyncio.wait_for(process.communicate(), 20)
            assert 0 == process.returncode, said.decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def token(shell: Shell, person: str, role: str, *options: str) -> str:
    """Make a token, and return its secret."""
    named = ("--name", f"{person}-{role}", "--person", person, "--role", role)
    said = await shell("token", "create", *named, *options, "--json", code=0)
    return str(said.document["token"])


def elsewhere(shell: Shell, server: Server, secret: str) -> Shell:
    """Return a shell that has the API and a token, and neither Temporal, ledger nor key."""
    other = Shell(shell.plant, shell.directory)
    other.environ = clean(
        RUNLANE_API_URL=server.url,
        RUNLANE_TOKEN=secret,
        RUNLANE_PERSON="somebody",
        TEMPORAL_ADDRESS="127.0.0.1:1",
    )
    return other


def without_times(said: Said) -> Said:
    """Return what a command said, without how long something waits."""
    lines = [line for line in said.out.splitlines() if not line.lstrip().startswith("waits")]
    return replace(said, out="\n".join(lines), seconds=0.0)


async def asked(shell: Shell) -> tuple[str, str]:
    """Start a run whose call waits for people; return its id and the call's."""
    run_id = await shell.create("--with-tools", tools=False)
    await shell("poll", run_id, code=4)
    listed = await shell("approval", "list", "--run", run_id, "--json", code=0)
    return run_id, listed.document["data"][0]["tool_call_id"]


async def test_a_call_is_decided_through_the_api(shell: Shell) -> None:
    """By the token's person, who needs nothing but the API; printed as without it."""
    await start_worker(shell)
    run_id, call_id = await asked(shell)
    async with serving(shell) as server:
        ada = elsewhere(shell, server, await token(shell, "ada", "approver"))
        listed = await ada("approval", "list", "--run", run_id, "--json", code=0)
        listed_here = await shell("approval", "list", "--run", run_id, "--json", code=0)
        shown = await ada("approval", "show", call_id, code=0)
        shown_here = await shell("approval", "show", call_id, code=0)
        missing = await ada("approval", "show", "call_9", "--json", code=6)
        missing_here = await shell("approval", "show", "call_9", "--json", code=6)
        edited = '{"order_id": "A-1", "amount": 7}'
        approved = await ada(
            "approval", "approve", call_id, "--arguments", "-", "--note", "ok", stdin=edited, code=0
        )
        again = await ada("approval", "reject", call_id, "--reason", "no", "--json", code=8)
        again_here = await shell("approval", "reject", call_id, "--reason", "no", "--json", code=8)
        await shell("poll", run_id, code=0)

    assert listed_here.document == listed.document
    assert without_times(shown_here) == without_times(shown)
    assert missing_here.document == missing.document
    assert approved.out.startswith("Approved by ada; the decision is verified. ")
    # It needs Temporal, which isn't there.
    assert "runlane poll" not in approved.out + approved.err
    assert again_here.document == again.document
    assert "already_decided" == again.document["receipt"]["status"]
    assert "A-1 7\n" == await _text(Path(shell.environ["PAID"]))
    view = await reading.read(shell.plant.client, run_id)
    assert [("api", "ada")] == [(each.face, each.by) for each in view.runlane.decisions]


async def test_a_token_that_may_not_decides_and_stops_nothing(shell: Shell) -> None:
    """Exit code 8, and what it would need; a token that is none is told so, and no API 5."""
    await start_worker(shell)
    run_id, call_id = await asked(shell)
    async with serving(shell) as server:
        eve = elsewhere(shell, server, await token(shell, "eve", "operator"))
        ada = elsewhere(shell, server, await token(shell, "ada", "admin"))
        nobody = elsewhere(shell, server, "rl_nobody")
        decided = await eve("approval", "approve", call_id, "--run", run_id, "--json", code=8)
        stopped = await eve("stop", "--all", "--reason", "x", "--json", code=8)
        unknown = await nobody("approval", "list", "--json", code=8)
        none = await ada("stops", code=0)
        ordered = await ada("stop", "--all", "--reason", "wrong prices", code=0)
        held = await ada("approval", "approve", call_id, code=0)
        shown = await ada("stops", "--json", code=0)
        shown_here = await shell("stops", "--json", code=0)
        resumed = await ada("resume", "--all", code=0)
        missing = await ada("resume", "--all", "--json", code=6)
        await shell("poll", run_id, code=0)
        mistyped = await ada("stop", "--tool", "refnd", "--reason", "x", code=0)
    gone = await ada("approval", "list", "--json", code=5)

    assert "a token of the role approver or admin" in decided.document["error"]["message"]
    assert "a token of the role admin" in stopped.document["error"]["message"]
    assert "RUNLANE_TOKEN" in unknown.document["error"]["message"]
    assert "Nothing is stopped.\n" == none.out
    assert "Stopped: everything" in ordered.out
    assert "by          ada" in ordered.out
    assert "It runs when that is resumed: everything, stopped by ada" in " ".join(held.out.split())
    assert shown_here.document == shown.document
    assert "Resumed: everything, stopped by ada" in resumed.out
    assert "Stopped: tool refnd" in mistyped.out
    assert "No tool refnd is known here; there are: refund" in " ".join(mistyped.err.split())
    assert "not_stopped" == missing.document["error"]["code"]
    assert "api_unreachable" == gone.document["error"]["code"]


async def test_a_decision_whose_answer_was_lost_counts_once(shell: Shell) -> None:
    """The API dies once the run has it; asked again, it is said who decided, and paid is once."""
    await start_worker(shell)
    run_id, call_id = await asked(shell)
    secret = await token(shell, "ada", "approver")
    path = f"/approvals/{run_id}/{call_id}/approve"
    ledger = Path(shell.environ["RUNLANE_DATA_DIR"]) / "ledger.db"

    async with serving(shell) as server, speaking(server, secret) as http:
        await http.get("/approvals")
        # Nobody verifies a decision that can't be written down.
        with closing(sqlite3.connect(ledger, isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            lost = asyncio.create_task(http.post(path))

            async def taken() -> bool:
                view = await reading.read(shell.plant.client, run_id)
                return any(call.checking for call in view.runlane.pending)

            await eventually(taken, bool)
            await server.kill()
            holder.execute("ROLLBACK")
        with pytest.raises(httpx.TransportError):
            await lost
    async with serving(shell) as server, speaking(server, secret) as http:

        async def repeated() -> httpx.Response:
            return await http.post(path)

        answer = await eventually(repeated, lambda each: each.json()["receipt"]["status"] != "busy")
    await shell("poll", run_id, code=0)

    assert (409, "already_decided") == (answer.status_code, answer.json()["receipt"]["status"])
    assert "approved by ada" in answer.json()["error"]["message"]
    assert 1 == len((await _text(Path(shell.environ["PAID"]))).splitlines())


@asynccontextmanager
async def speaking(server: Server, secret: str) -> AsyncIterator[httpx.AsyncClient]:
    """Speak HTTP with a server."""
    headers = {"authorization": f"Bearer {secret}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=60) as http:
        yield http


TOOL = '''import runlane


@runlane.tool(policy="approve")
def refund(order_id: str) -> str:
    """Pay an order back."""
    return "paid"
'''


def document(
    *arguments: str, environ: Mapping[str, str], cwd: Path, code: int = 0
) -> dict[str, Any]:
    """Return what a command prints with `--json`."""
    done: subprocess.CompletedProcess[str] = runlane(*arguments, "--json", environ=environ, cwd=cwd)
    assert code == done.returncode, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_commands_beside_up_decide_through_its_api(tmp_path: Path) -> None:
    """As its own user; whoever says that he is another is a face of his own.

    The first token that somebody makes closes the API to those who have none, and not to them.
    """
    (tmp_path / "desk.py").write_text(TOOL)
    tools = {"RUNLANE_TOOLS": "desk"}
    with up(tmp_path, "--simulate", environ=clean(**tools)) as started:
        environ = started.environ() | tools
        faces: list[tuple[str, bool]] = []
        for more in ({}, {"RUNLANE_PERSON": "bob"}):
            thread = ("--thread", f"thread_{len(faces)}", "--assistant", "asst_1")
            run_id = document("create", *thread, "--with-tools", environ=environ, cwd=tmp_path)[
                "id"
            ]
            runlane("poll", run_id, environ=environ, cwd=tmp_path)
            [call] = document("approval", "list", environ=environ, cwd=tmp_path)["data"]
            decided = document(
                "approval", "approve", call["tool_call_id"], environ=environ | more, cwd=tmp_path
            )
            view = document("view", run_id, environ=environ, cwd=tmp_path)
            [decision] = view["runlane"]["decisions"]
            faces.append((decision["face"], decision["by"] == decided["by"]))
        url = started.document["api"]
        before = httpx.get(f"{url}/stops", trust_env=False).status_code
        named = ("--name", "eve", "--person", "eve", "--role", "reader")
        document("token", "create", *named, environ=environ, cwd=tmp_path)

        def closed() -> bool:
            return httpx.get(f"{url}/stops", trust_env=False).status_code == 401

        asyncio.run(_until(closed))
        document("stop", "--all", "--reason", "x", environ=environ, cwd=tmp_path)
        os.kill(started.document["api_pid"], signal.SIGKILL)
        started.wait_said("The API is back")
        document("resume", "--all", environ=environ, cwd=tmp_path)
        assert 0 == started.stop()

    assert [("api", True), ("cli", True)] == faces
    assert 200 == before


async def _until(true: Any) -> None:
    async def probe() -> bool:
        return bool(true())

    await eventually(probe, bool)
