"""Blocked runs and orphans on the command line: what is printed, and what is done."""

import pytest

from tests.e2e.test_cli import Shell, bare, shell
from tests.lab import eventually
from workflows.contract import Timing

__all__ = ["bare", "shell"]

ENDLESS = {"queued": 0.0, "ends": "never"}
DONE = {"queued": 0.0, "in_progress": 0.0, "says": "Done."}
RARELY = Timing(blocked_floor=3600.0)

pytestmark = pytest.mark.slow


async def test_blocked_runs_are_listed_nudged_and_told_by_the_doctor(shell: Shell) -> None:
    """Kind, since when, message and remedy; then one command wakes them all."""
    lab = shell.plant.lab
    await lab.scenario(rounds=[DONE])
    await lab.fault("runs.retrieve", "quota")
    run = await lab.start(timing=RARELY)
    await run.until(lambda view: view.runlane.blocked is not None)

    async def listed() -> str:
        return (await shell("list", "--blocked", "--kind", "quota", code=0)).out

    out = await eventually(listed, lambda text: run.id in text)
    doctor = await shell("doctor", code=1)
    nothing = await shell("nudge", code=2)
    nudged = await shell("nudge", "--blocked", "--kind", "quota", "--json", code=0)
    result = await run.result()
    nobody = await shell("list", "--blocked", "--thread", lab.thread_id, code=0)

    (at,) = [at for at, line in enumerate(out.splitlines()) if line.startswith(run.id)]
    row, cause, *_ = out.splitlines()[at:]
    assert "quota" in row
    assert cause.startswith("  The upstream answered 429: You exceeded your current quota")
    assert "quota: Raise the upstream account's quota" in out
    assert out.count("Raise the upstream account's quota") == 1
    assert "\nrunlane nudge --blocked --kind quota\n" in out
    assert max(len(line) for line in out.splitlines()) <= 100
    assert "by quota" in doctor.out
    assert "runlane nudge --blocked --kind quota" in doctor.out
    assert "--blocked" in nothing.err
    assert nudged.document["runs"] >= 1
    assert result.run.status == "completed"
    assert "No run is blocked." in nobody.out


async def test_orphans_are_cancelled_only_when_somebody_says_so(shell: Shell) -> None:
    """Found by `doctor`, done by `--fix`, which asks; where nobody can answer it wants `--yes`."""
    lab = shell.plant.lab
    await lab.scenario(rounds=[ENDLESS])
    run = await lab.start()
    view = await run.until(lambda view: view.runlane.upstream_run_id is not None)
    upstream_run_id = str(view.runlane.upstream_run_id)
    await run.handle.terminate("by hand")

    async def checked() -> str:
        return (await shell("doctor", code=1)).out

    out = await eventually(checked, lambda text: upstream_run_id in text)
    unasked = await shell("doctor", "--fix", code=2)
    assert await lab.received("runs.cancel") == 0
    # Other tests of this server may have left runs, too.
    fixed = (await shell("doctor", "--fix", "--yes", "--json")).document["fixed"]
    again = (await shell("doctor", "--json")).out

    assert f"{run.id} was terminated in Temporal" in out
    assert "--yes" in unasked.err
    (ours,) = [entry for entry in fixed if run.id in entry["what"]]
    assert ours["error"] is None
    assert ours["result"] in ("cancelling", "cancelled")
    assert await lab.accepted("runs.cancel") == 1
    assert upstream_run_id not in again


async def test_a_prune_that_nobody_confirms_deletes_nothing(bare: Shell) -> None:
    """It asks first; without a terminal it wants `--yes`."""
    refused = await bare("prune", code=2)
    pruned = await bare("prune", "--yes", "--json", code=0)

    assert "--yes" in refused.err
    assert pruned.document["object"] == "prune"
