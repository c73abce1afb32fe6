"""What `runlane up` says to people, and that it can be typed as it stands."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.e2e.test_up import END_SECONDS, RUNLANE, clean

TOOL = '''import runlane


@runlane.tool(policy="approve")
def refund(order_id: str) -> str:
    """Pay an order back."""
    return "paid"
'''

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.mark.parametrize(
    ("tools", "then"),
    [({}, "runlane submit"), ({"RUNLANE_TOOLS": "desk"}, "runlane approval show")],
)
def test_people_read_what_to_type_next(tools: dict[str, str], then: str, tmp_path: Path) -> None:
    """Without --json: what is where, and the commands that bring a run to where it asks.

    Typed as they stand, in another terminal, they end with a run that waits for an answer; with
    tools, for a person.
    """
    (tmp_path / "desk.py").write_text(TOOL)
    data_dir = tmp_path / "data"
    process = subprocess.Popen(
        [
            *(RUNLANE, "up", "--simulate", "--temporal-port", "0", "--ui-port", "0"),
            *("--data-dir", str(data_dir)),
        ],
        env=clean(**tools),
        cwd=tmp_path,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    lines: list[str] = []
    while "runlane create" not in "".join(lines) or lines[-1].strip():
        line = process.stdout.readline()
        assert line, "it ended"
        lines.append(line)
    text = "".join(lines)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    typed = subprocess.run(
        ["sh", "-c", text.partition("In another terminal:\n")[2]],
        env=clean(PATH=f"{RUNLANE.parent}{os.pathsep}{os.environ['PATH']}"),
        cwd=elsewhere,
        text=True,
        capture_output=True,
        timeout=END_SECONDS,
        check=False,
    )
    process.terminate()
    rest, words = process.communicate(timeout=END_SECONDS)

    assert 0 == process.returncode
    assert "simulated" in text
    assert 1 == len(re.findall(r"--thread thread_[0-9a-f]{4} ", text))
    [api] = re.findall(r"API +(http://127\.0\.0\.1:\d+/v1)\n", text)
    assert f"  export OPENAI_BASE_URL={api}\n" in text
    assert str(data_dir) in text
    assert "http://127.0.0.1:" in text
    assert "export TEMPORAL_ADDRESS=127.0.0.1:" in text
    assert "Starting Temporal" in words
    assert "\x1b" not in text + rest + words
    assert 4 == typed.returncode, typed.stderr
    assert then in typed.stdout
