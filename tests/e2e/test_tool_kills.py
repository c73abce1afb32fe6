"""A worker dies while it runs a tool."""

import asyncio
from pathlib import Path

from tests.lab import eventually
from tests.processes import Plant


async def test_a_tool_that_only_reads_is_run_again_by_another_worker(
    plant: Plant, tmp_path: Path
) -> None:
    """The call is answered once, whoever ran its tool; a blocking one holds nothing else up."""
    journal = tmp_path / "journal"
    environ = {"RUNLANE_TOOLS": "tests.shop_tools", "SHOP_JOURNAL": str(journal)}
    lab, other = plant.lab, plant.another_lab()
    calls = [{"name": "look_up", "arguments": {"order_id": "A-1"}}]
    await lab.scenario(rounds=[{"calls": calls}, {"says": "Done."}])
    await other.scenario(rounds=[{"says": "Done."}])
    first = await plant.worker(**environ)
    run = await lab.start(with_tools=True)
    await eventually(lambda: asyncio.to_thread(journal.exists), bool)
    assert "completed" == (await (await other.start()).result()).run.status
    await plant.worker(**environ)

    await first.kill()
    result = await run.result()

    assert "completed" == result.run.status
    assert ["A-1", "A-1"] == journal.read_text().split()
    assert ["tool:look_up"] == [answer.by for answer in result.runlane.answers]
    assert 1 == await lab.accepted("runs.submit_tool_outputs")
