"""Schedules from the shell, with a worker in a process of its own."""

import json
import secrets
from datetime import datetime
from pathlib import Path

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
    assert 3 == made.out.count(" 02:30:00+05:45\n")
    assert 80 >= max(map(len, made.out.splitlines()))
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
    assert "an earlier one goes on" in second.err
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


def _input(directory: Path, assistant: str, lines: int = 2) -> Path:
    thread = {"messages": [{"role": "user", "content": "Where is my order?"}]}
    body = {"assistant_id": assistant, "thread": thread}
    path = directory / "in.jsonl"
    with path.open("w") as file:
        for number in range(lines):
            line = {"custom_id": f"t{number}", "method": "POST", "url": "/v1/threads/runs"}
            file.write(json.dumps({**line, "body": body}) + "\n")
    return path


async def test_batches_by_the_clock_from_the_shell(shell: Shell, tmp_path: Path) -> None:
    """Made, triggered, shown with its batches, whose results are to be had; deleted, they stay."""
    await shell.plant.lab.scenario(rounds=[LAST])
    source = _input(tmp_path, shell.plant.lab.assistant_id)
    name = f"nightly-{secrets.token_hex(4)}"
    asked = (
        *("schedule", "create", name, "--cron", NEVER, "--timezone", "Europe/Berlin"),
        *("--batch", str(source), "--deadline", "06:00", "--rpm", "6000", "--max-tokens", "9000"),
        *("--max-cost", "12.50", "--price-per-million-tokens", "2.50,10", "--with-messages"),
    )

    made = await shell(*asked, code=0)
    again = await shell(*asked, code=0)
    other = await shell(*asked, "--tries", "7", code=8)
    source.unlink()
    triggered = await shell("schedule", "trigger", name, "--json", code=0)
    batch = triggered.document["batch"]
    await shell("batch", "watch", batch, code=0)
    results = await shell("batch", "results", batch, code=0)
    listed = await shell("batch", "list", "--json", code=0)
    shown = await shell("schedule", "show", name, code=0)
    told = await shell("schedule", "show", name, "--json", code=0)
    all_of_them = await shell("schedule", "list", code=0)
    deleted = await shell("schedule", "delete", name, code=0)
    after = await shell("batch", "status", batch, code=0)

    assert "in.jsonl, 2 items" in made.out
    assert "64 in flight, 6,000 requests a minute, 3 tries, 9,000 tokens, cost 12.5" in made.out
    assert "06:00  (Europe/Berlin)" in made.out
    assert made.out == again.out
    assert "another schedule" in other.err
    assert all(json.loads(line)["runlane"]["messages"] for line in results.out.splitlines())
    assert ("12.50", "2.50,10") == (
        told.document["batch"]["cost_limit"], told.document["batch"]["options"]["prices"]
    )  # fmt: skip
    assert batch.startswith(f"{name}-20")
    assert {"t0", "t1"} == {json.loads(line)["custom_id"] for line in results.out.splitlines()}
    assert batch in {each["runlane"]["name"] for each in listed.document["data"]}
    [begun] = told.document["batches"]
    assert f"{batch}  completed  {begun['id']}" in shown.out
    assert ("batches", None) == (told.document["begins"], told.document["input_goes_at"])
    assert "batches" in next(line for line in all_of_them.out.splitlines() if name in line)
    assert "Its batches stay" in deleted.err
    assert "completed" in after.out


async def test_a_deleted_schedule_names_the_batches_that_go_on(
    shell: Shell, tmp_path: Path
) -> None:
    """A trigger that is skipped says so, and what goes on is told when the schedule goes."""
    await shell.plant.lab.scenario(rounds=[ENDLESS])
    source = _input(tmp_path, shell.plant.lab.assistant_id)
    name = f"nightly-{secrets.token_hex(4)}"
    await shell("schedule", "create", name, "--cron", NEVER, "--batch", str(source), code=0)
    batch = (await shell("schedule", "trigger", name, code=0)).out.strip()
    skipped = await shell("schedule", "trigger", name, code=8)
    deleted = await shell("schedule", "delete", name, "--json", code=0)
    await shell("batch", "cancel", batch, code=0)
    await shell("batch", "watch", batch, code=3)

    assert "an earlier one goes on" in skipped.err
    assert [batch] == deleted.document["going_on"]


async def test_what_cant_be_a_schedule_of_batches(bare: Shell, tmp_path: Path) -> None:
    """Bad lines are told as by `batch run`; options of the other kind are refused by name."""
    source = _input(tmp_path, "asst_1")
    made = ("schedule", "create", f"nightly-{secrets.token_hex(4)}", "--cron", NEVER)
    of_batch = (*made, "--batch", str(source))
    for options in (
        ("--assistant", "asst_1"),
        ("--max-rounds", "7"),
        ("--deadline", "2h"),
        ("--rpm", "0"),
        ("--tries", "0"),
        ("--max-in-flight", "0"),
        ("--max-tokens", "0"),
        ("--max-cost", "5"),
        ("--price-per-million-tokens", "1"),
        ("--overlap", "kill"),
    ):
        refused = await bare(*of_batch, *options, "--json", code=2)
        assert options[0] == refused.document["error"]["param"]
    alone = await bare(*made, "--assistant", "asst_1", "--rpm", "60", "--json", code=2)
    source.write_text(source.read_text() + "{nothing\n")
    bad = await bare(*of_batch, code=2)
    absent = await bare(*made, "--batch", str(tmp_path / "absent.jsonl"), code=2)

    assert "--rpm" == alone.document["error"]["param"]
    assert "line 3: It is not JSON" in bad.err
    assert "nothing was sent" in bad.err
    assert "No such file" in absent.err
