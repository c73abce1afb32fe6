"""`runlane demo`: what it shows is true, it ends by itself, and it leaves nothing running."""

import fcntl
import json
import os
import re
import secrets
import signal
import subprocess
import sysconfig
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

RUNLANE = Path(sysconfig.get_path("scripts")) / "runlane"
MARK = "DEMO_UNDER_TEST"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class Played(NamedTuple):
    """A demonstration that was let to its end."""

    output: str
    words: str
    status: int
    seconds: float
    left: list[int]
    where: Path


def environ(mark: str, **more: str) -> dict[str, str]:
    """Return an environment by which every descendant can be found."""
    ours = ("RUNLANE_", "TEMPORAL_")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    return kept | {MARK: mark} | more


def marked(mark: str) -> list[int]:
    """Return the processes that have the mark in their environment."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and wanted in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except (OSError, ProcessLookupError):
            continue
    return found


def wait_until_gone(mark: str, seconds: float = 5.0) -> list[int]:
    """Return the marked processes that are left after a while, at once when there are none."""
    deadline = time.monotonic() + seconds
    while (left := marked(mark)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """One demonstration, shared by all processes of this test run."""
    base = tmp_path_factory.getbasetemp()
    where = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "demonstration"
    where.mkdir(exist_ok=True)
    record = where / "played.json"
    with (where / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not record.exists():
            record.write_text(json.dumps(play(where)))
        return Played(**json.loads(record.read_text()), where=where)


def play(where: Path) -> dict[str, Any]:
    """Run it without a terminal, and with settings that are none of its business."""
    mark = secrets.token_hex(8)
    began = time.monotonic()
    done = subprocess.run(
        [RUNLANE, "demo"],
        env=environ(
            mark,
            RUNLANE_UPSTREAM_URL="https://real.example/v1",
            RUNLANE_UPSTREAM_API_KEY="secret",
            RUNLANE_DATA_DIR=str(where / "elsewhere"),
            TEMPORAL_ADDRESS="127.0.0.1:9",
        ),
        cwd=where,
        text=True,
        capture_output=True,
        timeout=260,
        check=False,
    )
    return {
        "output": done.stdout,
        "words": done.stderr,
        "status": done.returncode,
        "seconds": time.monotonic() - began,
        "left": marked(mark),
    }


def run_ids(played: Played) -> list[str]:
    """Return the runs, in the order they were made."""
    return re.findall(r"^(run_\w+)  queued$", played.output, re.MULTILINE)


def test_it_ends_well_and_leaves_nothing(played: Played) -> None:
    """Exit code 0, in about a minute at most, nothing on stderr, and no process left."""
    assert (0, "") == (played.status, played.words), played.output
    assert [] == played.left
    # Under a minute on a machine of its own; tests run beside each other.
    assert played.seconds < 200


def test_it_is_plain_text_in_a_pipe(played: Played) -> None:
    """Without a terminal there is no colour, no cursor and no trailing blank."""
    assert "\x1b" not in played.output
    assert "\r" not in played.output
    assert [] == [line for line in played.output.splitlines() if line != line.rstrip()]


def test_it_tells_a_duplicate_from_an_answer(played: Played) -> None:
    """The same command twice: accepted, then duplicate."""
    commands = re.findall(r"^\$ (runlane submit .*)$", played.output, re.MULTILINE)
    receipts = re.findall(r"^call_\w+  (\w+)", played.output, re.MULTILINE)

    assert ["accepted", "duplicate", "accepted"] == receipts
    assert commands[0] == commands[1]


def test_it_kills_a_worker_between_create_and_its_answer(played: Played) -> None:
    """The second run goes on with another worker, after a wait in which nobody answered."""
    killed = re.search(r"^\$ kill -9 (\d+)$", played.output, re.MULTILINE)
    replaced = re.search(r"Here it is: pid (\d+)\.$", played.output, re.MULTILINE)

    assert killed is not None
    assert replaced is not None
    assert killed[1] != replaced[1]
    between = played.output[killed.end() : replaced.start()]
    assert "No worker has answered" in between
    assert "requires_action" not in between
    assert "requires_action" in played.output[replaced.end() :]


def test_the_table_counts_each_effect_once(played: Played) -> None:
    """All runs are completed, with one create and one submit received by the upstream."""
    rows = re.findall(
        r"^(run_\w+)  completed  1 create, 1 submit +(\d+) +(\d+) kB$",
        played.output,
        re.MULTILINE,
    )

    assert 3 == len(rows)
    assert run_ids(played) == [row[0] for row in rows]
    assert all(0 < int(events) <= 90 and int(size) > 0 for _, events, size in rows)


def test_a_refund_needs_a_yes_and_is_paid_once(played: Played) -> None:
    """The demonstration says that it decided; the worker dies once the shop has paid."""
    shown = played.output.index("$ runlane approval show call_")
    decided = played.output.index("so the demonstration decides: yes.")
    approved = played.output.index("$ runlane approval approve call_")
    killed = played.output.rindex("$ kill -9 ")

    assert shown < decided < approved < killed
    assert "over 100 euros" in played.output[shown:decided]
    paid = re.search(r"asked (\d+) times, under one key, and paid 250 euros once", played.output)
    assert paid is not None
    assert int(paid[1]) > 1


def test_it_says_what_was_simulated_and_how_to_go_on(played: Played) -> None:
    """The upstream is simulated; UI, these runs and an upstream of one's own are named."""
    assert "upstream is simulated" in played.output
    assert re.search(
        r"Temporal's UI, until this ends:  http://127\.0\.0\.1:\d+$", played.output, re.M
    )
    assert "runlane up --simulate --data-dir .runlane/demo" in played.output
    assert "RUNLANE_UPSTREAM_URL" in played.output
    assert not (played.where / "elsewhere").exists()


