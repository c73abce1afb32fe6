"""What a batch may cost: an estimate from the lengths of its texts. Nothing is sent for it."""

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from ledger.batch_money import LARGEST_AMOUNT, Prices, amount
from runlane.batches.checked_line import CheckedLine
from runlane.errors import InvalidRequest

CHARACTERS_A_TOKEN = 4
"""A rule of thumb for English; other languages and code take more tokens."""

_TEXTS = ("instructions", "additional_instructions")


def read_prices(text: str, option: str) -> Prices:
    """Read `2.50,10`: what a million tokens cost that are read, and that are written.

    Raises:
        InvalidRequest: it isn't two numbers from 0 to a million.
    """
    try:
        return Prices.parse(text)
    except ValueError:
        wanted = f"two numbers from 0 to {LARGEST_AMOUNT:,}, as in 2.50,10"
        raise InvalidRequest(f"{option} must be {wanted}.", param=option) from None


def read_amount(text: str, option: str) -> Decimal:
    """Read an amount of money, in the currency of the prices.

    Raises:
        InvalidRequest: it is none above 0, up to a million.
    """
    try:
        found = amount(text)
    except ValueError:
        found = Decimal(0)
    if not found:
        wanted = f"a number above 0, up to {LARGEST_AMOUNT:,}, as in 12.50"
        raise InvalidRequest(f"{option} must be {wanted}.", param=option)
    return found


@dataclass
class Estimate:
    """What the lines counted so far may use."""

    lines: int = 0
    new_threads: int = 0
    prompt_tokens: int = 0
    """Of what stands in the lines: what is on threads, and the assistants' own instructions and
    tools, come on top."""
    completion_tokens: int = 0
    """The limits of those lines that have one."""
    without_limit: int = 0
    """Lines that have none: what they will write is counted nowhere."""

    def count(self, line: CheckedLine) -> None:
        """Add a line."""
        self.lines += 1
        self.new_threads += line.thread_id is None
        self.prompt_tokens += -(-_characters(line.body) // CHARACTERS_A_TOKEN)
        limit = line.body.get("max_completion_tokens")
        if limit is None:
            self.without_limit += 1
        else:
            self.completion_tokens += limit

    def money(self, prices: Prices) -> Decimal:
        """Return what these tokens cost."""
        return prices.of(self.prompt_tokens, self.completion_tokens)


def _characters(body: dict[str, Any]) -> int:
    texts = sum(len(body.get(name) or "") for name in _TEXTS)
    messages = (body.get("additional_messages") or [], (body.get("thread") or {}).get("messages"))
    for message in (*messages[0], *(messages[1] or ())):
        texts += _content(message.get("content"))
    tools = body.get("tools")
    return texts + (len(json.dumps(tools, ensure_ascii=False)) if tools else 0)


def _content(content: Any) -> int:
    if isinstance(content, str):
        return len(content)
    return sum(len(part["text"]) for part in content if part.get("type") == "text")
