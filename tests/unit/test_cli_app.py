"""The command line's frame: names, misuse, and what is printed where."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import runlane
from runlane.cli.app import run

COMMANDS = [
    *("up", "worker", "simulate", "doctor", "prune", "demo", "completion"),
    *("create", "retrieve", "view", "list", "update", "cancel", "poll", "submit", "steps", "nudge"),
    *("stop", "resume", "stops", "approval", "tool", "audit", "erase", "batch"),
]


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """The names are those that scripts rely on."""
    assert 0 == run(["--help"])

    words = capsys.readouterr().out.split()
    assert [] == [name for name in COMMANDS if name not in words]


def test_without_a_command_there_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever types the name alone wants to know what there is, without sentences cut short."""
    assert 0 == run([])

    said = capsys.readouterr()
    assert "Start a run." in said.out
    assert "..." not in said.out.split("Commands:")[1]
    assert "" == said.err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` works everywhere, and says something."""
    assert 0 == run([name, "--help"])

    said = capsys.readouterr().out
    assert f"runlane {name}" in said
    assert "[[" not in said


def test_the_version_is_the_installed_one(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` needs nothing but the package's own metadata."""
    assert 0 == run(["--version"])

    assert f"runlane {runlane.__version__}\n" == capsys.readouterr().out


def test_asking_for_the_version_loads_no_client() -> None:
    """Temporal's client takes half a second to load; `--version` and `--help` do without."""
    code = (
        "import sys; from runlane.cli.app import run; run(['--version']); "
        "sys.exit('temporalio' in sys.modules or 'httpx' in sys.modules)"
    )

    assert 0 == subprocess.run([sys.executable, "-c", code], check=False).returncode


def test_what_is_wrong_is_said_in_words_that_were_typed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """No model's name, no option left to guess, and one full stop or question mark."""
    file = tmp_path / "run.json"
    file.write_text('{"assistant_id": "a", "toolz": []}')

    assert 2 == run(["create", "--thread", "t", "--params", str(file), "--dry-run"])
    assert "Error: toolz is not a parameter of create.\n" == capsys.readouterr().err
    assert 2 == run(["create", "--thread", "t"])
    assert "--assistant ID" in capsys.readouterr().err
    assert 2 == run(["polll"])
    assert "Did you mean 'poll'?\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    "args",
    [
        ["frobnicate"],
        ["retrieve"],
        ["retrieve", "run_1", "--nope"],
        ["create", "--assistant", "a"],
        ["create", "--thread", "t", "--dry-run"],
        ["create", "--thread", "t", "--assistant", "a", "--deadline", "soon", "--dry-run"],
        ["list", "--limit", "many"],
        ["submit", "run_1"],
        ["update", "run_1"],
        ["completion", "tcsh"],
        ["tool"],
        ["tool", "list", "--nope"],
        ["create", "--thread", "t", "--assistant", "a", "--with-tools", "--dry-run"],
    ],
)
def test_misuse_is_bad_input(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2, a sentence on standard error, and with `--json` a document."""
    assert 2 == run(args)
    plain = capsys.readouterr()
    assert 2 == run([*args, "--json"])
    as_json = capsys.readouterr()

    assert "" == plain.out
    assert "Error: " in plain.err
    error = json.loads(as_json.out)["error"]
    assert {"message", "type", "param", "code"} == set(error)
    assert "invalid_request_error" == error["type"]


def test_a_dry_run_prints_what_would_be_sent(capsys: pytest.CaptureFixture[str]) -> None:
    """Everything is checked and nothing leaves: no server is needed."""
    args = ["create", "--thread", "t", "--assistant", "a", "--deadline", "1h"]

    assert 0 == run([*args, "--idempotency-key", "k", "--dry-run"])

    said = json.loads(capsys.readouterr().out)
    assert ("t", {"assistant_id": "a"}) == (said["thread_id"], said["params"])
    assert 3600 == said["options"]["deadline"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("runlane re", ["resume", "retrieve"]),
        ("runlane s", ["schedule", "simulate", "steps", "stop", "stops", "submit"]),
    ],
)
def test_completion_completes(line: str, words: list[str]) -> None:
    """What the script asks for is answered."""
    program = Path(sys.executable).with_name("runlane")
    asked = {"_RUNLANE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": "1"}

    said = subprocess.run(
        [program], env=os.environ | asked, capture_output=True, text=True, check=True
    )

    assert words == sorted(said.stdout.split())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It names the program it completes."""
    assert 0 == run(["completion", shell])

    assert "_RUNLANE_COMPLETE" in capsys.readouterr().out


def test_a_failure_that_nobody_reads_has_its_exit_code() -> None:
    """`runlane poll --json | head` that fails, or is interrupted, after `head` has ended."""
    code = (
        "import os, sys; from runlane.cli.app import run; "
        "reader, writer = os.pipe(); os.close(reader); os.dup2(writer, 1); "
        "os._exit(run(['submit', 'run_1', '--json']))"
    )

    ended = subprocess.run(
        [sys.executable, "-u", "-c", code], capture_output=True, text=True, check=False, timeout=60
    )

    assert "Traceback" not in ended.stderr
    assert 2 == ended.returncode
