"""What a tool's call comes to: an answer for the model, whatever happened."""

import logging
import traceback
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from pydantic_core import to_json

from runsapi import MAX_TOOL_OUTPUTS_BYTES

if TYPE_CHECKING:
    from runlane.tools.context import ToolContext

MAX_OUTPUT_BYTES = MAX_TOOL_OUTPUTS_BYTES - 1
"""Of one output in UTF-8; the outputs of a round share the protocol's limit."""

_logger = logging.getLogger(__name__)


class AnswerKind(StrEnum):
    """How a tool's call went."""

    RETURNED = "returned"
    INVALID_ARGUMENTS = "invalid_arguments"
    """It never ran; the model may mend its arguments."""
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    """Nobody waited longer; a sync function may go on in its thread."""


class ToolFailure(Exception):
    """A tool failed in a way that has no class of its own; the words are fixed, and for a model."""


class OutputTooLarge(ToolFailure):
    """A tool returned more than an answer may hold."""

    def __init__(self) -> None:
        """Say how much it may hold."""
        super().__init__(f"its output is over {MAX_OUTPUT_BYTES:,} bytes")


@dataclass(frozen=True)
class ToolAnswer:
    """The answer to a call, and how it came about."""

    output: str
    """What the model gets. Of an error, its class alone."""
    kind: AnswerKind
    error: str | None = None
    """The class of the error, or what failed, where something did."""


def returned(value: object) -> ToolAnswer:
    """Make the answer of what a tool returned: text as it is, anything else as JSON.

    Raises:
        OutputTooLarge: it is over `MAX_OUTPUT_BYTES`.
        ValueError: it can't be written as JSON, or as UTF-8.
    """
    encoded = value.encode() if isinstance(value, str) else to_json(value, inf_nan_mode="null")
    if len(encoded) > MAX_OUTPUT_BYTES:
        raise OutputTooLarge
    return ToolAnswer(encoded.decode(), AnswerKind.RETURNED)


def timed_out(tool: str) -> ToolAnswer:
    """Make the answer of a call for which nobody waits any longer."""
    output = f"The tool {tool} gave no answer in time. Whether it took effect is not known."
    return ToolAnswer(output, AnswerKind.TIMED_OUT, TimeoutError.__name__)


def failed(tool: str, error: BaseException, context: "ToolContext") -> ToolAnswer:
    """Make the answer of an error, and log where it was raised, without what it says.

    An error's own words may repeat arguments, which neither a log nor a model is to get.
    """
    name = str(error) if isinstance(error, ToolFailure) else type(error).__name__
    frames = "".join(traceback.format_tb(error.__traceback__))
    _logger.error(
        "Tool %s failed: %s\n%s",
        tool,
        name,
        frames.rstrip(),
        extra={"action": "tool_failed", "run_id": context.run_id, "call_id": context.call_id},
    )
    return ToolAnswer(f"The tool {tool} failed: {name}.", AnswerKind.FAILED, name)
