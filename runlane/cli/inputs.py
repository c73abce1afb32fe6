"""What people type, read and checked: times, files, answers, metadata."""

import json
import sys
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from runlane.durations import DurationError, parse_duration
from runlane.errors import InvalidRequest

_STDIN = "-"
_LARGEST_FILE = 16_000_000


def duration(text: str | None, option: str) -> timedelta | None:
    """Read a time such as `30s`, `4h` or `90d`; a bare number is in seconds.

    Raises:
        InvalidRequest: it is none.
    """
    if text is None:
        return None
    try:
        return parse_duration(text)
    except DurationError as error:
        raise InvalidRequest(str(error), param=option) from None


def json_object(source: str, option: str) -> dict[str, Any]:
    """Read a JSON object from a file, or from standard input for `-`.

    Raises:
        InvalidRequest: there is no such file, or no JSON object in it.
    """
    text = read_text(source, option)
    where = "standard input" if source == _STDIN else source
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InvalidRequest(f"{where} is not JSON: {error}.", param=option) from None
    if not isinstance(value, dict):
        raise InvalidRequest(f"{where} must hold a JSON object.", param=option)
    return value


def read_text(source: str, option: str) -> str:
    """Read a file, or standard input for `-`.

    Raises:
        InvalidRequest: it can't be read as UTF-8 text, or is over 16 MB.
    """
    try:
        if source == _STDIN:
            data = sys.stdin.buffer.read(_LARGEST_FILE + 1)
        else:
            with Path(source).open("rb") as file:
                data = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise InvalidRequest(f"Can't read {source}: {error.strerror}.", param=option) from None
    if len(data) > _LARGEST_FILE:
        raise InvalidRequest(f"{source} is over {_LARGEST_FILE:,} bytes.", param=option)
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidRequest(f"{source} is not UTF-8 text.", param=option) from None


def answers(pairs: Sequence[str], outputs: str | None) -> list[object]:
    """Read answers: `CALL_ID=OUTPUT` and `CALL_ID=@FILE`, or a submit body from a file.

    Raises:
        InvalidRequest: an answer is malformed, or there is none.
    """
    if outputs is not None:
        if pairs:
            text = "Give answers as CALL_ID=OUTPUT or with --outputs, not both."
            raise InvalidRequest(text, param="--outputs")
        body = json_object(outputs, "--outputs")
        unknown = sorted(set(body) - {"tool_outputs", "stream"})
        if unknown:
            text = f"{unknown[0]} is not a parameter of a submit body."
            raise InvalidRequest(text, param=unknown[0])
        given = body.get("tool_outputs")
        if not isinstance(given, list):
            text = 'The body must be {"tool_outputs": [{"tool_call_id": …, "output": …}, …]}.'
            raise InvalidRequest(text, param="tool_outputs")
        return given
    if not pairs:
        text = "No answer given: add CALL_ID=OUTPUT, CALL_ID=@FILE or --outputs FILE."
        raise InvalidRequest(text, param="CALL_ID=OUTPUT")
    return [_answer(pair, first=i == 0) for i, pair in enumerate(pairs)]


def metadata(pairs: Sequence[str]) -> dict[str, str]:
    """Read `KEY=VALUE` pairs.

    Raises:
        InvalidRequest: a pair has no `=`, or a key comes twice.
    """
    read: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            text = f"{pair!r} is not of the form KEY=VALUE."
            raise InvalidRequest(text, param="--metadata")
        if key in read:
            raise InvalidRequest(f"The key {key!r} is given twice.", param="--metadata")
        read[key] = value
    return read


def _answer(pair: str, *, first: bool) -> dict[str, str]:
    call_id, equals, output = pair.partition("=")
    if not equals or not call_id:
        text = f"{pair!r} is not of the form CALL_ID=OUTPUT."
        if pair.startswith("run_"):
            text += " The run's id comes first: runlane submit RUN_ID CALL_ID=OUTPUT"
        elif not first:
            # Most likely what the shell made of JSON or of words without quotes.
            text += ' Quote an output that holds spaces or quotes: CALL_ID=\'{"state": "shipped"}\''
        raise InvalidRequest(text, param="CALL_ID=OUTPUT")
    if output.startswith("@@"):
        output = output[1:]
    elif output.startswith("@"):
        output = read_text(output[1:], f"{call_id}=@FILE")
    return {"tool_call_id": call_id, "output": output}
