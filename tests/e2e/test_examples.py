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
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
RUNLANE = Path(sysconfig.get_path("scripts")) / "runlane"
FOLDERS = sorted(path.parent for path in EXAMPLES.glob("*/README.md"))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


def environ(**more: str) -> dict[str, str]:
    ours = ("RUNLANE_", "TEMPORAL_")
    return {k: v for k, v in os.environ.items() if not k.startswith(ours)} | more


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
    process = await asyncio.create_subprocess_exec(
        *(RUNLANE, "up", "--simulate", "--temporal-port", "0", "--ui-port", "0", "--json"),
        env=environ(
            RUNLANE_TOOLS=",".join(said(folder)[0] for folder in FOLDERS),
            PYTHONPATH=os.pathsep.join(str(folder) for folder in FOLDERS),
        ),
        cwd=where,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert process.stdout is not None
        yield json.loads(await process.stdout.readline())["temporal"]
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
