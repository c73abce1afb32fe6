"""What the environment says about Runlane, read once and handed on as values.

Temporal's own variables (address, namespace, API key, TLS, profile) are not here:
`temporalio.envconfig` reads them, in `runlane.temporal`.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

from runlane import setting_values as values
from runlane.setting_values import (
    Address,
    EncryptionKey,
    LogFormat,
    S3Location,
    SettingsError,
    UpstreamAuth,
)
from workflows.contract import DEFAULT_TASK_QUEUE
from workflows.task_queues import poll_task_queue

__all__ = [
    "Address",
    "EncryptionKey",
    "LogFormat",
    "S3Location",
    "Settings",
    "SettingsError",
    "UpstreamAuth",
]

DEFAULT_UPSTREAM_TIMEOUT = timedelta(seconds=60)
MAX_UPSTREAM_TIMEOUT = timedelta(minutes=10)
"""Some requests and their waiting fit into the time that Temporal gives an activity."""
MAX_CONCURRENCY = 10_000
MAX_RPS = 10_000.0

_T = TypeVar("_T")


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
    | `RUNLANE_UPSTREAM_TIMEOUT` | one request: `90s`, `5m`, seconds; default `60s`, at most `10m` |
    | `RUNLANE_UPSTREAM_MAX_CONCURRENCY` | requests that one worker has under way at a time |
    | `RUNLANE_UPSTREAM_RPS` | requests a second that one worker makes, `0.5` too |
    | `RUNLANE_TASK_QUEUE` | Temporal task queue; default `runlane`; polls use `<queue>-poll` |
    | `RUNLANE_DATA_DIR` | directory of the embedded server's state and of big payloads |
    | `RUNLANE_DATABASE_URL` | `postgresql://…`: the ledger there, not in the data directory |
    | `RUNLANE_DATABASE_URL_FILE` | a file that holds the URL; not together with the former |
    | `RUNLANE_AUDIT_KEY` | a file: the private key that signs checkpoints and exports |
    | `RUNLANE_CHECKPOINT_DIRECTORY` | where workers keep a copy of each checkpoint |
    | `RUNLANE_RETENTION_DAYS` | `contents=90,audit=3650`: the ledger removes what is older |
    | `RUNLANE_PAYLOAD_STORE` | `s3://bucket/prefix`: big payloads there instead (`runlane[s3]`) |
    | `RUNLANE_ENCRYPTION_KEYS` | `id:key,…`, keys of 32 bytes in base64; the first encrypts |
    | `RUNLANE_ENCRYPTION_KEYS_FILE` | a file that holds them; not together with the former |
    | `RUNLANE_CODEC_TOKEN` | what the codec server asks of its callers |
    | `RUNLANE_CODEC_ORIGINS` | `https://host,…`: web pages that may use the codec server |
    | `RUNLANE_METRICS_ADDRESS` | `host:port` of a worker's metrics and health |
    | `RUNLANE_LOG_FORMAT` | `text` (default) or `json` |
    | `RUNLANE_TOOLS` | `shop.tools,…`: modules in which `@runlane.tool` declares tools |
    | `RUNLANE_CONFIG_FILE` | declares HTTP tools; default `runlane.toml`, where there is one |
    | `RUNLANE_DECISION_KEY` | a file with the private key that signs decisions |
    | `RUNLANE_DECISION_PUBLIC_KEYS` | a file with the public ones, by which workers know them |
    | `RUNLANE_PERSON` | who you are where you decide, stop or start; default: the system's user |
    | `RUNLANE_GROUPS` | `desk,board`: your groups, for who may decide |
    | `RUNLANE_WEBHOOK_URL` | `https://host/path,…`: who gets notices about approvals |
    | `RUNLANE_WEBHOOK_SECRET` | `whsec_…`, with which they are signed; several while it changes |
    | `RUNLANE_WEBHOOK_SECRET_FILE` | a file that holds it; not together with the former |
    | `RUNLANE_DEPLOYMENT_NAME` | of Temporal's worker deployment, for versioned workers |
    | `RUNLANE_BUILD_ID` | this worker's version in it; both or none |
    | `RUNLANE_API_URL` | base URL of Runlane's API, through which commands then decide and stop |
    | `RUNLANE_TOKEN` | the token that they show it |
    | `RUNLANE_TOKEN_FILE` | a file that holds it; not together with the former |
    | `RUNLANE_TRUSTED_USER_HEADER` | a header in which a proxy names the person to the API |
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
    upstream_max_concurrency: int | None = None
    upstream_rps: float | None = None
    task_queue: str = DEFAULT_TASK_QUEUE
    data_dir: Path | None = None
    """None: nobody said; `runlane.temporal.connect` then asks the namespace."""
    database_url: str | None = field(default=None, repr=False)
    """As given inline, password included; ask `read_database_url`, which knows the file too."""
    database_url_file: Path | None = None
    audit_key: Path | None = None
    """None: `audit.key` in the data directory, made where it isn't there."""
    checkpoint_directory: Path | None = None
    """None: checkpoints stand in the ledger alone."""
    retention_days: tuple[tuple[str, int], ...] = ()
    """Table and days; of a table that isn't named nothing is removed."""
    payload_store: S3Location | None = None
    """None: big payloads lie under the data directory."""
    encryption_keys: tuple[EncryptionKey, ...] = ()
    """As given inline; ask `read_encryption_keys`, which knows the file too."""
    encryption_keys_file: Path | None = None
    codec_token: str | None = field(default=None, repr=False)
    codec_origins: tuple[str, ...] = ()
    metrics_address: Address | None = None
    """None: nothing is served."""
    log_format: LogFormat = LogFormat.TEXT
    tools: tuple[str, ...] = ()
    """Import paths of modules; `runlane.tools.loading` imports them."""
    config_file: Path | None = None
    """None: nobody said; `runlane.tools.loading` then looks in the working directory."""
    decision_key: Path | None = None
    """None, as is the next: `runlane.decisions.keys` then looks in the data directory."""
    decision_public_keys: Path | None = None
    person: str | None = None
    """None: nobody said; `runlane.person` then asks the system."""
    groups: tuple[str, ...] = ()
    webhook_urls: tuple[str, ...] = field(default=(), repr=False)
    """Empty: nobody gets notices. Who knows such a URL can often post there."""
    webhook_secrets: tuple[str, ...] = field(default=(), repr=False)
    """As given inline; ask `read_webhook_secrets`, which knows the file too."""
    webhook_secret_file: Path | None = None
    deployment_name: str | None = None
    build_id: str | None = None
    """None, as is the deployment's name: the worker is not versioned."""
    api_url: str | None = None
    """With `/v1` at its end. None: commands do their work by themselves."""
    token: str | None = field(default=None, repr=False)
    """As given inline; ask `read_token`, which knows the file too."""
    token_file: Path | None = None
    trusted_user_header: str | None = None
    """In small letters. None: whatever a proxy says of persons is not listened to."""

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
        variable = "RUNLANE_UPSTREAM_API_KEY_FILE"
        key = values.secret_file(variable, self.upstream_api_key_file)
        return values.header_value(variable, key)

    def read_encryption_keys(self) -> tuple[EncryptionKey, ...]:
        """The keys for payloads, the first to encrypt with; empty when none is set.

        Raises:
            SettingsError: their file can't be read, or doesn't hold such keys.
        """
        if self.encryption_keys_file is None:
            return self.encryption_keys
        variable = "RUNLANE_ENCRYPTION_KEYS_FILE"
        return values.encryption_keys(
            variable, values.secret_file(variable, self.encryption_keys_file)
        )

    def read_webhook_secrets(self) -> tuple[str, ...]:
        """The keys that notices are signed with, each of them; empty when none is set.

        Raises:
            SettingsError: their file can't be read, or doesn't hold such keys.
        """
        if self.webhook_secret_file is None:
            return self.webhook_secrets
        variable = "RUNLANE_WEBHOOK_SECRET_FILE"
        return values.webhook_secrets(
            variable, values.secret_file(variable, self.webhook_secret_file)
        )

    def read_database_url(self) -> str | None:
        """The URL of the ledger's PostgreSQL; None: it is a file in the data directory.

        Raises:
            SettingsError: the file can't be read, or doesn't hold such a URL.
        """
        if self.database_url_file is None:
            return self.database_url
        variable = "RUNLANE_DATABASE_URL_FILE"
        return values.database_url(variable, values.secret_file(variable, self.database_url_file))

    def read_token(self) -> str | None:
        """The token for Runlane's API; None when none is set.

        Raises:
            SettingsError: the file can't be read or is empty.
        """
        if self.token_file is None:
            return self.token
        variable = "RUNLANE_TOKEN_FILE"
        return values.header_value(variable, values.secret_file(variable, self.token_file))

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Read the variables listed on the class; nothing but `environ` is looked at.

        Raises:
            SettingsError: a value can't be used, or two values exclude each other.
        """
        value = {name: text.strip() for name, text in environ.items() if text.strip()}
        _check_together(value)

        def read(variable: str, reader: Callable[[str, str | None], _T]) -> _T:
            return reader(variable, value.get(variable))

        return cls(
            upstream_url=read("RUNLANE_UPSTREAM_URL", values.url),
            upstream_api_key=read("RUNLANE_UPSTREAM_API_KEY", values.header_value),
            upstream_api_key_file=read("RUNLANE_UPSTREAM_API_KEY_FILE", values.path),
            upstream_api_version=value.get("RUNLANE_UPSTREAM_API_VERSION"),
            upstream_auth=UpstreamAuth(
                read("RUNLANE_UPSTREAM_AUTH", partial(values.one_of, UpstreamAuth))
                or UpstreamAuth.BEARER
            ),
            upstream_timeout=read(
                "RUNLANE_UPSTREAM_TIMEOUT", partial(values.duration, MAX_UPSTREAM_TIMEOUT)
            )
            or DEFAULT_UPSTREAM_TIMEOUT,
            upstream_max_concurrency=read(
                "RUNLANE_UPSTREAM_MAX_CONCURRENCY", partial(values.count, MAX_CONCURRENCY)
            ),
            upstream_rps=read("RUNLANE_UPSTREAM_RPS", partial(values.rate, MAX_RPS)),
            task_queue=value.get("RUNLANE_TASK_QUEUE", DEFAULT_TASK_QUEUE),
            data_dir=read("RUNLANE_DATA_DIR", values.path),
            database_url=read("RUNLANE_DATABASE_URL", values.database_url),
            database_url_file=read("RUNLANE_DATABASE_URL_FILE", values.path),
            audit_key=read("RUNLANE_AUDIT_KEY", values.path),
            checkpoint_directory=read("RUNLANE_CHECKPOINT_DIRECTORY", values.path),
            retention_days=read("RUNLANE_RETENTION_DAYS", values.retention_days),
            payload_store=read("RUNLANE_PAYLOAD_STORE", values.s3_location),
            encryption_keys=read("RUNLANE_ENCRYPTION_KEYS", values.encryption_keys),
            encryption_keys_file=read("RUNLANE_ENCRYPTION_KEYS_FILE", values.path),
            codec_token=read("RUNLANE_CODEC_TOKEN", values.header_value),
            codec_origins=read("RUNLANE_CODEC_ORIGINS", values.origins),
            metrics_address=read("RUNLANE_METRICS_ADDRESS", values.address),
            log_format=LogFormat(
                read("RUNLANE_LOG_FORMAT", partial(values.one_of, LogFormat)) or LogFormat.TEXT
            ),
            tools=read("RUNLANE_TOOLS", values.modules),
            config_file=read("RUNLANE_CONFIG_FILE", values.path),
            decision_key=read("RUNLANE_DECISION_KEY", values.path),
            decision_public_keys=read("RUNLANE_DECISION_PUBLIC_KEYS", values.path),
            person=read("RUNLANE_PERSON", values.name),
            groups=read("RUNLANE_GROUPS", values.names),
            webhook_urls=read("RUNLANE_WEBHOOK_URL", values.webhook_urls),
            webhook_secrets=read("RUNLANE_WEBHOOK_SECRET", values.webhook_secrets),
            webhook_secret_file=read("RUNLANE_WEBHOOK_SECRET_FILE", values.path),
            deployment_name=value.get("RUNLANE_DEPLOYMENT_NAME"),
            build_id=value.get("RUNLANE_BUILD_ID"),
            api_url=read("RUNLANE_API_URL", values.api_url),
            token=read("RUNLANE_TOKEN", values.header_value),
            token_file=read("RUNLANE_TOKEN_FILE", values.path),
            trusted_user_header=read("RUNLANE_TRUSTED_USER_HEADER", values.header_name),
        )


def _check_together(value: Mapping[str, str]) -> None:
    """Refuse values of which each is good, and both together contradict each other."""
    secrets = (
        "RUNLANE_UPSTREAM_API_KEY", "RUNLANE_ENCRYPTION_KEYS", "RUNLANE_WEBHOOK_SECRET",
        "RUNLANE_DATABASE_URL", "RUNLANE_TOKEN",
    )  # fmt: skip
    for name in secrets:
        if name in value and f"{name}_FILE" in value:
            raise SettingsError(f"{name}_FILE", f"set together with {name}; unset one of them.")
    if value.get("RUNLANE_UPSTREAM_AUTH") == UpstreamAuth.AZURE and (
        "RUNLANE_UPSTREAM_API_KEY" in value or "RUNLANE_UPSTREAM_API_KEY_FILE" in value
    ):
        raise SettingsError(
            "RUNLANE_UPSTREAM_AUTH",
            "azure takes its token from Azure, but a key is set too; unset "
            "RUNLANE_UPSTREAM_API_KEY and RUNLANE_UPSTREAM_API_KEY_FILE, or say api-key.",
        )
    names = ("RUNLANE_DEPLOYMENT_NAME", "RUNLANE_BUILD_ID")
    for name, other in (names, names[::-1]):
        if name in value and other not in value:
            raise SettingsError(other, f"must be set, for {name} is.")
