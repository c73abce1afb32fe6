"""A worker dies after a person has approved a call, and before its tool runs."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

from ledger import Ledger, Location
from ledger.stops import Scope, Stop
from tests.clerk import Clerk, counted, waiting
from tests.processes import Plant


async def test_an_approved_call_outlives_the_worker(
    plant: Plant, data_dir: Path, tmp_path: Path
) -> None:
    """What was decided stands: another worker runs it, once, and nobody is asked again."""
    clerk, journal = Clerk(), tmp_path / "journal"
    keys = tmp_path / "decision.pub"
    keys.write_text(clerk.public_pem)
    environ = {
        "RUNLANE_TOOLS": "tests.till_tools",
        "RUNLANE_DECISION_PUBLIC_KEYS": str(keys),
        "TILL_JOURNAL": str(journal),
    }
    calls = [{"name": "pay", "arguments": {"order_id": "A-1"}}]
    await plant.lab.scenario(rounds=[{"calls": calls}, {"says": "Done."}])
    worker = await plant.worker(**environ)
    run = await plant.lab.start(with_tools=True)
    await waiting(run)
    async with await Ledger.open(Location.in_directory(data_dir)) as ledger:
        # So that it dies between the two.
        stop = Stop(
            scope=Scope.RUN, target=run.id, by="ann", reason="a test", since=datetime.now(UTC)
        )
        await ledger.stops.stop(stop)
        assert await clerk.decide("approve", run) == "recorded"
        await counted(run)
        await run.until(lambda view: [c.state for c in view.runlane.pending] == ["running"])
        await worker.kill()
        await ledger.stops.resume(Scope.RUN, run.id)
    assert not await asyncio.to_thread(journal.exists)
    await plant.worker(**environ)

    result = await run.result()

    assert result.run.status == "completed"
    assert await asyncio.to_thread(journal.read_text) == "A-1\n"
    assert [each.state for each in result.runlane.decisions] == ["counted"]
    assert await plant.lab.accepted("runs.submit_tool_outputs") == 1
