"""The page on the API shows a program; it runs as it stands there, and prints what is shown."""

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from tests.processes import Plant

_PAGE = Path(__file__).parents[2] / "docs" / "api.md"
_PROGRAM = re.compile(
    r"^```python\n(?P<program>.*?)^```\n\n^```\n(?P<printed>.*?)^```$", re.MULTILINE | re.DOTALL
)


@pytest.mark.slow
async def test_the_program_on_the_page_runs_as_it_stands(plant: Plant, tmp_path: Path) -> None:
    """The official SDK drives a run through the API, answers its call and reads the message."""
    shown, _ = _PROGRAM.finditer(_PAGE.read_text(encoding="utf-8"))
    await _prints(shown, plant, tmp_path)


@pytest.mark.slow
async def test_the_batch_on_the_page_runs_as_it_stands(plant: Plant, tmp_path: Path) -> None:
    """The official SDK uploads a file, has it run, and reads the results."""
    _, shown = _PROGRAM.finditer(_PAGE.read_text(encoding="utf-8"))
    await _prints(shown, plant, tmp_path)


async def _prints(shown: re.Match[str], plant: Plant, tmp_path: Path) -> None:
    await plant.worker()
    api = await plant.api()
    file = tmp_path / "ask.py"
    file.write_text(shown["program"], encoding="utf-8")

    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "ignore::DeprecationWarning", str(file)),
        cwd=tmp_path,
        env=os.environ | {"OPENAI_BASE_URL": api.url, "OPENAI_API_KEY": "none"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        printed, told = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()

    assert (0, b"") == (process.returncode, told)
    assert shown["printed"] == printed.decode()
