"""Keys that sign (Ed25519): checkpoints and exports, and whatever else has a context of its own.

A signature covers its context and what kind of statement it is, so none can be passed off as
another.
"""

import base64
import binascii
import hashlib
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ledger import chain
from ledger.errors import LedgerError

FILE = "audit.key"
"""The private key in a data directory: PEM, without a password."""

_CONTEXT = b"runlane audit 1\n"


class KeyUnusable(LedgerError):
    """A key can't be read, or is none of Ed25519; the text names its file."""


class PublicKey:
    """What verifies."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        """Wrap it."""
        self._key = key
        raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        self.id = hashlib.sha256(raw).hexdigest()[:16]
        """Names the key in what it signed."""

    @property
    def pem(self) -> str:
        """As it is handed to those who verify."""
        return self._key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ).decode()

    @classmethod
    def from_pem(cls, text: str, where: str = "The public key") -> "PublicKey":
        """Read one.

        Raises:
            KeyUnusable: it is none.
        """
        try:
            key = serialization.load_pem_public_key(text.encode())
        except (ValueError, UnsupportedAlgorithm):
            raise KeyUnusable(f"{where} is not a public key in PEM.") from None
        if not isinstance(key, Ed25519PublicKey):
            raise KeyUnusable(f"{where} is not an Ed25519 key.")
        return cls(key)

    def has_signed(self, statement: dict[str, Any]) -> bool:
        """Tell whether a statement bears this key's signature."""
        try:
            signed = _signed(statement["type"], statement["body"])
            return self.verifies(statement["signature"], signed)
        except (KeyError, TypeError, LedgerError):
            return False

    def verifies(self, signature: str, message: bytes) -> bool:
        """Tell whether a signature in base64 is this key's, of these bytes, context included."""
        try:
            decoded = base64.b64decode(signature, validate=True)
            # The last character has bits that decode to nothing.
            if base64.b64encode(decoded).decode() != signature:
                return False
            self._key.verify(decoded, message)
        except (InvalidSignature, TypeError, ValueError, binascii.Error):
            return False
        return True


class Signer:
    """What signs."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        """Wrap it."""
        self._key = key
        self.public = PublicKey(key.public_key())

    @classmethod
    def generate(cls) -> "Signer":
        """Make a new key, which stands nowhere."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_file(cls, path: Path) -> "Signer":
        """Read a private key in PEM.

        Raises:
            KeyUnusable: there is none, or it can't be read.
        """
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except OSError as error:
            raise KeyUnusable(f"{path} can't be read: {error.strerror}.") from None
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise KeyUnusable(f"{path} is not a private key in PEM without a password.") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyUnusable(f"{path} is not an Ed25519 key.")
        return cls(key)

    @classmethod
    def in_directory(cls, directory: Path, file: str = FILE) -> "Signer":
        """Return the key of a data directory, made where there is none; several may ask at once.

        Args:
            directory: the data directory.
            file: the key's name in it; one for each purpose.

        Raises:
            KeyUnusable: it can't be read or made.
        """
        path = directory / file
        if not path.exists():
            pem = Ed25519PrivateKey.generate().private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            try:
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                _write_once(path, pem)
            except OSError as error:
                raise KeyUnusable(f"{path} can't be made: {error.strerror}.") from None
        return cls.from_file(path)

    def sign(self, kind: str, body: dict[str, Any]) -> str:
        """Return a signed statement, as one line of JSON without its end."""
        body = {**body, "signed_by": self.public.id}
        signature = self.signature(_signed(kind, body))
        return chain.canonical({"type": kind, "body": body, "signature": signature}).decode()

    def signature(self, message: bytes) -> str:
        """Return the signature of bytes in base64; they must begin with a context of their own."""
        return base64.b64encode(self._key.sign(message)).decode()


def _signed(kind: str, body: dict[str, Any]) -> bytes:
    return _CONTEXT + chain.canonical({"type": kind, "body": body})


def _write_once(path: Path, text: bytes) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".key-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        # A link, not a rename: it fails where another process was first.
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
