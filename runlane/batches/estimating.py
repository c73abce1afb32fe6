"""What a batch may cost: an estimate from the lengths of its texts. Nothing is sent for it."""

import json
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from runlane.batches.checked_line import CheckedLine
from runlane.errors import InvalidRequest

CHARACTERS_A_TOKEN = 4
"""A rule of thumb for English; other languages and code take more tokens."""

_TEXTS = ("instructions", "additional_instructions")
_MILLION = 1_000_000
_LARGEST_PRICE = 1_000_000


@dataclass(frozen=True)
class Prices:
    """What a million tokens cost, in whatever currency was typed."""

    prompt: Decimal
    completion: Decimal

    @classmethod
    def read(cls, text: str, option: str) -> "Prices":
        """Read `2.50,10`: of tokens that are read, and of tokens that are written.

        Raises:
            InvalidRequest: it isn't two numbers from 0 to a million.
        """
        try:
            prompt, completion = (Decimal(part.strip()) for part in text.split(","))
        except (ValueError, InvalidOperation):
            prompt = completion = Decimal("NaN")
        for price in (prompt, completion):
            if not price.is_finite() or not 0 <= price <= _LARGEST_PRICE:
                wanted = f"two numbers from 0 to {_LARGEST_PRICE:,}, as in 2.50,10"
                raise InvalidRequest(f"{option} must be {wanted}.", param=option)
        return cls(prompt, completion)

    def __str__(self) -> str:
        """Return it as `read` takes it."""
        return f"{self.prompt:f},{self.completion:f}"

    def of(self, prompt_tokens: int, completion_tokens: int) -> Decimal:
        """Return what so many tokens cost."""
        return (prompt_tokens * self.prompt + completion_tokens * self.completion) / _MILLION


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
