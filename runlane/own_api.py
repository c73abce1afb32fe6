"""The API of `runlane up`, as commands of the same user find it: by files in its data directory.

| file | what |
|---|---|
| `api.json` | where it listens, and whose word its token is |
| `api.token` | the token, for its owner alone |
"""

import asyncio
import hashlib
import json
import os
import platform
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from ledger import LedgerError
from runlane import tokens
from runlane.api_client import ApiClient
from runlane.errors import RunlaneError
from runlane.ledger_access import open_ledger
from runlane.person import person
from runlane.roles import Role
from runlane.settings import Settings, SettingsError

FILE = "api.json"
TOKEN_FILE = "api.token"  # noqa: S105 - a file's name

_LEAVES_WITHIN = 3.0
"""Seconds for the ledger: somebody waits for `up` to end."""
_LISTENS_WITHIN = 1.0
"""Seconds in which a server on this machine takes a connection."""


async def let_in(settings: Settings, data_dir: Path, url: str) -> bool:
    """Make a token for the user of `up`, in place of the one of the last start, and leave it here.

    Args:
        settings: of `up`; say who its user is, and where the ledger lies.
        data_dir: of `up`.
        url: of the API, with `/v1`.

    Returns:
        Whether somebody has made a token: then the API serves nobody without one.

    Raises:
        RunlaneError: the ledger doesn't answer, or can't be used.
        LedgerError: likewise.
        OSError: the files can't be written.
    """
    me = person(settings)
    async with await open_ledger(replace(settings, data_dir=data_dir)) as ledger:
        name = _name(data_dir)
        # There is none, or the `up` before has left it.
        with suppress(tokens.TokenNotFound):
            await tokens.revoke(ledger, name, by=me, is_up=True)
        made = await tokens.create(
            ledger,
            name=name,
            person=me,
            role=Role.ADMIN,
            made_by=me,
            groups=settings.groups,
            is_ups=True,
        )
        is_closed = await ledger.tokens.any_made()
    document = {"url": url, "person": me, "groups": list(settings.groups)}
    await asyncio.to_thread(_write, data_dir / TOKEN_FILE, made.secret + "\n")
    await asyncio.to_thread(_write, data_dir / FILE, json.dumps(document) + "\n")
    return is_closed


async def leave(settings: Settings, data_dir: Path) -> None:
    """Take the files away, and the token back: nothing listens any more.

    Where the ledger takes no word of it in time, the next start takes that token back.
    """
    for name in (FILE, TOKEN_FILE):
        with suppress(OSError):
            (data_dir / name).unlink()
    with suppress(TimeoutError, RunlaneError, LedgerError, SettingsError):
        async with asyncio.timeout(_LEAVES_WITHIN):
            async with await open_ledger(replace(settings, data_dir=data_dir)) as ledger:
                await tokens.revoke(ledger, _name(data_dir), by=person(settings), is_up=True)


async def find(settings: Settings, data_dir: Path | None) -> ApiClient | None:
    """Return the way to the API of the `up` whose data directory this is; None where there is none.

    Its token is the word of its own user: for whoever says that he is somebody else, or of other
    groups, there is none either.

    Args:
        settings: of whoever asks.
        data_dir: of the server that a command talks to.
    """
    if data_dir is None:
        return None
    found = await asyncio.to_thread(_read, data_dir)
    if found is None:
        return None
    document, secret = found
    is_mine = document.get("person") == person(settings)
    url = document.get("url")
    if not is_mine or document.get("groups") != list(settings.groups) or not isinstance(url, str):
        return None
    if not await _listens(url):
        # That `up` was killed, and somebody else serves what it has left.
        return None
    remedy = f"The token in {data_dir / TOKEN_FILE} counts no more; restart `runlane up`."
    return ApiClient(url, secret, remedy=remedy)


async def _listens(url: str) -> bool:
    try:
        place = httpx.URL(url)
        async with asyncio.timeout(_LISTENS_WITHIN):
            _, writer = await asyncio.open_connection(place.host, place.port)
    except (OSError, httpx.InvalidURL):
        return False
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return True


def _name(data_dir: Path) -> str:
    """Return the token's name: several of `up` may share one database."""
    place = f"{platform.node()} {data_dir}"
    return f"up-{hashlib.sha256(place.encode(errors='surrogateescape')).hexdigest()[:8]}"


def _read(data_dir: Path) -> tuple[dict[str, Any], str] | None:
    try:
        document = json.loads((data_dir / FILE).read_text(encoding="utf-8"))
        secret = (data_dir / TOKEN_FILE).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    return (document, secret) if isinstance(document, dict) and secret else None


def _write(path: Path, text: str) -> None:
    # It is made for its owner alone, and never seen half written.
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)
