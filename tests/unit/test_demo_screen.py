"""The demonstration's question to whoever sits at the terminal."""

import asyncio
import os
import sys
from collections.abc import Iterator

import pytest

from runlane.demo.screen import Screen


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A terminal to type at, as this process's standard input."""
    ours, theirs = os.openpty()
    with os.fdopen(theirs) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        yield ours
    os.close(ours)


@pytest.mark.parametrize(
    ("typed", "word"), [("y\n", True), ("No\n", False), ("perhaps\nyes\n", True), ("\x04", None)]
)
async def test_the_answer_is_what_is_typed(keyboard: int, typed: str, word: bool | None) -> None:
    """Yes, no, again after anything else; the end of input is no answer."""
    os.write(keyboard, typed.encode())

    assert word is await asyncio.wait_for(Screen().ask("Pay?", seconds=30), 30)


async def test_silence_is_no_answer(keyboard: int) -> None:
    """It isn't waited for longer than said, and what is read afterwards isn't lost."""
    assert await Screen().ask("Pay?", seconds=0.1) is None
    os.write(keyboard, b"y\n")
    assert await Screen().ask("Pay?", seconds=30) is True
