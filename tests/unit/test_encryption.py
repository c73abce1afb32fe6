"""Sealed payloads: what is hidden, what is bound, and what is said when one can't be opened."""

import base64
from collections.abc import Sequence
from pathlib import Path

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.converter import (
    ActivitySerializationContext,
    DataConverter,
    StorageDriverStoreContext,
    StorageDriverWorkflowInfo,
    WorkflowSerializationContext,
)
from temporalio.exceptions import ApplicationError

from runlane import key_file
from runlane.encryption import EncryptionCodec, is_sealed, sealed_by
from runlane.errors import CannotDecrypt
from runlane.settings import EncryptionKey
from runlane.temporal import data_converter, failure_message

OLD = EncryptionKey("old", bytes(range(32)))
NEW = EncryptionKey("new", bytes(range(1, 33)))
SECRET = "what-nobody-may-read"
PLAIN = Payload(metadata={"encoding": b"json/plain"}, data=f'"{SECRET}"'.encode())
BIG = Payload(metadata={"encoding": b"json/plain"}, data=f'"{SECRET * 5_000}"'.encode())


def of(run_id: str, *keys: EncryptionKey) -> EncryptionCodec:
    """Return the codec with which a run's payloads are sealed."""
    return EncryptionCodec(keys).with_context(WorkflowSerializationContext("default", run_id))


async def sealed(payload: Payload, run_id: str, *keys: EncryptionKey) -> Payload:
    """Seal one payload."""
    [found] = await of(run_id, *keys).encode([payload])
    return found


def hides(data: bytes) -> bool:
    """Tell whether neither the secret nor a base64 of it stands in the bytes."""
    spelled = [base64.b64encode(b"x" * shift + SECRET.encode())[4:-4] for shift in range(3)]
    return SECRET.encode() not in data and not any(text in data for text in spelled)


@pytest.mark.parametrize("payload", [PLAIN, BIG], ids=["small", "big"])
async def test_what_is_sealed_shows_its_key_and_run_alone(payload: Payload) -> None:
    """Content and encoding are hidden, and come back."""
    found = await sealed(payload, "run_1", NEW, OLD)

    assert is_sealed(found)
    assert "new" == sealed_by(found)
    assert {"encoding", "encryption-key-id", "runlane-run"} == set(found.metadata)
    assert hides(found.SerializeToString())
    assert b"json/plain" not in found.SerializeToString()
    assert [payload] == await of("run_1", NEW).decode([found])


async def test_every_key_opens_and_the_first_seals() -> None:
    """A key is rotated by putting a new one before it."""
    before = await sealed(PLAIN, "run_1", OLD)
    after = await sealed(PLAIN, "run_1", NEW, OLD)

    assert ["old", "new"] == [sealed_by(before), sealed_by(after)]
    assert [PLAIN, PLAIN] == await of("run_1", NEW, OLD).decode([before, after])


async def test_what_is_not_sealed_stays_readable() -> None:
    """Runs from before there was a key go on, with a codec and without."""
    assert [PLAIN] == await of("run_1", NEW).decode([PLAIN])
    assert [SECRET] == await data_converter().decode([PLAIN], [str])


async def test_small_equal_payloads_differ_and_big_ones_are_one_file(tmp_path: Path) -> None:
    """Equal answers can't be told; a big payload that a replay writes again is no second file."""
    assert await sealed(PLAIN, "run_1", NEW) != await sealed(PLAIN, "run_1", NEW)
    assert await sealed(BIG, "run_1", NEW) == await sealed(BIG, "run_1", NEW)
    # Neither over runs nor keys does a nonce come twice with equal content.
    others = [await sealed(BIG, "run_2", NEW), await sealed(BIG, "run_1", OLD)]
    nonces = {payload.data[:12] for payload in [await sealed(BIG, "run_1", NEW), *others]}
    assert 3 == len(nonces)

    converter = stored(tmp_path, "run_1")
    for _ in range(3):
        await converter.encode([SECRET * 5_000])
    assert 1 == len([path for path in tmp_path.rglob("*") if path.is_file()])


async def test_files_of_the_payload_store_are_sealed(tmp_path: Path) -> None:
    """Encryption comes before storage, and storage is undone before decryption."""
    converter = stored(tmp_path, "run_1")
    [reference] = await converter.encode([SECRET * 5_000])

    [file] = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert hides(file.read_bytes())
    assert "new" == sealed_by(Payload.FromString(file.read_bytes()))
    assert [SECRET * 5_000] == await converter.decode([reference], [str])


def stored(data_dir: Path, run_id: str) -> DataConverter:
    """Return the converter of a worker that keeps big payloads in a directory."""
    return data_converter(data_dir, keys=[NEW])._with_contexts(
        WorkflowSerializationContext("default", run_id),
        StorageDriverStoreContext(target=StorageDriverWorkflowInfo(namespace="default", id=run_id)),
    )


