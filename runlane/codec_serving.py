"""Serving the codec server: which keys it has, whom it lets in, and where it listens."""

import asyncio
import ipaddress
import json
import os
import secrets
import sys
from collections.abc import Mapping
from typing import NamedTuple

import uvicorn

from runlane.codec_server import CodecServer
from runlane.encryption import EncryptionCodec
from runlane.errors import InvalidRequest
from runlane.listening import Server, listener, url_of
from runlane.monitoring import logs
from runlane.settings import Settings
from runlane.temporal import find_converter

SHORTEST_TOKEN = 16
_GRACE_SECONDS = 2


class _Door(NamedTuple):
    """Whom the server lets in."""

    token: str
    made: bool
    """Here and now, so that it must be told."""


def run_codec_server(
    *, host: str, port: int, as_json: bool, environ: Mapping[str, str] = os.environ
) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        InvalidRequest: there is no key, or no token although others than this machine may ask.
        TemporalUnreachable: keys are looked for in Temporal, and it doesn't answer.
        RunlaneError: the port can't be used.
        SettingsError: a variable can't be used.
    """
    settings = Settings.from_env(environ)
    door = _door(settings, host)
    logs.set_up(settings.log_format)
    asyncio.run(_run(settings, door, host, port, as_json=as_json, environ=environ))


def _door(settings: Settings, host: str) -> _Door:
    token = settings.codec_token
    if token is None:
        if not _is_loopback(host):
            text = (
                f"On {host} others than this machine can ask for contents. Set RUNLANE_CODEC_TOKEN "
                f"to a secret of {SHORTEST_TOKEN} characters or more, or leave --host out."
            )
            raise InvalidRequest(text, param="RUNLANE_CODEC_TOKEN", code="no_token")
        return _Door(secrets.token_urlsafe(24), made=True)
    if len(token) < SHORTEST_TOKEN:
        text = f"RUNLANE_CODEC_TOKEN is too short: {SHORTEST_TOKEN} characters are the least."
        raise InvalidRequest(text, param="RUNLANE_CODEC_TOKEN")
    return _Door(token, made=False)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _run(
    settings: Settings,
    door: _Door,
    host: str,
    port: int,
    *,
    as_json: bool,
    environ: Mapping[str, str],
) -> None:
    converter = await find_converter(settings, environ=environ)
    codec = converter.payload_codec
    if not isinstance(codec, EncryptionCodec):
        text = (
            "There is no key to decrypt with. Set RUNLANE_ENCRYPTION_KEYS, or RUNLANE_DATA_DIR to "
            "the data directory of runlane up."
        )
        raise InvalidRequest(text, param="RUNLANE_ENCRYPTION_KEYS", code="no_key")
    app = CodecServer(converter, token=door.token, origins=settings.codec_origins).app
    with listener(host, port) as opened:
        url = url_of(opened)
        config = uvicorn.Config(
            app,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )

        def tell() -> None:
            _tell(settings, door, url, codec.key_ids, as_json=as_json)

        await Server(config, tell).serve_until_told(opened)


def _tell(settings: Settings, door: _Door, url: str, key_ids: list[str], *, as_json: bool) -> None:
    token = door.token if door.made else "$RUNLANE_CODEC_TOKEN"
    if as_json:
        document = {
            "url": url,
            "pid": os.getpid(),
            "keys": key_ids,
            "origins": list(settings.codec_origins),
            "token": door.token if door.made else None,
        }
        sys.stdout.write(json.dumps(document) + "\n")
    else:
        sys.stdout.write("\n".join(_lines(settings, token, url, key_ids)) + "\n")
    sys.stdout.flush()


def _keys(ids: list[str]) -> str:
    return f"key{'s' if len(ids) > 1 else ''} {', '.join(ids)}"


def _lines(settings: Settings, token: str, url: str, key_ids: list[str]) -> list[str]:
    lines = [
        f"Codec server at {url}, with {_keys(key_ids)}. Stop it with Ctrl-C.",
        "",
        "On Temporal's command line:",
        # Not as options: everybody on the machine sees those of a process.
        f'  export TEMPORAL_CODEC_ENDPOINT={url} TEMPORAL_CODEC_AUTH="Bearer {token}"',
        "  temporal workflow show -w RUN_ID",
    ]
    if settings.codec_origins:
        return [
            *lines,
            f"In Temporal's UI, at {', '.join(settings.codec_origins)}, as codec server endpoint:",
            f"  {url}/{token}",
        ]
    return [
        *lines,
        "Temporal's UI may not ask: RUNLANE_CODEC_ORIGINS names no web page. For the one of",
        "runlane up:  RUNLANE_CODEC_ORIGINS=http://127.0.0.1:8233",
    ]
