"""What the environment says about Runlane, read once and handed on as values.

Temporal's own variables (address, namespace, API key, TLS, profile) are not here:
`temporalio.envconfig` reads them, in `runlane.temporal`.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from runlane.durations import DurationError, parse_duration
from workflows.contract import DEFAULT_TASK_QUEUE, poll_task_queue

DEFAULT_UPSTREAM_TIMEOUT = timedelta(seconds=60)
MAX_UPSTREAM_TIMEOUT = timedelta(seconds=80)
"""Within the time that Temporal gives an activity, or a second request would start beside it."""


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


@dataclass(frozen=True)
class S3Location:
    """Where in S3 the big payloads lie."""

    bucket: str
    prefix: str
    """Without slashes at its ends; empty for the bucket's root."""

    def __str__(self) -> str:
        """The location as it is written in `RUNLANE_PAYLOAD_STORE`."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything Runlane reads from its environment.

    A variable that is empty counts as unset.

    | variable | meaning |
    |---|---|
    | `RUNLANE_UPSTREAM_URL` | base URL of the upstream, `http(s)://…`, without credentials |
    | `RUNLANE_UPSTREAM_API_KEY` | its key |
    | `RUNLANE_UPSTREAM_API_KEY_FILE` | a file that holds its key; not together with the former |
    | `RUNLANE_UPSTREAM_API_VERSION` | sent as `api-version` with every request (Azure) |
    | `RUNLANE_UPSTREAM_AUTH` | `bearer` (default), `api-key` or `azure` |
    | `RUNLANE_UPSTREAM_TIMEOUT` | one request: `30s` or seconds, at most 80; default `60s` |
    | `RUNLANE_TASK_QUEUE` | Temporal task queue; default `runlane`; polls use `<queue>-poll` |
    | `RUNLANE_DATA_DIR` | directory of the embedded server's state and of big payloads |
    | `RUNLANE_PAYLOAD_STORE` | `s3://bucket/prefix`: big payloads there instead (`runlane[s3]`) |
    """

    upstream_url: str | None = None
    """Without a slash at its end. None: this process talks to Temporal only."""
    upstream_api_key: str | None = field(default=None, repr=False)
    """As given inline; ask `read_upstream_api_key`, which knows the file too."""
    upstream_api_key_file: Path | None = None
    upstream_api_version: str | None = None
    upstream_auth: UpstreamAuth = UpstreamAuth.BEARER
    upstream_timeout: timedelta = DEFAULT_UPSTREAM_TIMEOUT
    """Of one request to the upstream."""
    task_queue: str = DEFAULT_TASK_QUEUE
    data_dir: Path | None = None
    """None: nobody said; `runlane.temporal.connect` then asks the namespace."""
    payload_store: S3Location | None = None
    """None: big payloads lie under the data directory."""

    @property
    def poll_task_queue(self) -> str:
        """The task queue of attached polls, so that they never take a slot from an effect."""
        return poll_task_queue(self.task_queue)

    def read_upstream_api_key(self) -> str | None:
        """The upstream's key, from the environment or its file; None when neither is set.

        The file is read at each call, so a rotated secret needs no new settings.

        Raises:
            SettingsError: the file can't be read or is empty.
        """
        if self.upstream_api_key_file is None:
            return self.upstream_api_key
        try:
            key = self.upstream_api_key_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            # The cause stays out of the chain: a UnicodeDecodeError carries the file's bytes.
            reason = error.strerror if isinstance(error, OSError) else "not a text file"
            problem = f"can't read {self.upstream_api_key_file}: {reason}."
            raise SettingsError("RUNLANE_UPSTREAM_API_KEY_FILE", problem) from None
        if not key:
            problem = f"{self.upstream_api_key_file} is empty."
            raise SettingsError("RUNLANE_UPSTREAM_API_KEY_FILE", problem)
        return _header_safe("RUNLANE_UPSTREAM_API_KEY_FILE", key)

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Read the variables listed on the class; nothing but `environ` is looked at.

        Raises:
            SettingsError: a value can't be used, or two values exclude each other.
        """
        value = {name: text.strip() for name, text in environ.items() if text.strip()}
        key = value.get("RUNLANE_UPSTREAM_API_KEY")
        key_file = value.get("RUNLANE_UPSTREAM_API_KEY_FILE")
        if key and key_file:
            problem = "set together with RUNLANE_UPSTREAM_API_KEY; unset one of them."
            raise SettingsError("RUNLANE_UPSTREAM_API_KEY_FILE", problem)
        auth = _auth(value.get("RUNLANE_UPSTREAM_AUTH"))
        if auth is UpstreamAuth.AZURE and (key or key_file):
            problem = (
                "azure takes its token from Azure, but a key is set too; unset "
                "RUNLANE_UPSTREAM_API_KEY and RUNLANE_UPSTREAM_API_KEY_FILE, or say api-key."
            )
            raise SettingsError("RUNLANE_UPSTREAM_AUTH", problem)
        data_dir = value.get("RUNLANE_DATA_DIR")
        return cls(
            upstream_url=_url(value.get("RUNLANE_UPSTREAM_URL")),
            upstream_api_key=_header_safe("RUNLANE_UPSTREAM_API_KEY", key) if key else None,
            upstream_api_key_file=Path(key_file) if key_file else None,
            upstream_api_version=value.get("RUNLANE_UPSTREAM_API_VERSION"),
            upstream_auth=auth,
            upstream_timeout=_timeout(value.get("RUNLANE_UPSTREAM_TIMEOUT")),
            task_queue=value.get("RUNLANE_TASK_QUEUE", DEFAULT_TASK_QUEUE),
            data_dir=Path(data_dir) if data_dir else None,
            payload_store=_s3_location(value.get("RUNLANE_PAYLOAD_STORE")),
        )


def _header_safe(variable: str, key: str) -> str:
    # httpx reports a bad header by printing it, and the key would stand in the traceback.
    if not (key.isascii() and key.isprintable()):
        raise SettingsError(variable, "holds a character that no HTTP header can carry.")
    return key


def _auth(text: str | None) -> UpstreamAuth:
    if text is None:
        return UpstreamAuth.BEARER
    try:
        return UpstreamAuth(text)
    except ValueError:
        problem = f"{text!r} is not one of {', '.join(UpstreamAuth)}."
        raise SettingsError("RUNLANE_UPSTREAM_AUTH", problem) from None


def _url(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname)
        # `.port` raises ValueError when it is no number or out of range.
        usable = usable and parts.port != 0
    except ValueError:
        usable = False
    # The value itself is not repeated: it may hold a password.
    if not usable:
        problem = "not a URL of the form https://host[:port][/path]."
        raise SettingsError("RUNLANE_UPSTREAM_URL", problem)
    if parts.username is not None or parts.password is not None:
        problem = "holds credentials; put the key into RUNLANE_UPSTREAM_API_KEY."
        raise SettingsError("RUNLANE_UPSTREAM_URL", problem)
    if parts.query or parts.fragment:
        problem = "ends in a query; put a version into RUNLANE_UPSTREAM_API_VERSION."
        raise SettingsError("RUNLANE_UPSTREAM_URL", problem)
    return text.rstrip("/")


def _timeout(text: str | None) -> timedelta:
    if text is None:
        return DEFAULT_UPSTREAM_TIMEOUT
    try:
        timeout = parse_duration(text)
    except DurationError as error:
        raise SettingsError("RUNLANE_UPSTREAM_TIMEOUT", str(error)) from None
    if not timedelta(0) < timeout <= MAX_UPSTREAM_TIMEOUT:
        problem = f"must be more than 0 and at most {MAX_UPSTREAM_TIMEOUT.seconds} seconds."
        raise SettingsError("RUNLANE_UPSTREAM_TIMEOUT", problem)
    return timeout


def _s3_location(text: str | None) -> S3Location | None:
    if text is None:
        return None
    try:
        parts = urlsplit(text)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment:
        problem = f"{text!r} is not of the form s3://bucket/prefix."
        raise SettingsError("RUNLANE_PAYLOAD_STORE", problem)
    return S3Location(bucket=parts.netloc, prefix=parts.path.strip("/"))
