"""The examples, each run as its README says, beside one `runlane up --simulate`."""

import asyncio
import json
import os
import re
import signal
import sqlite3
import sys
import sysconfig
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.lab import eventually

EXAMPLES = Path(__file__).parents[2] / "examples"
RUNLANE = Path(sysconfig.get_path("scripts")) / "runlane"
TICKETS, CLAIMS = EXAMPLES / "classify_tickets", EXAMPLES / "refunds_batch"
FOLDERS = sorted({path.parent for path in EXAMPLES.glob("*/README.md")} - {TICKETS, CLAIMS})
COUNT = 50
"""Lines of a batch's input."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def environ(**more: str) -> dict[str, str]:
    ours = ("RUNLANE_", "TEMPORAL_")
    return {k: v for k, v in os.environ.items() if not k.startswith(ours)} | more


def search_path(*folders: Path) -> str:
    """Return where Python looks for modules, these folders first."""
    return os.pathsep.join([*map(str, folders), os.environ.get("PYTHONPATH", "")])


def said(folder: Path) -> tuple[str, str]:
    """Return the module and the script that a folder's README names."""
    readme = (folder / "README.md").read_text()
    assert f"cd examples/{folder.name}\n" in readme
    module = re.search(r"^RUNLANE_TOOLS=(\w+) runlane up --simulate$", readme, re.MULTILINE)
    script = re.search(r"^python (\w+\.py)$", readme, re.MULTILINE)
    assert module is not None
    assert script is not None
    return module[1], script[1]


@asynccontextmanager
async def up(where: Path) -> AsyncIterator[str]:
    """Run `runlane up` with the tools of all examples; yield Temporal's address."""
    env = environ(
        RUNLANE_TOOLS=",".join(said(folder)[0] for folder in FOLDERS),
        PYTHONPATH=search_path(*FOLDERS),
    )
    async with serving(where, env, "up", "--simulate", *NEW_PORTS) as facts:
        yield str(facts["temporal"])


NEW_PORTS = ("--temporal-port", "0", "--ui-port", "0")


@asynccontextmanager
async def serving(where: Path, env: dict[str, str], *command: str) -> AsyncIterator[dict[str, Any]]:
    """Run a command that serves; yield what it says when it is ready."""
    process = await asyncio.create_subprocess_exec(
        *(str(RUNLANE), *command, "--json"),
        env=env,
        cwd=where,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        document = b""
        while not document.endswith(b"}\n"):
            line = await asyncio.wait_for(process.stdout.readline(), 90)
            assert line, command
            document += line
        yield json.loads(document)
    finally:
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), 60)


async def run(folder: Path, address: str) -> str:
    """Run an example's script, with nobody at the terminal; return what it printed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, said(folder)[1]),
        env=environ(TEMPORAL_ADDRESS=address),
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        printed, _ = await asyncio.wait_for(process.communicate(), 120)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert 0 == process.returncode, printed.decode()
    return printed.decode()


async def test_each_example_does_what_it_says(tmp_path: Path) -> None:
    """Side by side, and the one that may be started twice, twice."""
    assert ["nightly_report", "refund_approval", "two_person_payment"] == [
        folder.name for folder in FOLDERS
    ]
    async with up(tmp_path) as address:
        report, refund, payment = await asyncio.gather(*(run(each, address) for each in FOLDERS))
        assert report == await run(FOLDERS[0], address)

    assert re.fullmatch(r"run_\w+ completed\n", report)
    assert 1 == len(list((tmp_path / "reports").iterdir()))
    assert "waits: over 100 euros\nNobody sits here, so it is approved.\ncompleted" in refund
    with closing(sqlite3.connect(tmp_path / "refunds.db")) as record:
        assert [(250,)] == record.execute("SELECT amount FROM refunds").fetchall()
    people = re.findall(r"^(cleo|ann|ben): (.*)$", payment, re.MULTILINE)
    assert [
        ("cleo", "cleo asked for this run; somebody else must decide."),
        ("ann", "approved"),
        ("ann", "ann has approved it already; another person must."),
        ("ben", "approved"),
    ] == people
    assert payment.endswith("completed\n")


async def command(where: Path, env: dict[str, str], *words: str, code: int = 0) -> str:
    """Run a program to its end; return its standard output."""
    process = await asyncio.create_subprocess_exec(
        *words,
        env=env,
        cwd=where,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        printed, words_said = await asyncio.wait_for(process.communicate(), 120)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert code == process.returncode, (words, printed.decode(), words_said.decode())
    return printed.decode()


async def write_input(folder: Path, script: str, into: Path) -> None:
    """Run a script that writes a batch, as its folder's README says."""
    assert f"python {script} " in (folder / "README.md").read_text()
    printed = await command(folder, environ(), sys.executable, script, str(COUNT))
    into.write_text(printed)


