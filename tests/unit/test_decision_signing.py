"""Decisions on their way: made, signed by a face, and told from forged ones by a worker."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from activities.decision import Decision, DecisionKind, NoKeys
from ledger.signing import Signer
from runlane.decisions import keys, signing
from runlane.decisions.making import make
from runlane.errors import InvalidRequest
from runlane.settings import Settings, SettingsError

DIGEST = "sha256:" + "a" * 64
OTHER = "sha256:" + "b" * 64


def made(kind: str = "approve", **fields: Any) -> Decision:
    """Return a decision as a face makes it."""
    call = {
        "run_id": "run_1",
        "tool_call_id": "call_1",
        "arguments_digest": DIGEST,
        "tool_digest": DIGEST,
        "by": "ada",
    }
    return make(DecisionKind(kind), **{**call, **fields})


@pytest.fixture
def signer() -> Signer:
    return Signer.generate()


def test_a_signed_decision_is_known_again(signer: Signer) -> None:
    """Also after it went over the wire."""
    signed = signing.sign(made(note="Fine: ñ, 0.1, 1e21", groups=["support"]), signer)
    sent = Decision.model_validate_json(signed.model_dump_json())

    assert signing.Signatures([signer.public]).refusal(sent) is None


CHANGES = {
    "id": "dec_ffffffffffffffff",
    "kind": "release",
    "run_id": "run_2",
    "tool_call_id": "call_2",
    "arguments_digest": OTHER,
    "tool_digest": OTHER,
    "by": "eve",
    "groups": ["finance"],
    "at": 1.5,
    "note": "Other.",
    "arguments": '{"amount":2}',
    "output": "paid",
    "for_rest_of_run": True,
    "face": "api",
    "token": "root",
    "token_made_by": "eve",
    "shown": OTHER,
}


def test_each_change_is_tried() -> None:
    """Whatever a decision holds, somebody may change it on its way."""
    assert {*CHANGES} == {*Decision.model_fields} - {"key_id", "signature"}


@pytest.mark.parametrize("field", CHANGES)
def test_a_changed_decision_is_refused(field: str, signer: Signer) -> None:
    """A signature can't be copied to another decision, in no field."""
    signed = signing.sign(made(), signer)
    changed = Decision.model_validate({**signed.model_dump(), field: CHANGES[field]})

    refusal = signing.Signatures([signer.public]).refusal(changed)

    assert refusal is not None
    assert "forged" in refusal


def test_what_was_signed_before_tokens_had_makers_holds(signer: Signer) -> None:
    """And who is called the maker of his own token is left out: older workers know no maker."""
    told = made(token="laptop", token_made_by=" ADA")
    before = {name: value for name, value in told.signable().items() if name != "token_made_by"}

    assert before == told.signable()
    assert told.token_made_by is None
    assert "bob" == made(token="laptop", token_made_by="bob").token_made_by


def test_another_key_proves_nothing(signer: Signer) -> None:
    """Neither under its own name nor under that of a key that is known."""
    other = Signer.generate()
    known = signing.Signatures([signer.public])
    by_other = signing.sign(made(), other)

    assert "doesn't know" in (known.refusal(by_other) or "")
    renamed = by_other.model_copy(update={"key_id": signer.public.id})
    assert "forged" in (known.refusal(renamed) or "")
    assert "not signed" in (known.refusal(made()) or "")


def test_a_statement_of_the_audit_trail_is_no_decision(signer: Signer) -> None:
    """One key's signature for one purpose serves no other."""
    decision = made().model_copy(update={"key_id": signer.public.id})
    statement = json.loads(signer.sign("decision", decision.signable()))
    forged = decision.model_copy(update={"signature": statement["signature"]})

    assert "forged" in (signing.Signatures([signer.public]).refusal(forged) or "")

    signed = signing.sign(made(), signer)
    passed_off = {"type": "decision", "body": signed.signable(), "signature": signed.signature}
    assert not signer.public.has_signed(passed_off)


def test_without_keys_nothing_counts(signer: Signer) -> None:
    """And the run can say what to do."""
    refusal = NoKeys().refusal(signing.sign(made(), signer))

    assert "RUNLANE_DECISION_PUBLIC_KEYS" in (refusal or "")


