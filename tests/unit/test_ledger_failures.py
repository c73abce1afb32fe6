"""A ledger whose server stops, freezes or comes back, and a writer that is killed."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio

from ledger import Ledger, LedgerUnavailable, Location
from ledger.chain import Event, Kind
from ledger.contents import digest_of
from ledger.intent import Begin, Execution, IntentKey, State
from ledger.signing import Signer
from ledger.verifying import verify
from tests.postgres_server import PostgresServer

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
KEY = IntentKey(run_id="run_A", tool="pay", arguments_digest=digest_of("{}"), ordinal=0)
EXECUTION = Execution(id="e1", attempt=1, nonce="n1")
EVENT = Event(key="e", kind=Kind.EXECUTION, at=datetime.now(UTC))
WRITER = """
import asyncio, sys
from datetime import UTC, datetime
from ledger import Ledger, Location
from ledger.chain import Event, Kind
from ledger.contents import digest_of
from ledger.intent import Execution, IntentKey
from sqlalchemy import make_url

async def main():
    ledger = await Ledger.open(Location(make_url(sys.argv[1])))
    for n in range(100_000):
        key = IntentKey(run_id="run_A", tool="pay", arguments_digest=digest_of("{}"), ordinal=n)
        event = Event(key=str(n), kind=Kind.EXECUTION, at=datetime.now(UTC))
        await ledger.intents.begin(
            key, call_id="c", execution=Execution(id=str(n), attempt=1, nonce="x"), events=[event]
        )
        print(n, flush=True)

asyncio.run(main())
"""


@pytest_asyncio.fixture
async def own_server() -> AsyncIterator[PostgresServer]:
    """A PostgreSQL that the test may stop."""
    server = await asyncio.to_thread(PostgresServer)
    try:
        await asyncio.to_thread(server.start)
        yield server
    finally:
        await asyncio.to_thread(server.remove)


async def finish(ledger: Ledger) -> State:
    """Finish the one call of these tests."""
    stands = await ledger.intents.finish(
        KEY, call_id="c", execution=EXECUTION, outcome="answered", result="a secret"
    )
    return stands.state


async def test_a_server_that_goes_and_comes_back(own_server: PostgresServer) -> None:
    """Meanwhile there is one error, with nobody's contents; afterwards nothing is lost or twice."""
    async with await Ledger.open(Location.from_url(own_server.url)) as ledger:
        await ledger.intents.begin(KEY, call_id="c", execution=EXECUTION)
        await asyncio.to_thread(own_server.stop)
        for _ in range(2):
            with pytest.raises(LedgerUnavailable, match="can't be used now") as caught:
                await finish(ledger)
            assert "secret" not in str(caught.value)
        await asyncio.to_thread(own_server.start)

        assert State.FINISHED is await finish(ledger)
        how, _ = await ledger.intents.begin(KEY, call_id="c", execution=EXECUTION)
        assert Begin.FINISHED is how


async def test_a_server_that_freezes(
    own_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is given up after a while, and its connection with it; once it goes on, so do we."""
    async with await Ledger.open(Location.from_url(own_server.url)) as ledger:
        await ledger.intents.begin(KEY, call_id="c", execution=EXECUTION)
        children = await asyncio.to_thread(own_server.processes)
        monkeypatch.setattr("ledger.postgres.WAIT_SECONDS", 1.0)
        for process in children:
            process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(LedgerUnavailable, match="can't be used now"):
                await asyncio.wait_for(finish(ledger), 60)
        finally:
            for process in children:
                process.send_signal(signal.SIGCONT)
        monkeypatch.undo()

        assert State.FINISHED is await finish(ledger)


async def test_a_writer_that_is_killed(location: Location) -> None:
    """What it was told is written is there, once, in an unbroken chain; the next one goes on."""
    async with await Ledger.open(location) as ledger:
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, location.url.render_as_string(hide_password=False)],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            for _ in range(20):
                await asyncio.to_thread(process.stdout.readline)
            process.kill()
            rest = await asyncio.to_thread(process.stdout.read)
        told = 20 + rest.count("\n")

        # The one whose answer was under way may be there too.
        written = await ledger.intents.of_run("run_A")
        assert len(written) in (told, told + 1)
        rows = await ledger.audit.read("run_A")
        assert [str(n) for n in range(len(written))] == [json.loads(r.body)["key"] for r in rows]
        await ledger.audit.append("run_A", [EVENT])
        lines: list[str] = []
        signer = Signer.generate()
        await ledger.export(lines.append, signer)
        assert None is verify(lines, signer.public).problem
