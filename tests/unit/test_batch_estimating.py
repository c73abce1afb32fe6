"""An estimate counts what stands in the lines, and says what it doesn't count."""

from decimal import Decimal
from typing import Any

import pytest

from runlane.batches.checked_line import CheckedLine
from runlane.batches.estimating import Estimate, read_prices
from runlane.errors import InvalidRequest


def counted(*bodies: dict[str, Any]) -> Estimate:
    """Return the estimate of lines with these bodies."""
    estimate = Estimate()
    for body in bodies:
        estimate.count(CheckedLine(1, "a", None, {"assistant_id": "a"} | body, "sha256:"))
    return estimate


def test_four_characters_are_a_token_wherever_a_text_stands() -> None:
    """Instructions and messages count, those of a new thread too; pictures don't."""
    picture = {"type": "image_file", "image_file": {"file_id": "file_1"}}
    parts = [{"type": "text", "text": "d" * 40}, picture]

    found = counted(
        {
            "instructions": "a" * 40,
            "additional_instructions": "b" * 40,
            "additional_messages": [{"role": "user", "content": "c" * 40}],
            "thread": {"messages": [{"role": "user", "content": parts}]},
        },
        {"instructions": None, "thread": None},
        {"instructions": "abcde"},
    )

    assert (3, 3, 42) == (found.lines, found.new_threads, found.prompt_tokens)


def test_tools_count_as_they_are_sent() -> None:
    """A model reads the schemas of the functions that it may call."""
    tool = {"type": "function", "function": {"name": "look", "description": "x" * 400}}

    assert counted({"tools": [tool]}).prompt_tokens > 100


def test_what_will_be_written_is_its_limit_or_unknown() -> None:
    """Nobody can tell what a model writes; where a line has a limit that is the most."""
    found = counted({"max_completion_tokens": 300}, {"max_completion_tokens": None}, {})

    assert (300, 2) == (found.completion_tokens, found.without_limit)


def test_money_is_exact() -> None:
    """Prices are decimal numbers, and so is what comes of them."""
    found = counted({"instructions": "x" * 4_000_000, "max_completion_tokens": 500_000})

    assert Decimal("7.50") == found.money(read_prices("2.50, 10", "--price"))


@pytest.mark.parametrize("text", ["", "1", "1,2,3", "a,b", "-1,2", "nan,1", "1,inf", "1,1000001"])
def test_what_is_no_price_is_refused(text: str) -> None:
    """The option is named, and an example given."""
    with pytest.raises(InvalidRequest) as refused:
        read_prices(text, "--price")

    assert "--price must be two numbers" in refused.value.message
