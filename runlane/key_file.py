"""The key that `runlane up` makes: a file in its data directory, found by all who know that one.

Whoever loses it loses what it encrypted. So it is never overwritten, and never made where runs
stand that another one encrypted (`runlane.key_check`).
"""

import base64
import os
import secrets
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from runlane.setting_values import KEY_BYTES, encryption_keys
from runlane.settings import EncryptionKey, SettingsError

NAME = "encryption.keys"
"""In the data directory; written as `RUNLANE_ENCRYPTION_KEYS_FILE` takes it."""

MADE = "up-"
"""How the id of a key begins that was made here."""

PUT_BACK = (
    "Put a copy of it back, or set RUNLANE_ENCRYPTION_KEYS to what stood in it. Without a copy the "
    "runs of this directory are lost: nobody can read them, or go on with them. To begin anew, "
    "choose another directory: runlane up --data-dir DIR"
)
"""What to do about a file that is lost."""


def read(data_dir: Path) -> tuple[EncryptionKey, ...]:
    """Return the keys of a data directory; none where it has no file of them.

    Raises:
        SettingsError: the file can't be read, or doesn't hold keys.
    """
    path = data_dir / NAME
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return ()
    except OSError as error:
        raise SettingsError(str(path), f"can't be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        # The cause stays out of the chain: it carries the file's bytes.
        raise SettingsError(str(path), f"is damaged. {PUT_BACK}") from None
    try:
        keys = encryption_keys(str(path), text)
    except SettingsError:
        # What it says of a variable, to make another key, would be the wrong advice here.
        raise SettingsError(str(path), f"is damaged. {PUT_BACK}") from None
    if not keys:
        raise SettingsError(str(path), f"is empty. {PUT_BACK}")
    return keys


def make(data_dir: Path) -> tuple[EncryptionKey, ...]:
    """Make a key in a data directory, readable by its owner alone; one that is there stays.

    Raises:
        SettingsError: the file can't be written, or one is there and can't be used.
    """
    # A new name for each: a key that is lost can then be told from one that has other bytes.
    key = EncryptionKey(f"{MADE}{secrets.token_hex(4)}", secrets.token_bytes(KEY_BYTES))
    try:
        _write(data_dir, f"{key.id}:{base64.b64encode(key.key).decode()}\n")
    except OSError as error:
        raise SettingsError(str(data_dir / NAME), f"can't be made: {error.strerror}.") from None
    return read(data_dir)


def beside(
    first: Sequence[EncryptionKey], then: Sequence[EncryptionKey]
) -> tuple[EncryptionKey, ...]:
    """Return both, without what `then` has under a name of `first`."""
    names = {key.id for key in first}
    return (*first, *(key for key in then if key.id not in names))


def _write(data_dir: Path, text: str) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=data_dir, prefix=".key-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        # A link, not a rename: it fails where a file is there already.
        with suppress(FileExistsError):
            os.link(temporary, data_dir / NAME)
    finally:
        Path(temporary).unlink(missing_ok=True)
    directory = os.open(data_dir, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
