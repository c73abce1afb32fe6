"""Whether this process encrypts as the workers do, and can read the runs there are."""

from temporalio.client import Client

from runlane.doctor.finding import Finding, problem
from runlane.encryption import EncryptionCodec
from runlane.errors import RunlaneError
from runlane.key_check import LOOKED_AT, unreadable

_NAME = "encryption"


async def check_encryption(client: Client) -> Finding:
    """Check the keys against the newest runs."""
    try:
        found = await unreadable(client)
    except RunlaneError as error:
        return problem(_NAME, f"runs can't be listed: {error.message}", "")
    if found is not None:
        return problem(
            _NAME,
            f"can't read {found.run_id}: {found.error.problem}",
            "Set RUNLANE_ENCRYPTION_KEYS as for the workers.",
        )
    codec = client.data_converter.payload_codec
    if not isinstance(codec, EncryptionCodec):
        return Finding(
            _NAME,
            "note",
            "off: Temporal keeps what runs say in the clear",
            "Set RUNLANE_ENCRYPTION_KEYS for workers and clients alike.",
        )
    first, *others = codec.key_ids
    also = f"; {', '.join(others)} decrypts too" if others else ""
    return Finding(
        _NAME, "ok", f"with key {first}{also}; the newest {LOOKED_AT:,} runs are readable"
    )
