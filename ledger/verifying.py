"""Verifying an export: needs the file and the public key, and neither ledger nor network.

It stops at the first line that can't be what was signed, and says what is wrong with it.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ledger import chain, checkpoints, exporting
from ledger.comparing import compare, follow, reaches
from ledger.errors import LedgerError
from ledger.signing import PublicKey
from ledger.verdict import Found, Line, Verdict, Wrong, at_row, number_in, wrong


@dataclass
class _Reading:
    """What has been read so far."""

    key: PublicKey
    verdict: Verdict = field(default_factory=Verdict)
    held: list[Line] = field(default_factory=list)
    """Rows whose `run` line is still to come."""
    signed: dict[str, dict[int, str]] = field(default_factory=dict)
    """What checkpoints say: run, seq, digest."""
    seen: set[str] = field(default_factory=set)
    last_checkpoint: str | None = None
    summary: str = field(default_factory=lambda: chain.body_digest(b""))
    ended: bool = False
    number: int = 0


def verify(lines: Iterable[str], key: PublicKey, *, kept: Iterable[str] = ()) -> Verdict:
    """Tell whether an export is what was signed, whole and in order.

    Args:
        lines: the file's lines.
        key: the public key of who exported it.
        kept: lines of checkpoints from a second place; they bind, as the file's own do.
    """
    reading = _Reading(key)
    try:
        for number, raw in enumerate(kept, start=1):
            if raw.strip():
                _remember(reading, _parsed(number, raw))
        for number, raw in enumerate(lines, start=1):
            reading.number = number
            if raw.strip():
                _take(reading, _parsed(number, raw))
        if not reading.ended:
            raise wrong(Wrong.TAIL_MISSING, reading.number, _where_it_stops(reading))
    except Found as found:
        reading.verdict.problem = found.problem
    return reading.verdict


def _take(reading: _Reading, line: Line) -> None:
    if reading.ended:
        raise wrong(Wrong.PUT_IN, line.number, "the line stands after the end of the export")
    if line.type == exporting.ROW:
        reading.held.append(line)
    elif line.type == checkpoints.KIND:
        _checkpoint(reading, line)
    elif line.type == exporting.RUN:
        _run(reading, line)
    elif line.type == exporting.END:
        _end(reading, line)
    else:
        raise wrong(Wrong.PUT_IN, line.number, "the line is of no type that an export has")


def _checkpoint(reading: _Reading, line: Line) -> None:
    if reading.held or reading.verdict.runs:
        raise wrong(Wrong.CHANGED, line.number, "a checkpoint stands behind what it is about")
    _remember(reading, line)
    number = reading.verdict.checkpoints + 1
    if line.body["number"] != number:
        raise wrong(
            Wrong.REMOVED if line.body["number"] > number else Wrong.PUT_IN,
            line.number,
            f"checkpoint {number} should stand here, and {line.body['number']} does",
        )
    if line.body["previous"] != reading.last_checkpoint:
        text = f"checkpoint {number} doesn't follow the one before it"
        raise wrong(Wrong.CHANGED, line.number, text)
    reading.last_checkpoint = checkpoints.digest(line.raw)
    reading.verdict.checkpoints = number


def _remember(reading: _Reading, line: Line) -> None:
    if line.type != checkpoints.KIND:
        raise wrong(Wrong.UNREADABLE, line.number, "the line is no checkpoint")
    _signed(reading, line, f"checkpoint {line.body.get('number')}")
    for run_id, (seq, digest) in line.body["heads"].items():
        reading.signed.setdefault(run_id, {})[seq] = digest


def _run(reading: _Reading, line: Line) -> None:
    run_id = str(line.body.get("run"))
    _signed(reading, line, f"what the export says of run {run_id}")
    number = reading.verdict.runs + 1
    if line.body["number"] != number:
        gone = line.body["number"] > number
        text = f"run number {number} of the export " + ("is missing" if gone else "stands twice")
        raise wrong(Wrong.REMOVED if gone else Wrong.PUT_IN, line.number, text)
    rows, digests = reading.held, line.body["digests"]
    compare(rows, digests, run_id, line)
    follow(rows, run_id, line)
    if not line.body["pruned"]:
        reaches(digests, reading.signed.get(run_id, {}), run_id, line)
    reading.held = []
    reading.seen.add(run_id)
    reading.summary = chain.body_digest((reading.summary + line.raw).encode())
    reading.verdict.runs = number
    reading.verdict.rows += len(rows)
    reading.verdict.pruned += line.body["pruned"]


def _end(reading: _Reading, line: Line) -> None:
    if reading.held:
        row = reading.held[0]
        raise at_row(Wrong.PUT_IN, row, str(row.body.get("run")), number_in(row, "seq"))
    _signed(reading, line, "the end of the export")
    verdict = reading.verdict
    if verdict.runs != line.body["runs"]:
        text = f"the export had {line.body['runs']} runs, and {verdict.runs} are here"
        raise wrong(Wrong.REMOVED, line.number, text)
    if verdict.checkpoints != line.body["checkpoints"]:
        text = (
            f"the export had {line.body['checkpoints']} checkpoints, {verdict.checkpoints} are here"
        )
        raise wrong(Wrong.REMOVED, line.number, text)
    if (verdict.rows, reading.summary) != (line.body["rows"], line.body["summary"]):
        raise wrong(Wrong.CHANGED, line.number, "runs of another export stand in this one")
    if line.body["whole"]:
        for run_id in sorted(reading.signed.keys() - reading.seen):
            text = f"run {run_id}: a checkpoint has signed it, and the whole of it is missing"
            raise wrong(Wrong.REMOVED, line.number, text, run_id, 0)
    verdict.exported_at = line.body["at"]
    reading.ended = True


def _where_it_stops(reading: _Reading) -> str:
    if reading.held:
        row = reading.held[-1]
        return f"it stops after row {row.body.get('seq')} of run {row.body.get('run')}"
    return f"it stops after {reading.verdict.runs} runs, without the line that ends an export"


def _parsed(number: int, raw: str) -> Line:
    try:
        said = json.loads(raw, object_pairs_hook=_unambiguous)
        body = said["body"]
        if not isinstance(body, dict) or not isinstance(said["type"], str):
            raise TypeError
        chain.canonical(said)
    except (ValueError, KeyError, TypeError, RecursionError, LedgerError):
        text = "the line is not one that an export has"
        raise wrong(Wrong.UNREADABLE, number, text) from None
    return Line(number, said["type"], body, said, raw.rstrip("\r\n"))


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _signed(reading: _Reading, line: Line, what: str) -> None:
    if not reading.key.has_signed(line.said):
        signer = line.body.get("signed_by")
        text = f"{what} is not signed by key {reading.key.id}"
        if isinstance(signer, str) and signer != reading.key.id:
            text += f", and says it is by {signer[:16]}"
        raise wrong(Wrong.NOT_SIGNED, line.number, text)
