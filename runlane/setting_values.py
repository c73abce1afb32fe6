"""What a setting can hold: the types, and how each is read from the text of its variable.

Every reader takes the variable's name, for its error must say what to mend.
"""

import base64
import binascii
import math
import re
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from activities.decision import MAX_GROUPS, MAX_NAME
from runlane.durations import DurationError, parse_duration

KEY_BYTES = 32
"""Of an encryption key: AES-256."""
WEBHOOK_SECRET_BYTES = (24, 64)
"""The fewest and the most, as Standard Webhooks has it."""
MAX_WEBHOOKS = 10

_KEY_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HEADER = re.compile(r"[a-z0-9][a-z0-9-]{0,99}")
_NO_PERSON = ("authorization", "api-key", "host", "origin", "content-type", "content-length")
_HIGHEST_PORT = 65_535
_LONGEST_NUMBER = 9


class SettingsError(ValueError):
    """A setting can't be used; the message names the variable and what it may hold."""

    def __init__(self, variable: str, problem: str) -> None:
        """Name the variable first, so that a one-line report is enough to mend it."""
        super().__init__(f"{variable}: {problem}")
        self.variable = variable


class UpstreamAuth(StrEnum):
    """How requests to the upstream prove who sends them."""

    BEARER = "bearer"
    """`Authorization: Bearer <key>`; without a key no header is sent."""
    API_KEY = "api-key"
    """`api-key: <key>`, as Azure resources take it."""
    AZURE = "azure"
    """A token from azure-identity (extra `runlane[azure]`); there is no key."""


class LogFormat(StrEnum):
    """How a log line is written."""

    TEXT = "text"
    JSON = "json"
    """One JSON object a line."""


@dataclass(frozen=True)
class S3Location:
    """Where in S3 the big payloads lie."""

    bucket: str
    prefix: str
    """Without slashes at its ends; empty for the bucket's root."""

    def __str__(self) -> str:
        """The location as it is written in `RUNLANE_PAYLOAD_STORE`."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


@dataclass(frozen=True)
class Address:
    """Where to listen."""

    host: str
    port: int
    """0 picks a free one."""

    def __str__(self) -> str:
        """The address as it is written in a variable."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class EncryptionKey:
    """A key for payloads, and the name by which payloads refer to it."""

    id: str
    key: bytes = field(repr=False)
    """`KEY_BYTES` bytes."""


def one_of(words: type[StrEnum], variable: str, text: str | None) -> str | None:
    """Read one of the words."""
    if text is None or text in list(words):
        return text
    raise SettingsError(variable, f"{text!r} is not one of {', '.join(words)}.")


def path(_variable: str, text: str | None) -> Path | None:
    """Read a path."""
    return Path(text) if text else None


def url(
    variable: str,
    text: str | None,
    *,
    key: str = "put the key into RUNLANE_UPSTREAM_API_KEY",
    query: str = "put a version into RUNLANE_UPSTREAM_API_VERSION",
) -> str | None:
    """Read a base URL; the text itself is not repeated, for it may hold a password.

    Args:
        variable: its name.
        text: what it holds.
        key: what to do with credentials that stand in it.
        query: what to do with a query that stands in it.
    """
    if text is None:
        return None
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname)
        # `.port` raises ValueError when it is no number or out of range.
        usable = usable and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise SettingsError(variable, "not a URL of the form https://host[:port][/path].")
    if parts.username is not None or parts.password is not None:
        raise SettingsError(variable, f"holds credentials; {key}.")
    if parts.query or parts.fragment:
        raise SettingsError(variable, f"ends in a query; {query}.")
    return text.rstrip("/")


def api_url(variable: str, text: str | None) -> str | None:
    """Read the base URL of Runlane's API, with or without its `/v1`; it is returned with it."""
    found = url(variable, text, key="put the token into RUNLANE_TOKEN", query="take it away")
    return None if found is None else f"{found.removesuffix('/v1')}/v1"


def header_name(variable: str, text: str | None) -> str | None:
    """Read the name of a header that a proxy sets; in small letters."""
    if text is None:
        return None
    found = text.lower()
    if not _HEADER.fullmatch(found) or found in _NO_PERSON:
        raise SettingsError(variable, f"{text!r} is not a header that can name a person.")
    return found


