"""Opening the ledger that the settings name: in the data directory, or a PostgreSQL.

What people and models wrote is encrypted in it by the keys that encrypt payloads, where there are
any.
"""

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from temporalio.client import Client

from ledger import Ledger, LedgerError, LedgerRefused, LedgerUnavailable, Location
from runlane import key_file
from runlane.encryption import unknown_key
from runlane.errors import CannotDecrypt, LedgerUnreachable, LedgerUnusable
from runlane.settings import EncryptionKey, Settings, SettingsError
from runlane.temporal import find_data_dir

# Both stand in ledgers: changing one strands what was stored under it.
_PLAIN = b"\0"
_SEALED = b"\1"

_PURPOSE = b"runlane ledger 1"
_NONCE_BYTES = 12

NOWHERE = (
    "is not set, and neither is RUNLANE_DATA_DIR: nobody says where the ledger is to lie. Set "
    "RUNLANE_DATA_DIR to a directory of this machine, or RUNLANE_DATABASE_URL to a PostgreSQL; "
    "workers on several machines need the latter."
)


class KeySealing:
    """Seals contents by AES-256-GCM with the first key, and opens what any of the keys sealed.

    Without a key it seals nothing, and opens what was stored so.
    """

    def __init__(self, keys: Sequence[EncryptionKey]) -> None:
        """Use these keys."""
        self._ciphers = {key.id: AESGCM(key.key) for key in keys}

    def seal(self, body: bytes) -> bytes:
        """Return what is stored."""
        if not self._ciphers:
            return _PLAIN + body
        key_id, cipher = next(iter(self._ciphers.items()))
        name, nonce = key_id.encode(), os.urandom(_NONCE_BYTES)
        sealed = cipher.encrypt(nonce, body, _PURPOSE + name)
        return _SEALED + len(name).to_bytes() + name + nonce + sealed

    def unseal(self, stored: bytes) -> bytes:
        """Return what was given to `seal`.

        Raises:
            CannotDecrypt: its key is unknown or another one, or it was changed.
        """
        if stored[:1] != _SEALED:
            return stored[1:]
        start = 2 + stored[1]
        name = stored[2:start]
        key_id = name.decode(errors="replace")
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise unknown_key(key_id, list(self._ciphers))
        nonce, sealed = stored[start : start + _NONCE_BYTES], stored[start + _NONCE_BYTES :]
        try:
            return cipher.decrypt(nonce, sealed, _PURPOSE + name)
        except (InvalidTag, ValueError):
            text = f"the key {key_id!r} is not the one that encrypted the ledger's contents."
            raise CannotDecrypt(key_id, text) from None


def named(settings: Settings, data_dir: Path | None) -> Location | None:
    """Return where the ledger lies; None where nobody says.

    Args:
        settings: the URL of a PostgreSQL in them goes first.
        data_dir: where it lies otherwise.

    Raises:
        SettingsError: the URL can't be used, or its file can't be read.
    """
    url = settings.read_database_url()
    if url is None:
        return None if data_dir is None else Location.in_directory(data_dir)
    try:
        return Location.from_url(url)
    except LedgerRefused as error:
        raise SettingsError("RUNLANE_DATABASE_URL", str(error)) from None


async def open_ledger(settings: Settings, client: Client | None = None) -> Ledger:
    """Open the ledger, its schema brought up to date.

    Args:
        settings: say where it lies, and with which keys its contents are encrypted.
        client: asked for the data directory of its server, where the settings name none.

    Raises:
        SettingsError: nobody says where it lies, or what is said can't be used.
        LedgerUnreachable: it doesn't answer, or its directory can't be written.
        LedgerUnusable: a newer Runlane has changed its schema, or the driver is missing.
    """
    data_dir = settings.data_dir
    if data_dir is None and client is not None:
        data_dir = await find_data_dir(client)
    location = named(settings, data_dir)
    if location is None:
        raise SettingsError("RUNLANE_DATABASE_URL", NOWHERE)
    keys = settings.read_encryption_keys()
    if data_dir is not None:
        keys = key_file.beside(keys, await asyncio.to_thread(key_file.read, data_dir))
    try:
        return await Ledger.open(location, KeySealing(keys))
    except LedgerUnavailable as error:
        raise LedgerUnreachable(str(error)) from None
    except LedgerError as error:
        raise LedgerUnusable(str(error)) from None