def test_its_runs_can_be_looked_at_again(played: Played) -> None:
    """The command it names shows both runs as they ended, and their steps upstream."""
    mark = secrets.token_hex(8)
    up = subprocess.Popen(
        [
            *(RUNLANE, "up", "--simulate", "--data-dir", ".runlane/demo"),
            *("--temporal-port", "0", "--json"),
        ],
        env=environ(mark),
        cwd=played.where,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert up.stdout is not None
        document = json.loads(up.stdout.readline())
        for run_id in run_ids(played)[:2]:
            shown = subprocess.run(
                [RUNLANE, "retrieve", run_id, "--json"],
                env=environ(mark, TEMPORAL_ADDRESS=document["temporal"]),
                cwd="/",
                text=True,
                capture_output=True,
                timeout=60,
                check=False,
            )
            assert "completed" == json.loads(shown.stdout)["status"], shown.stderr
            steps = subprocess.run(
                [RUNLANE, "steps", run_id],
                env=environ(mark, TEMPORAL_ADDRESS=document["temporal"]),
                cwd="/",
                text=True,
                capture_output=True,
                timeout=60,
                check=False,
            )
            assert "lookup_order" in steps.stdout, steps.stderr
    finally:
        up.terminate()
        up.communicate(timeout=30)
    assert [] == marked(mark)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -9)]
)
def test_it_leaves_nothing_when_it_is_ended(tmp_path: Path, number: int, status: int) -> None:
    """Ctrl-C, SIGTERM or SIGKILL in the middle of a command: no process is left."""
    mark = secrets.token_hex(8)
    demo = subprocess.Popen(
        [RUNLANE, "demo"], env=environ(mark), cwd=tmp_path, text=True, stdout=subprocess.PIPE
    )
    assert demo.stdout is not None
    for line in demo.stdout:
        if line.startswith("$ runlane poll"):
            break
    assert len(marked(mark)) >= 4

    demo.send_signal(number)
    demo.communicate(timeout=60)

    assert status == demo.returncode
    assert [] == wait_until_gone(mark)


def test_what_goes_otherwise_than_told_is_an_error(tmp_path: Path) -> None:
    """A command that fails ends the demonstration with 1 and its name, and nothing is left."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nif 'submit' in sys.orig_argv: os._exit(5)\n"
    )
    mark = secrets.token_hex(8)
    done = subprocess.run(
        [RUNLANE, "demo"],
        env=environ(mark, PYTHONPATH=str(tmp_path)),
        cwd=tmp_path,
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )

    assert 1 == done.returncode
    assert "`runlane submit` ended with 5, not 0." in done.stderr
    assert "completed" not in done.stdout
    assert [] == wait_until_gone(mark)
