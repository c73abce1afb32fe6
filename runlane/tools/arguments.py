"""A call's arguments, as a model wrote them: read, and refused in words that a model can use."""

import json
import math
from collections.abc import Iterable
from typing import Any, NoReturn

MAX_PROBLEMS = 10
TOO_LARGE = "a number is too large"
_SHOWN = 64


class InvalidArguments(Exception):
    """A call's arguments can't be used. The message names fields, and never repeats values."""

    def __init__(self, tool: str, problems: Iterable[str]) -> None:
        """Make an answer for the model."""
        listed = list(problems)
        told = [f"- {problem}" for problem in listed[:MAX_PROBLEMS]]
        if len(listed) > MAX_PROBLEMS:
            told.append(f"- and {len(listed) - MAX_PROBLEMS} more")
        head = f"The tool {tool} did not run: its arguments are invalid. Mend them and call again."
        super().__init__("\n".join([head, *told]))


def read_object(tool: str, text: str) -> dict[str, Any]:
    """Read the arguments as a JSON object; no text at all stands for no arguments.

    Raises:
        InvalidArguments: it is no JSON, no object, or a key stands in it twice.
    """
    if not text.strip():
        return {}
    try:
        value = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_no_constant, parse_float=_finite
        )
        # Half of a surrogate pair, as it is or as an escape, can't be sent on.
        json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise InvalidArguments(tool, [f"they are not JSON: {error.msg} ({where})"]) from None
    except UnicodeEncodeError:
        raise InvalidArguments(tool, ["they hold half of a character"]) from None
    except ValueError as error:
        raise InvalidArguments(tool, [str(error)]) from None
    except RecursionError:
        raise InvalidArguments(tool, ["they are nested too deep"]) from None
    if not isinstance(value, dict):
        raise InvalidArguments(tool, ["they must be one JSON object"])
    return value


def unknown(name: object, known: Iterable[str]) -> str:
    """Return what is wrong with a parameter that there isn't."""
    return f"{shown(name)}: there is no such parameter; there are: {', '.join(known) or 'none'}"


def shown(name: object) -> str:
    """Return a key as it may stand in an answer: the model chose it, so it may be anything."""
    text = str(name)
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def path(parts: Iterable[object]) -> str:
    """Return a place within the arguments: `items[2].price`."""
    found = ""
    for part in parts:
        if isinstance(part, int):
            found += f"[{part}]"
        else:
            found += f".{shown(part)}" if found else shown(part)
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # A person who approves must not read one amount where the tool takes the other.
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{shown(key)}: is given twice")
        found[key] = value
    return found


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(TOO_LARGE)
    return number


def _no_constant(_text: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")
