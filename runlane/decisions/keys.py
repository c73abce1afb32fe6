"""Where the keys of decisions lie: `up` makes a pair, faces sign with one, workers know the other.

The private key makes decisions count, so a worker that is told only the public one can't make any.
"""

import os
import tempfile
from pathlib import Path

from activities.decision import NoKeys, Verifier
from ledger.signing import KeyUnusable, PublicKey, Signer
from runlane.decisions.signing import Signatures
from runlane.errors import InvalidRequest
from runlane.setting_values import SettingsError
from runlane.settings import Settings

FILE = "decision.key"
"""The private key in a data directory: PEM, without a password, for its owner alone."""
PUBLIC_FILE = "decision.pub"
"""The public ones beside it; `RUNLANE_DECISION_PUBLIC_KEYS` takes a copy."""
NO_KEY = "no_decision_key"
"""The code of an error: nothing names a key."""

_PUBLIC = "RUNLANE_DECISION_PUBLIC_KEYS"
_PRIVATE = "RUNLANE_DECISION_KEY"
_END = "-----END PUBLIC KEY-----"


def make(data_dir: Path) -> bool:
    """Make a data directory's keys where there are none; tell whether one was made.

    A public key that stands there stays, for calls may wait that were approved with its private
    one. To trust it no more, remove both files.

    Raises:
        SettingsError: they can't be read or made.
    """
    path = data_dir / FILE
    is_new = not path.exists()
    try:
        signer = Signer.in_directory(data_dir, FILE)
    except KeyUnusable as error:
        raise SettingsError(str(path), f"the key of decisions: {error}") from None
    public = data_dir / PUBLIC_FILE
    known = _public_keys(str(public), public) if public.exists() else []
    if signer.public.id not in {key.id for key in known}:
        try:
            _write(public, "".join(key.pem for key in (signer.public, *known)))
        except OSError as error:
            raise SettingsError(str(public), f"can't be made: {error.strerror}.") from None
    return is_new


def signer(settings: Settings, data_dir: Path | None) -> Signer:
    """Return the key with which a face signs: the settings', or the data directory's.

    Args:
        settings: of the face.
        data_dir: of the Temporal that it talks to, where that is this machine's.

    Raises:
        SettingsError: the file that the settings name can't be used.
        InvalidRequest: nothing names a key.
    """
    path = settings.decision_key
    if path is None and data_dir is not None and (data_dir / FILE).exists():
        path = data_dir / FILE
    if path is None:
        raise InvalidRequest(
            "There is no key to sign decisions with. `runlane up` makes one in its data "
            f"directory; elsewhere set {_PRIVATE} to its file.",
            param=_PRIVATE,
            code=NO_KEY,
        )
    try:
        return Signer.from_file(path)
    except KeyUnusable as error:
        raise SettingsError(_PRIVATE, str(error)) from None


def verifier(settings: Settings, data_dir: Path | None) -> Verifier:
    """Return what a worker verifies decisions with; without a key that is nothing, so none counts.

    Args:
        settings: of the worker.
        data_dir: of the Temporal that it serves, where that is this machine's.

    Raises:
        SettingsError: a file can't be read, or doesn't hold such keys.
    """
    if settings.decision_public_keys is not None:
        return Signatures(_public_keys(_PUBLIC, settings.decision_public_keys))
    if data_dir is not None and (data_dir / PUBLIC_FILE).exists():
        return Signatures(_public_keys(_PUBLIC, data_dir / PUBLIC_FILE))
    return NoKeys()


def _public_keys(variable: str, path: Path) -> list[PublicKey]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(variable, f"{path} can't be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise SettingsError(variable, f"{path} holds no public keys in PEM.") from None
    blocks = [block + _END for block in text.split(_END)[:-1]]
    if not blocks:
        raise SettingsError(variable, f"{path} holds no public key in PEM.")
    try:
        return [
            PublicKey.from_pem(block, f"{path}: key {number}")
            for number, block in enumerate(blocks, 1)
        ]
    except KeyUnusable as error:
        raise SettingsError(variable, str(error)) from None


def _write(path: Path, text: str) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".key-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)
