"""Schedules from the shell, with a worker in a process of its own."""

import secrets
from datetime import datetime

import pytest

from tests.e2e.test_cli import Shell, bare, shell

__all__ = ["bare", "shell"]

NEVER = "0 0 31 2 *"
ENDLESS = {"queued": 0.0, "ends": "never"}
LAST = {"queued": 0.05, "in_progress": 0.05, "says": "Done."}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


async def test_a_schedule_is_steered_from_the_shell(shell: Shell) -> None:
    """Made, shown in its zone, paused, resumed, triggered, listed, deleted."""
    await shell.plant.lab.scenario(rounds=[LAST])
    name = f"nightly-{secrets.token_hex(4)}"
    assistant = ("--assistant", shell.plant.lab.assistant_id)
    at = ("--cron", "30 2 * * *", "--timezone", "Asia/Kathmandu", "--catchup-window", "6h")

    made = await shell("schedule", "create", name, *at, *assistant, code=0)
    again = await shell("schedule", "create", name, *at, *assistant, code=0)
    other = await shell("schedule", "create", name, "--cron", NEVER, *assistant, code=8)
    paused = await shell("schedule", "pause", name, "--reason", "holidays", code=0)
    triggered = await shell("schedule", "trigger", name, code=0)
    run_id = triggered.out.strip()
    ended = await shell("poll", run_id, code=0)
    resumed = await shell("schedule", "resume", name, "--json", code=0)
    listed = await shell("schedule", "list", code=0)
    await shell("schedule", "delete", name, code=0)
    gone = await shell("schedule", "show", name, code=6)

    assert f"{name}  active\n" in made.out
    assert "02:30:00+05:45; " in made.out
    assert "30 2 * * *  (Asia/Kathmandu)" in made.out
    assert "6h, 0 missed" in made.out
    assert made.out == again.out
    assert "another schedule" in other.err
    assert f"{name}  paused\n  reason" in paused.out
    assert "completed" in ended.out
    assert not resumed.document["paused"]
    assert [run_id] == [each["run_id"] for each in resumed.document["recent"]]
    moments = [datetime.fromtimestamp(each).astimezone() for each in resumed.document["next"]]
    assert sorted(moments) == moments
    assert name in listed.out
    assert f"There is no schedule '{name}'" in gone.err


async def test_a_trigger_that_is_skipped_says_so(shell: Shell) -> None:
    """Exit code 8, and nothing on standard output that could be taken for a run."""
    await shell.plant.lab.scenario(rounds=[ENDLESS])
    name = f"nightly-{secrets.token_hex(4)}"
    assistant = ("--assistant", shell.plant.lab.assistant_id)
    await shell("schedule", "create", name, "--cron", NEVER, *assistant, code=0)

    first = await shell("schedule", "trigger", name, code=0)
    second = await shell("schedule", "trigger", name, code=8)
    shown = await shell("schedule", "show", name, code=0)
    await shell("cancel", first.out.strip(), code=0)
    await shell("schedule", "delete", name, code=0)

    assert "" == second.out
    assert "an earlier run goes on" in second.err
    assert "skip, 1 skipped" in shown.out
    assert "never" in shown.out


async def test_what_cant_be_used_makes_no_schedule(bare: Shell) -> None:
    """Exit code 2, and the option at fault."""
    name = f"nightly-{secrets.token_hex(4)}"
    asked = ("schedule", "create", name, "--assistant", "asst_1")

    zone = await bare(*asked, "--cron", NEVER, "--timezone", "Mars/Olympus", code=2)
    cron = await bare(*asked, "--cron", "every night", code=2)
    overlap = await bare(*asked, "--cron", NEVER, "--overlap", "kill", "--json", code=2)
    await bare("schedule", "show", name, code=6)

    assert "no time zone 'Mars/Olympus'" in zone.err
    assert "Temporal refuses the schedule" in cron.err
    assert "--overlap" == overlap.document["error"]["param"]
