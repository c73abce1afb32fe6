"""Encryption of everything that Runlane hands to Temporal: payloads, memos, failures, headers.

A payload is sealed whole, its metadata too, so the history tells only which key sealed it and which
run it belongs to. temporalio calls the codec before its external storage, so the files of the
payload store are sealed as well. Search attributes never pass here: they hold no content.
"""

import copy
import hashlib
import hmac
import os
import re
from collections.abc import Sequence
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from google.protobuf.message import DecodeError
from temporalio.api.common.v1 import Payload
from temporalio.converter import (
    ActivitySerializationContext,
    PayloadCodec,
    SerializationContext,
    WithSerializationContext,
    WorkflowSerializationContext,
)

from runlane import key_file
from runlane.errors import CannotDecrypt
from runlane.payload_store import PAYLOAD_SIZE_THRESHOLD
from runlane.settings import EncryptionKey
from workflows.scheduled_contract import ID_PREFIX

# All of these stand in histories: renaming one strands what was sealed under it.
ENCODING = b"binary/encrypted"
KEY_ID = "encryption-key-id"
RUN = "runlane-run"
_PURPOSE = b"runlane payload 1"

_NONCE_BYTES = 12
_START_ID = re.compile(rf"({ID_PREFIX}.+)-\d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.DOTALL)


class EncryptionCodec(PayloadCodec, WithSerializationContext):
    """Seals payloads by AES-256-GCM with the first key, and opens what any of the keys sealed.

    Key id and run are bound to the ciphertext: a payload copied into another run isn't opened. What
    isn't sealed is left as it is, so runs from before there was a key go on.
    """

    def __init__(self, keys: Sequence[EncryptionKey]) -> None:
        """Use these keys, at least one."""
        self._first = keys[0].id
        self._ciphers = {key.id: AESGCM(key.key) for key in keys}
        self._nonce_key = hmac.digest(keys[0].key, b"runlane nonce 1", hashlib.sha256)
        self._run: str | None = None

    @property
    def key_ids(self) -> list[str]:
        """Ids of the keys, the one that seals first."""
        return list(self._ciphers)

    def with_context(self, context: SerializationContext) -> Self:
        """Return a codec for the payloads of one run."""
        known = (WorkflowSerializationContext, ActivitySerializationContext)
        if not isinstance(context, known) or not context.workflow_id:
            return self
        bound = copy.copy(self)
        bound._run = context.workflow_id
        return bound

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Seal each payload."""
        return [self._seal(payload) for payload in payloads]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Open each payload that is sealed.

        Raises:
            CannotDecrypt: the key is unknown or another one, or the payload was changed, or moved
                here from another run.
        """
        return [self._open(payload) if is_sealed(payload) else payload for payload in payloads]

    def _seal(self, payload: Payload) -> Payload:
        content = payload.SerializeToString()
        run = (self._run or "").encode()
        bound_to = _associated(self._first.encode(), run)
        nonce = self._nonce(content, bound_to)
        metadata = {"encoding": ENCODING, KEY_ID: self._first.encode()}
        if run:
            metadata[RUN] = run
        sealed = self._ciphers[self._first].encrypt(nonce, content, bound_to)
        return Payload(metadata=metadata, data=nonce + sealed)

    def _nonce(self, content: bytes, bound_to: bytes) -> bytes:
        if len(content) < PAYLOAD_SIZE_THRESHOLD:
            return os.urandom(_NONCE_BYTES)
        # Such a payload becomes a file, named after its bytes, and each replay writes it again.
        # A nonce made of the content makes it the same file, as unlikely to meet another content's
        # as a random one. Whoever sees the files learns which big payloads of one run are equal.
        message = len(bound_to).to_bytes(8) + bound_to + content
        return hmac.digest(self._nonce_key, message, hashlib.sha256)[:_NONCE_BYTES]

    def _open(self, payload: Payload) -> Payload:
        key_id = sealed_by(payload)
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise unknown_key(key_id, self.key_ids)
        run = payload.metadata.get(RUN, b"")
        here = self._run
        if run and here is not None and _owner(run.decode(errors="replace")) != _owner(here):
            text = f"a payload of {run.decode(errors='replace')} stands in {here}: refused."
            raise CannotDecrypt(key_id, text)
        nonce, sealed = payload.data[:_NONCE_BYTES], payload.data[_NONCE_BYTES:]
        try:
            content = cipher.decrypt(nonce, sealed, _associated(key_id.encode(), run))
            return Payload.FromString(content)
        except (InvalidTag, ValueError, DecodeError):
            # Without the cause: it has nothing to say that the message hasn't.
            text = (
                f"the key {key_id!r} is not the one that encrypted the payload, or the payload was "
                f"changed. Give {key_id!r} the bytes it had."
            )
            raise CannotDecrypt(key_id, text) from None


def unknown_key(key_id: str, known: Sequence[str]) -> CannotDecrypt:
    """Return the error for a payload whose key this process hasn't got."""
    has = f"only {', '.join(map(repr, known))}" if known else "no key"
    text = (
        f"a payload is encrypted with the key {key_id!r}, and this process has {has}. Add "
        f"{key_id}:… after the others."
    )
    if key_id.startswith(key_file.MADE):
        text += f" `runlane up` made that key; it stands in {key_file.NAME} of the data directory."
    return CannotDecrypt(key_id, text)


def is_sealed(payload: Payload) -> bool:
    """Tell whether the payload is encrypted by this codec."""
    return payload.metadata.get("encoding") == ENCODING


def sealed_by(payload: Payload) -> str:
    """Return the id of the key that sealed the payload."""
    return payload.metadata.get(KEY_ID, b"").decode(errors="replace")


def _owner(workflow_id: str) -> str:
    """Return to whom a workflow's payloads belong: those of a schedule's starts to the schedule.

    Their input was sealed before there was any of them, and Temporal hands what came of one on to
    the next.
    """
    match = _START_ID.fullmatch(workflow_id)
    return workflow_id if match is None else match[1]


def _associated(key_id: bytes, run: bytes) -> bytes:
    # Not the namespace: a namespace that moves to another server may get another name there.
    # Lengths, so that no two pairs read alike.
    return b"".join(len(part).to_bytes(4) + part for part in (_PURPOSE, key_id, run))


class SealedPayloads(PayloadCodec):
    """Stands for keys this process was not given: it passes what isn't sealed, no more.

    Without it, a sealed payload would be taken for JSON of an unknown kind.
    """

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Leave the payloads as they are."""
        return list(payloads)

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        """Leave what isn't sealed.

        Raises:
            CannotDecrypt: a payload is sealed.
        """
        for payload in payloads:
            if is_sealed(payload):
                raise unknown_key(sealed_by(payload), ())
        return list(payloads)