def webhook_urls(variable: str, text: str | None) -> tuple[str, ...]:
    """Read URLs separated by commas; none is repeated, for who knows one may post there."""
    found: list[str] = []
    for number, part in enumerate((text or "").split(","), start=1):
        if not (url := part.strip()):
            continue
        try:
            parts = urlsplit(url)
            usable = parts.scheme in {"http", "https"} and bool(parts.hostname)
            usable = usable and parts.port != 0 and url.isascii() and url.isprintable()
        except ValueError:
            usable = False
        if not usable or " " in url:
            problem = f"URL {number} is not of the form https://host[:port][/path][?query]."
            raise SettingsError(variable, problem)
        if parts.username is not None or parts.password is not None or parts.fragment:
            problem = f"URL {number} holds credentials or a fragment, which no request carries."
            raise SettingsError(variable, problem)
        if url not in found:
            found.append(url)
    if len(found) > MAX_WEBHOOKS:
        raise SettingsError(variable, f"holds {len(found)} URLs; {MAX_WEBHOOKS} is the limit.")
    return tuple(found)


def webhook_secrets(variable: str, text: str | None) -> tuple[str, ...]:
    """Read keys of Standard Webhooks, `whsec_…`, separated by commas or lines."""
    found: list[str] = []
    for number, part in enumerate(re.split(r"[,\s]+", (text or "").strip()), start=1):
        if not part:
            continue
        try:
            key = base64.b64decode(part.removeprefix("whsec_"), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        least, most = WEBHOOK_SECRET_BYTES
        if not part.startswith("whsec_") or not least <= len(key) <= most:
            problem = f"number {number} is not whsec_ and {least} to {most} bytes in base64"
            raise SettingsError(variable, f"{problem}. Make one: whsec_$(openssl rand -base64 32)")
        if part not in found:
            found.append(part)
    return tuple(found)


def database_url(variable: str, text: str | None) -> str | None:
    """Read the URL of a PostgreSQL; it holds a password, so it is never repeated."""
    if text is None:
        return None
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"postgresql", "postgres"} and len(parts.path) > 1
        usable = usable and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        problem = "must be of the form postgresql://user:password@host[:port]/database."
        raise SettingsError(variable, problem)
    return text


RETAINED = ("runs", "contents", "intents", "audit", "approvals", "decisions", "batches")
"""The ledger's tables of which old rows may be removed."""
MAX_DAYS = 100_000


def retention_days(variable: str, text: str | None) -> tuple[tuple[str, int], ...]:
    """Read `table=days` pairs, separated by commas."""
    found: dict[str, int] = {}
    for number, pair in enumerate((text or "").split(","), start=1):
        if not pair.strip():
            continue
        table, equals, given = (part.strip() for part in pair.partition("="))
        if not equals or table not in RETAINED or table in found:
            problem = f"pair {number} is not table=days, each table once: {', '.join(RETAINED)}."
            raise SettingsError(variable, problem)
        days = count(MAX_DAYS, variable, given)
        if days is None:
            raise SettingsError(variable, f"pair {number} has no number of days.")
        found[table] = days
    return tuple(found.items())


def header_value(variable: str, text: str | None) -> str | None:
    """Read what a header is to carry.

    httpx reports a bad header by printing it, and the key would stand in the traceback.
    """
    if text is not None and not (text.isascii() and text.isprintable()):
        raise SettingsError(variable, "holds a character that no HTTP header can carry.")
    return text


def secret_file(variable: str, file: Path) -> str:
    """Read a file that holds a secret."""
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        # The cause stays out of the chain: a UnicodeDecodeError carries the file's bytes.
        reason = error.strerror if isinstance(error, OSError) else "not a text file"
        raise SettingsError(variable, f"can't read {file}: {reason}.") from None
    if not text:
        raise SettingsError(variable, f"{file} is empty.")
    return text


def duration(most: timedelta, variable: str, text: str | None) -> timedelta | None:
    """Read a duration above 0."""
    if text is None:
        return None
    try:
        found = parse_duration(text)
    except DurationError as error:
        raise SettingsError(variable, str(error)) from None
    if not timedelta(0) < found <= most:
        raise SettingsError(variable, f"must be more than 0 and at most {most.seconds} seconds.")
    return found


