"""One row of an audit trail, and how it is named. Needs no database: `verifying` reads files.

A row's digest is SHA-256 over its body as canonical JSON (RFC 8785), and the body holds the digest
of the row before it. Contents stand in it by their digests alone.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import rfc8785

from ledger import contents, limits
from ledger.errors import LedgerRefused

_CHANGES_WITH_PLACE = ("seq", "at", "previous")


class Kind(StrEnum):
    """What an event is about."""

    RUN = "run"
    """Its start, its end, an upstream run made for it."""
    CALL = "call"
    CLASSIFICATION = "classification"
    DECISION = "decision"
    EXECUTION = "execution"
    SUBMISSION = "submission"
    CONTROL = "control"
    """A stop or a resume; a token made or revoked."""
    ERASURE = "erasure"


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened in a run."""

    key: str
    """Unique in its run; who reports the same event again gives the same key."""
    kind: Kind
    at: datetime
    """With a zone. Of an event that is reported twice, the first one's stands."""
    version: str | None = None
    """Of Runlane."""
    model: str | None = None
    policy: str | None = None
    tool_schema: str | None = None
    """Digest of the tool's schema."""
    shown: str | None = None
    """Digest of what the approver was shown."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """More, as JSON; nothing that a person or a model wrote."""
    contents: Mapping[str, str] = field(default_factory=dict)
    """What they wrote, by name: `arguments`, `output`, `note`."""


@dataclass(frozen=True)
class Row:
    """An event in its place."""

    run_id: str
    seq: int
    """From 0, without gaps."""
    digest: str
    body: str
    """Canonical JSON."""

    @property
    def line(self) -> str:
        """The row as it stands in an export: canonical JSON too."""
        return f'{{"body":{self.body},"digest":"{self.digest}","type":"row"}}'


def said(event: Event) -> dict[str, Any]:
    """Return what an event says wherever it stands.

    Raises:
        LedgerRefused: it holds what can't be stored.
    """
    names = ("version", "model", "policy", "tool_schema", "shown")
    told = {
        name: limits.name(f"event.{name}", getattr(event, name))
        for name in names
        if getattr(event, name) is not None
    }
    for name, text in event.contents.items():
        contents.checked(f"event.contents.{name}", text)
    digests = {name: contents.digest_of(text) for name, text in event.contents.items()}
    return {
        "v": 1,
        "key": limits.name("event.key", event.key),
        "kind": Kind(event.kind).value,
        **told,
        **({"facts": dict(event.facts)} if event.facts else {}),
        **({"contents": digests} if digests else {}),
    }


def place(told: Mapping[str, Any], run_id: str, at: datetime, before: Row | None) -> Row:
    """Return the row that follows `before`.

    Raises:
        LedgerRefused: the facts aren't JSON, or are too large.
    """
    body = {
        **told,
        "run": run_id,
        "seq": 0 if before is None else before.seq + 1,
        "at": at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "previous": None if before is None else before.digest,
    }
    encoded = limits.body("event.facts", canonical(body))
    return Row(run_id, body["seq"], body_digest(encoded), encoded.decode())


def canonical(value: object) -> bytes:
    """Return JSON of which there is only one form for equal values.

    Raises:
        LedgerRefused: it holds something that JSON can't say, or not in one way.
    """
    try:
        return rfc8785.dumps(value)  # type: ignore[arg-type] # it looks at each value itself
    except (rfc8785.CanonicalizationError, UnicodeEncodeError, RecursionError):
        # Their texts repeat the value.
        raise LedgerRefused(
            "event.facts must be JSON: text of whole characters, finite numbers, and whole ones "
            "below 2^53."
        ) from None


def body_digest(body: bytes) -> str:
    """Return the digest of a row's body."""
    return "sha256:" + hashlib.sha256(body).hexdigest()


def says_the_same(body: str, told: Mapping[str, Any]) -> bool:
    """Tell whether a row that stands says what an event says."""
    there = json.loads(body)
    for name in (*_CHANGES_WITH_PLACE, "run"):
        del there[name]
    return canonical(there) == canonical(dict(told))
