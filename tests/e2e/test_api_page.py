"""The page on the API shows a program; it runs as it stands there, and prints what is shown."""

import asyncio
import json
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


_SHELL = re.compile(r"^### curl\n\n```\n(?P<commands>.*?)^```$", re.MULTILINE | re.DOTALL)


async def _typed(command: str, environ: dict[str, str]) -> str:
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", command), env=os.environ | environ, stdout=asyncio.subprocess.PIPE
    )
    try:
        printed, _ = await asyncio.wait_for(process.communicate(), 60)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert 0 == process.returncode, command
    return printed.decode()


@pytest.mark.slow
async def test_the_commands_on_the_page_can_be_typed_again(plant: Plant) -> None:
    """As they stand, with the ids of the answers before; and a second time as well."""
    shown = _SHELL.search(_PAGE.read_text(encoding="utf-8"))
    assert shown is not None
    make, create, look, submit, wait, read = shown["commands"].strip().split("\n\n")
    await plant.worker()
    api = await plant.api()

    said = []
    for _ in range(2):
        known = {"OPENAI_BASE_URL": api.url, "OPENAI_API_KEY": "none"}
        known["THREAD"] = json.loads(await _typed(make, known))["id"]
        created = await _typed(create, known)
        assert created.startswith("HTTP/1.1 200 OK")
        known["RUN"] = json.loads(created.splitlines()[-1])["id"]
        async with asyncio.timeout(30):
            while (run := json.loads(await _typed(look, known)))["status"] != "requires_action":
                await asyncio.sleep(0.1)
        [call] = run["required_action"]["submit_tool_outputs"]["tool_calls"]
        known["CALL"] = call["id"]
        await _typed(submit, known)
        await _typed(wait, known)
        [message] = json.loads(await _typed(read, known))["data"]
        said.append(message["content"][0]["text"]["value"])

    assert ["lookup_order: shipped"] * 2 == said


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