def _wrong_bytes(key: EncryptionKey) -> EncryptionKey:
    return EncryptionKey(key.id, bytes(32))


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ([OLD], "'new', and this process has only 'old'"),
        ([OLD, _wrong_bytes(NEW)], "'new' is not the one that encrypted"),
    ],
    ids=["unknown", "other bytes"],
)
async def test_a_wrong_key_is_named_and_the_content_is_not(
    keys: Sequence[EncryptionKey], said: str
) -> None:
    """The error has the key's id and the variable, and nothing else of the payload."""
    found = await sealed(PLAIN, "run_1", NEW)

    with pytest.raises(CannotDecrypt) as caught:
        await of("run_1", *keys).decode([found])

    assert said in caught.value.message
    assert "RUNLANE_ENCRYPTION_KEYS" in caught.value.message
    assert "new" == caught.value.key_id
    assert 2 == caught.value.exit_code
    assert hides(str(caught.value).encode())
    assert caught.value.__cause__ is None


async def test_without_a_key_a_sealed_payload_is_refused_by_name() -> None:
    """A process that was given no key says which one it lacks."""
    found = await sealed(PLAIN, "run_1", NEW)

    with pytest.raises(CannotDecrypt, match="'new', and this process has no key"):
        await data_converter().decode([found], [str])


@pytest.mark.parametrize("place", ["data", "nonce", "encryption-key-id", "runlane-run", "short"])
async def test_what_was_changed_is_not_opened(place: str) -> None:
    """Ciphertext, nonce, key id and run are one piece."""
    twin = EncryptionKey("twin", NEW.key)
    found = await sealed(PLAIN, "run_1", NEW)
    if place == "data":
        found.data = found.data[:-1] + bytes([found.data[-1] ^ 1])
    elif place == "nonce":
        found.data = bytes([found.data[0] ^ 1]) + found.data[1:]
    elif place == "short":
        found.data = found.data[:5]
    else:
        found.metadata[place] = b"twin"

    with pytest.raises(CannotDecrypt, match="was changed"):
        await EncryptionCodec([NEW, twin]).decode([found])


async def test_a_payload_of_another_run_is_refused() -> None:
    """Whoever can write Temporal's database can't put one run's answer into another run."""
    found = await sealed(PLAIN, "run_1", NEW)

    with pytest.raises(CannotDecrypt, match="payload of run_1 stands in run_2"):
        await of("run_2", NEW).decode([found])
    # The codec server isn't told the run, and shows it.
    assert [PLAIN] == await EncryptionCodec([NEW]).decode([found])


async def test_the_starts_of_a_schedule_share_their_payloads() -> None:
    """Their input is sealed with the schedule, and one's result is handed to the next; no more."""
    first, second = (f"schedule_tidy-2026-11-{day}T02:00:00Z" for day in (29, 30))

    assert [PLAIN] == await of(second, NEW).decode([await sealed(PLAIN, "schedule_tidy", NEW)])
    assert [PLAIN] == await of(second, NEW).decode([await sealed(PLAIN, first, NEW)])
    for other in ("schedule_tid", "schedule_tidy-2026", "run_1", "run_1-2026-11-29T02:00:00Z"):
        with pytest.raises(CannotDecrypt, match="refused"):
            await of(second, NEW).decode([await sealed(PLAIN, other, NEW)])
    with pytest.raises(CannotDecrypt, match="refused"):
        await of("run_1", NEW).decode([await sealed(PLAIN, "run_1-2026-11-29T02:00:00Z", NEW)])


async def test_activities_share_their_runs_payloads() -> None:
    """What the workflow seals for an activity is opened there, and the other way round."""
    context = ActivitySerializationContext(
        namespace="default",
        activity_id="1",
        activity_type="runs.create",
        activity_task_queue="queue",
        workflow_id="run_1",
        workflow_type="Run",
        is_local=False,
    )
    found = await sealed(PLAIN, "run_1", NEW)

    assert [PLAIN] == await EncryptionCodec([NEW]).with_context(context).decode([found])


async def test_messages_and_traces_of_failures_are_sealed() -> None:
    """A failure keeps its type in the clear, and nothing else; its causes too."""
    converter = data_converter(keys=[NEW])
    failure = Failure()
    try:
        try:
            raise ValueError(f"inner {SECRET}")
        except ValueError as error:
            text = f"outer {SECRET}"
            raise ApplicationError(text, {"detail": SECRET}, type="Broken") from error
    except ApplicationError as error:
        await converter.encode_failure(error, failure)

    assert hides(failure.SerializeToString())
    assert b"test_encryption.py" not in failure.SerializeToString()
    assert "Broken" == failure.application_failure_info.type
    assert f"outer {SECRET}" == await failure_message(converter, failure)
    decoded = await converter.decode_failure(failure)
    assert f"inner {SECRET}" in str(decoded.__cause__)


async def test_without_a_key_failures_are_readable_for_temporals_tools() -> None:
    """Nothing is moved out of sight where nothing is encrypted."""
    failure = Failure()
    await data_converter().encode_failure(ValueError("plain"), failure)

    assert "plain" == failure.message
    assert "plain" == await failure_message(data_converter(), failure)


async def test_where_a_key_of_up_stands_is_told() -> None:
    """Whoever lacks it may not know that it was made, and where."""
    made = EncryptionKey(f"{key_file.MADE}1234", bytes(32))

    with pytest.raises(CannotDecrypt) as theirs:
        await of("run_1", NEW).decode([await sealed(PLAIN, "run_1", OLD)])
    with pytest.raises(CannotDecrypt) as ups:
        await of("run_1", NEW).decode([await sealed(PLAIN, "run_1", made)])

    assert key_file.NAME in str(ups.value)
    assert key_file.NAME not in str(theirs.value)