def states(results: Path) -> dict[str, str]:
    """Return what became of each line, by its custom id."""
    if not results.exists():
        return {}
    whole = [line for line in results.read_text().splitlines(keepends=True) if line.endswith("\n")]
    lines = [json.loads(line) for line in whole]
    assert len(lines) == len({line["custom_id"] for line in lines})
    return {line["custom_id"]: line["response"]["body"]["status"] for line in lines}


async def test_a_file_of_tickets_is_classified(tmp_path: Path) -> None:
    """As its README says: one result for each ticket, with what the model said."""
    readme = (TICKETS / "README.md").read_text()
    words = re.search(r"^runlane (batch run tickets\.jsonl .*)$", readme, re.MULTILINE)
    assert words is not None
    await write_input(TICKETS, "tickets.py", tmp_path / "tickets.jsonl")

    async with up(tmp_path) as address:
        env = environ(TEMPORAL_ADDRESS=address)
        await command(tmp_path, env, str(RUNLANE), *words[1].split())

    assert {f"ticket-{number}": "completed" for number in range(1, COUNT + 1)} == states(
        tmp_path / "results.jsonl"
    )
    said = [
        part["text"]["value"]
        for line in (tmp_path / "results.jsonl").read_text().splitlines()
        for message in json.loads(line)["runlane"]["messages"]
        for part in message["content"]
    ]
    assert COUNT == len(said)
    assert all(said)


async def test_big_claims_wait_for_people_and_hold_up_nobody(tmp_path: Path) -> None:
    """As its README says: the small ones are done, then people decide; each is paid once."""
    readme = (CLAIMS / "README.md").read_text()
    words = re.search(r"^RUNLANE_TOOLS=refunds runlane (batch run .*)$", readme, re.MULTILINE)
    assert words is not None
    begin = (str(RUNLANE), *words[1].split())
    await write_input(CLAIMS, "claims.py", tmp_path / "claims.jsonl")
    tools = {"RUNLANE_TOOLS": "refunds", "PYTHONPATH": search_path(CLAIMS)}
    big = {"claim-25", "claim-50"}
    model = ("simulate", "--port", "0", "--scenario", str(CLAIMS / "model.toml"))

    async with serving(tmp_path, environ(), *model) as upstream:
        env = environ(RUNLANE_UPSTREAM_URL=str(upstream["url"]), **tools)
        async with serving(tmp_path, env, "up", *NEW_PORTS) as facts:
            env = environ(TEMPORAL_ADDRESS=str(facts["temporal"]), **tools)
            batch = asyncio.create_task(command(tmp_path, env, *begin))
            small = await eventually(
                lambda: asyncio.to_thread(states, tmp_path / "results.jsonl"),
                lambda found: len(found) == COUNT - len(big),
                within=timedelta(seconds=90),
            )
            asked = (str(RUNLANE), "approval", "list", "--tool", "pay_back", "--json")
            waiting = json.loads(await command(tmp_path, env, *asked))["data"]
            for each in waiting:
                decide = ("approval", "approve", each["tool_call_id"], "--run", each["run_id"])
                await command(tmp_path, env, str(RUNLANE), *decide)
            await batch

    everybody = {f"claim-{number}": "completed" for number in range(1, COUNT + 1)}
    assert 2 == len(waiting)
    assert {name: end for name, end in everybody.items() if name not in big} == small
    assert everybody == states(tmp_path / "results.jsonl")
    with closing(sqlite3.connect(tmp_path / "paid.db")) as record:
        paid = record.execute("SELECT amount, count(*) FROM paid GROUP BY amount").fetchall()
    assert [(25, 48), (250, 2)] == sorted(paid)
