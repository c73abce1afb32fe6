"""A worker dies while it runs tools."""

import asyncio
from pathlib import Path

from tests.lab import eventually
from tests.processes import Plant
from tests.shop_tools import done

TOOLS = ("look_up", "refund", "charge")


async def test_what_a_dead_worker_ran(plant: Plant, tmp_path: Path) -> None:
    """Another one runs it again with the same key; only of `at_most_once` a person must say.

    Tools that block hold up nothing else on their worker.
    """
    journal = tmp_path / "journal"
    environ = {"RUNLANE_TOOLS": "tests.shop_tools", "SHOP_JOURNAL": str(journal)}
    labs = {name: plant.another_lab() for name in TOOLS}
    for name, lab in labs.items():
        calls = [{"name": name, "arguments": {"order_id": "A-1"}}]
        await lab.scenario(rounds=[{"calls": calls}, {"says": "Done."}])
    other = plant.another_lab()
    await other.scenario(rounds=[{"says": "Done."}])
    first = await plant.worker(**environ)
    runs = {name: await lab.start(with_tools=True) for name, lab in labs.items()}

    async def journalled() -> list[tuple[str, str, str]]:
        return await asyncio.to_thread(done, journal)

    await eventually(journalled, lambda lines: len(lines) == len(TOOLS))
    assert "completed" == (await (await other.start()).result()).run.status
    await plant.worker(**environ)

    await first.kill()
    results = {name: await runs[name].result() for name in ("look_up", "refund")}
    view = await runs["charge"].until(lambda view: bool(view.runlane.pending))
    lines = await journalled()
    await runs["charge"].cancel()

    for name, result in results.items():
        assert "completed" == result.run.status
        assert [f"tool:{name}"] == [answer.by for answer in result.runlane.answers]
        assert 1 == await labs[name].accepted("runs.submit_tool_outputs")
        assert 1 == len({line for line in lines if line[0] == name})
    assert {"look_up": 2, "refund": 2, "charge": 1} == {
        name: sum(line[0] == name for line in lines) for name in TOOLS
    }
    (charge,) = view.runlane.pending
    assert ("people", "uncertain") == (charge.handled_by, charge.state)
    assert "its worker ended while it ran" == charge.reason