def count(most: int, variable: str, text: str | None) -> int | None:
    """Read a whole number from 1 on."""
    if text is None:
        return None
    digits = text.isascii() and text.isdecimal() and len(text) <= _LONGEST_NUMBER
    if not digits or not 1 <= int(text) <= most:
        raise SettingsError(variable, f"must be a whole number from 1 to {most:,}.")
    return int(text)


def rate(most: float, variable: str, text: str | None) -> float | None:
    """Read a number a second, above 0."""
    if text is None:
        return None
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 < found <= most:
        raise SettingsError(variable, f"must be a number above 0 and at most {most:,.0f}.")
    return found


def address(variable: str, text: str | None) -> Address | None:
    """Read `host:port`, `[ipv6]:port` or `:port` (every interface)."""
    if text is None:
        return None
    host, _, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    digits = port.isascii() and port.isdecimal() and len(port) <= _LONGEST_NUMBER
    usable = digits and int(port) <= _HIGHEST_PORT
    if not usable or ":" not in text or (":" in bare and bare == host) or "/" in text:
        raise SettingsError(variable, f"{text!r} is not of the form host:port.")
    return Address(bare or "0.0.0.0", int(port))  # noqa: S104 # what was written


def s3_location(variable: str, text: str | None) -> S3Location | None:
    """Read `s3://bucket/prefix`."""
    if text is None:
        return None
    try:
        parts = urlsplit(text)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment:
        raise SettingsError(variable, f"{text!r} is not of the form s3://bucket/prefix.")
    return S3Location(bucket=parts.netloc, prefix=parts.path.strip("/"))


def origins(variable: str, text: str | None) -> tuple[str, ...]:
    """Read the origins of web pages, `https://host[:port]`, separated by commas."""
    found = []
    for part in (text or "").split(","):
        origin = part.strip().rstrip("/")
        if not origin:
            continue
        if not re.fullmatch(r"https?://[A-Za-z0-9.-]+(:\d{1,5})?", origin):
            raise SettingsError(variable, f"{origin!r} is not of the form https://host[:port].")
        found.append(origin)
    return tuple(found)


def modules(variable: str, text: str | None) -> tuple[str, ...]:
    """Read import paths of modules, separated by commas."""
    found: list[str] = []
    for part in (text or "").split(","):
        name = part.strip()
        if not name:
            continue
        if not all(word.isidentifier() for word in name.split(".")):
            raise SettingsError(variable, f"{name!r} is not an import path such as shop.tools.")
        if name not in found:
            found.append(name)
    return tuple(found)


def name(variable: str, text: str | None) -> str | None:
    """Read the name of a person or a group."""
    if text is not None and not (text.isprintable() and len(text) <= MAX_NAME):
        raise SettingsError(variable, f"must be a name of at most {MAX_NAME} characters.")
    return text


def names(variable: str, text: str | None) -> tuple[str, ...]:
    """Read names of groups, separated by commas."""
    found = [name(variable, part.strip()) for part in (text or "").split(",") if part.strip()]
    if len(found) > MAX_GROUPS:
        raise SettingsError(variable, f"must be at most {MAX_GROUPS} names.")
    return tuple(dict.fromkeys(each for each in found if each))


def encryption_keys(variable: str, text: str | None) -> tuple[EncryptionKey, ...]:
    """Read `id:key` pairs, separated by commas or lines; a key is 32 bytes in base64."""
    found: dict[str, EncryptionKey] = {}
    for number, pair in enumerate(re.split(r"[,\s]+", (text or "").strip()), start=1):
        if not pair:
            continue
        # The text may be nothing but a key, so it is named by its place and never repeated.
        key_id, colon, encoded = pair.partition(":")
        if not colon or not _KEY_ID.fullmatch(key_id):
            problem = (
                f"pair {number} is not of the form id:key, the id of letters, digits and . _ -"
            )
            raise SettingsError(variable, f"{problem}, at most 64.")
        if key_id in found:
            raise SettingsError(variable, f"pair {number} has an id that is there already.")
        found[key_id] = EncryptionKey(key_id, _key(variable, number, encoded))
    return tuple(found.values())


def _key(variable: str, number: int, encoded: str) -> bytes:
    try:
        key = base64.b64decode(encoded.replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        problem = f"the key of pair {number} is not {KEY_BYTES} bytes in base64. Make one: "
        raise SettingsError(variable, f"{problem}openssl rand -base64 {KEY_BYTES}")
    return key