def test_edited_arguments_have_one_form() -> None:
    """Two people who approve the same are seen to."""
    one = made(arguments='{"b": 1, "a": "é"}')
    two = made(arguments='{\n "a": "\\u00e9", "b": 1}')

    assert one.arguments == two.arguments == '{"a":"é","b":1}'


@pytest.mark.parametrize("text", ["[1]", "{", '{"a":1,"a":2}', '{"a":NaN}', "[" * 100_000])
def test_edited_arguments_are_an_object(text: str) -> None:
    """One that everybody reads in the same way."""
    with pytest.raises(InvalidRequest, match="arguments") as refused:
        made(arguments=text)
    assert refused.value.param == "arguments"


def test_what_is_malformed_is_not_sent() -> None:
    """The face says so, with the field's name."""
    with pytest.raises(InvalidRequest, match="note") as refused:
        made("reject")
    assert refused.value.param == "note"


# Keys


def test_a_data_directory_gets_its_keys_once(tmp_path: Path) -> None:
    """The private one for its owner alone; a face signs with it, a worker knows the public one."""
    assert keys.make(tmp_path)
    first = (tmp_path / keys.FILE).read_bytes()
    assert not keys.make(tmp_path)

    assert (tmp_path / keys.FILE).read_bytes() == first
    assert stat.S_IMODE((tmp_path / keys.FILE).stat().st_mode) == 0o600
    assert b"PRIVATE" not in (tmp_path / keys.PUBLIC_FILE).read_bytes()
    signed = signing.sign(made(), keys.signer(Settings(), tmp_path))
    assert keys.verifier(Settings(), tmp_path).refusal(signed) is None


def test_what_an_older_key_signed_still_counts(tmp_path: Path) -> None:
    """A private key that is lost is made anew; the public one of before stays beside it."""
    keys.make(tmp_path)
    before = signing.sign(made(), keys.signer(Settings(), tmp_path))
    (tmp_path / keys.FILE).unlink()

    assert keys.make(tmp_path)

    verifier = keys.verifier(Settings(), tmp_path)
    assert verifier.refusal(before) is None
    assert verifier.refusal(signing.sign(made(), keys.signer(Settings(), tmp_path))) is None


def test_the_settings_name_other_files(tmp_path: Path) -> None:
    """They come before those of the data directory."""
    own, data_dir = tmp_path / "own", tmp_path / "data"
    for directory in (own, data_dir):
        directory.mkdir()
        keys.make(directory)
    settings = Settings(decision_key=own / keys.FILE, decision_public_keys=own / keys.PUBLIC_FILE)
    signed = signing.sign(made(), keys.signer(settings, data_dir))

    assert keys.verifier(settings, data_dir).refusal(signed) is None
    assert keys.verifier(Settings(), data_dir).refusal(signed) is not None


def test_where_there_is_no_key_nobody_signs(tmp_path: Path) -> None:
    """The error says how one gets a key; a worker without any lets nothing count."""
    with pytest.raises(InvalidRequest, match="RUNLANE_DECISION_KEY"):
        keys.signer(Settings(), tmp_path)
    assert isinstance(keys.verifier(Settings(), tmp_path), NoKeys)
    assert isinstance(keys.verifier(Settings(), None), NoKeys)


@pytest.mark.parametrize(
    "content",
    [b"", b"nonsense", b"\xff\xfe", b"-----BEGIN PUBLIC KEY-----\nno\n-----END PUBLIC KEY-----\n"],
)
def test_keys_that_can_not_be_read_are_named(tmp_path: Path, content: bytes) -> None:
    """A worker that took a damaged file for none would let nothing count, unseen."""
    path = tmp_path / "some.pem"
    path.write_bytes(content)

    with pytest.raises(SettingsError, match="RUNLANE_DECISION_PUBLIC_KEYS"):
        keys.verifier(Settings(decision_public_keys=path), None)
    with pytest.raises(SettingsError, match="RUNLANE_DECISION_KEY"):
        keys.signer(Settings(decision_key=path), None)
    with pytest.raises(SettingsError, match="RUNLANE_DECISION_PUBLIC_KEYS"):
        keys.verifier(Settings(decision_public_keys=tmp_path / "none.pem"), None)
