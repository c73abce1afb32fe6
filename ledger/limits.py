"""How large a thing the ledger takes, checked before anything is written.

SQLite takes what PostgreSQL refuses: longer text, and a NUL. So both are refused here, by name.
"""

import hashlib
import re
from datetime import UTC, datetime

from ledger.errors import LedgerRefused

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")

MAX_NAME = 255
"""Characters of an id, a name, a key or a reason."""
MAX_STATUS = 32
MAX_BODY = 16 * 1024 * 1024
"""Bytes of one content, and of the facts of one event."""


def name(field: str, value: str) -> str:
    """Return a name that is there and can be stored.

    Raises:
        LedgerRefused: it is empty, too long, or holds what no database stores as text.
    """
    if not value:
        raise LedgerRefused(f"{field} must not be empty.")
    return text(field, value)


def text(field: str, value: str) -> str:
    """Return a short text, empty or not, that can be stored.

    Raises:
        LedgerRefused: it is too long, or holds what no database stores as text.
    """
    if len(value) > MAX_NAME:
        raise LedgerRefused(f"{field} must have at most {MAX_NAME} characters, got {len(value):,}.")
    if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
        raise LedgerRefused(f"{field} holds a character that can't be stored.")
    return value


def optional(field: str, value: str | None) -> str | None:
    """Return None, or a name that can be stored.

    Raises:
        LedgerRefused: see `name`.
    """
    return None if value is None else name(field, value)


def short(value: str) -> str:
    """Return an id that a stranger made up: as it is, or its digest where it can't be stored."""
    try:
        return name("id", value)
    except LedgerRefused:
        return "sha256:" + hashlib.sha256(value.encode(errors="surrogatepass")).hexdigest()


def digest(field: str, value: str) -> str:
    """Return a digest as `sha256:` and 64 hexadecimal digits.

    Raises:
        LedgerRefused: it is none.
    """
    if not _DIGEST.fullmatch(value):
        raise LedgerRefused(f"{field} must be sha256: and 64 hexadecimal digits.")
    return value


def body(field: str, value: bytes) -> bytes:
    """Return bytes that are not too many.

    Raises:
        LedgerRefused: they are.
    """
    if len(value) > MAX_BODY:
        raise LedgerRefused(f"{field} must have at most {MAX_BODY:,} bytes, got {len(value):,}.")
    return value


def instant(field: str, value: datetime) -> datetime:
    """Return an instant in UTC.

    Raises:
        LedgerRefused: it has no zone, or in UTC there is no such year.
    """
    if value.tzinfo is None:
        raise LedgerRefused(f"{field} must have a time zone.")
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise LedgerRefused(f"{field} must lie between the years 1 and 9999.") from None


def now() -> datetime:
    """Return the present instant."""
    return datetime.now(UTC)
