"""The protocol's limits, and the checks that hold parameters to them.

The limits are those of the Assistants API reference ("Create run", "Submit tool outputs to run",
"List runs") and of the errors its servers answer with.
"""

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Discriminator, Field, StrictStr
from pydantic_core import PydanticCustomError

MAX_TOOL_OUTPUTS_BYTES = 512_000
"""The outputs of one submit, in UTF-8 bytes together, must stay below this."""

MAX_METADATA_PAIRS = 16
"""Pairs in the metadata of one object on the wire."""

STAMP_KEYS: tuple[str, str] = ("runlane_run_id", "runlane_attempt")
"""The metadata keys that are ours, and not counted among the caller's."""

MAX_CALLER_METADATA_PAIRS = MAX_METADATA_PAIRS - len(STAMP_KEYS)
"""Pairs a caller may attach to a run."""

MAX_METADATA_KEY = 64
"""Characters of a metadata key."""

MAX_METADATA_VALUE = 512
"""Characters of a metadata value."""

MAX_TEXT = 256_000
"""Characters of instructions, and of a message's text."""

MAX_ID = 255
"""Characters of an object's id."""

MAX_TOOLS = 20
"""Tools of one run."""

MIN_TOKENS = 256
"""The least a token limit may be."""

MAX_PAGE = 100
"""Objects on one page of a list."""

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def limit(text: str) -> PydanticCustomError:
    """What a check raises; the text goes into the error as it is, so it shows no contents."""
    return PydanticCustomError("limit", "{text}", {"text": text})


def between(low: float, high: float | None = None) -> Callable[[Any], Any]:
    """A number's bounds, both allowed."""

    def check(value: Any) -> Any:
        if value is not None and (value < low or (high is not None and value > high)):
            bounds = f"at least {low}" if high is None else f"between {low} and {high}"
            got = f"{value:g}" if isinstance(value, float) else value
            raise limit(f"must be {bounds}, got {got}")
        return value

    return check


def _length(high: int, low: int = 0) -> Callable[[str], str]:
    def check(value: str) -> str:
        if not low <= len(value) <= high:
            bounds = f"{low} to {high}" if low else f"at most {high}"
            raise limit(f"must have {bounds} characters, got {len(value)}")
        return value

    return check


def count(high: int) -> Callable[[list[Any]], list[Any]]:
    """A list's longest length."""

    def check(value: list[Any]) -> list[Any]:
        if len(value) > high:
            raise limit(f"must have at most {high} entries, got {len(value)}")
        return value

    return check


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise limit("must have 1 to 64 characters out of a-z, A-Z, 0-9, _ and -")
    return value


def _pairs(value: dict[str, str] | None) -> dict[str, str] | None:
    for number, (key, item) in enumerate((value or {}).items()):
        if not 1 <= len(key) <= MAX_METADATA_KEY:
            raise limit(
                f"keys must have 1 to {MAX_METADATA_KEY} characters, key {number} has {len(key)}"
            )
        if len(item) > MAX_METADATA_VALUE:
            raise limit(
                f"values must have at most {MAX_METADATA_VALUE} characters,"
                f" value {number} has {len(item)}"
            )
    return value


def _message_pairs(value: dict[str, str] | None) -> dict[str, str] | None:
    if value is not None and len(value) > MAX_METADATA_PAIRS:
        raise limit(f"must have at most {MAX_METADATA_PAIRS} pairs, got {len(value)}")
    return value


def _run_pairs(value: dict[str, str] | None) -> dict[str, str] | None:
    own = sum(key not in STAMP_KEYS for key in value or {})
    if own > MAX_CALLER_METADATA_PAIRS:
        raise limit(
            f"must have at most {MAX_CALLER_METADATA_PAIRS} pairs, got {own}"
            f" ({len(STAMP_KEYS)} of the protocol's {MAX_METADATA_PAIRS} are Runlane's)"
        )
    return value


def by_kind(kinds: Mapping[type, str], expected: str) -> Discriminator:
    """Tell a union's branches apart by the JSON type of the value."""

    def discriminate(value: object) -> str | None:
        return kinds.get(dict if isinstance(value, BaseModel) else type(value))

    return Discriminator(
        discriminate,
        custom_error_type="limit",
        custom_error_message=f"must be {expected}",
    )


def by_type(*types: str) -> Discriminator:
    """Tell a union's branches apart by the value's ``type``."""

    def discriminate(value: object) -> str | None:
        kind = value.get("type") if isinstance(value, Mapping) else getattr(value, "type", None)
        return f"<{kind}>" if kind in types else None

    return Discriminator(
        discriminate,
        custom_error_type="limit",
        custom_error_message=f"must be an object whose type is one of {', '.join(types)}",
    )


Int = Annotated[int, Field(strict=True)]
Float = Annotated[float, Field(strict=True)]
Id = Annotated[StrictStr, AfterValidator(_length(MAX_ID, 1))]
Name = Annotated[StrictStr, AfterValidator(_name)]
LongText = Annotated[StrictStr, AfterValidator(_length(MAX_TEXT))]
Tokens = Annotated[Int, AfterValidator(between(MIN_TOKENS))]
RunMetadata = Annotated[
    dict[StrictStr, StrictStr] | None, AfterValidator(_run_pairs), AfterValidator(_pairs)
]
MessageMetadata = Annotated[
    dict[StrictStr, StrictStr] | None, AfterValidator(_message_pairs), AfterValidator(_pairs)
]
