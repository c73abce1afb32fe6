"""A decision: what is malformed about one, and what of it is signed."""

from typing import Any

import pytest

from activities import decision as decisions
from activities.decision import Decision, InvalidDecision

DIGEST = "sha256:" + "a" * 64


def decision(**fields: Any) -> Decision:
    """Return an approval, with other fields where some are given."""
    return Decision.model_validate(
        {
            "id": "dec_0123456789abcdef",
            "kind": "approve",
            "run_id": "run_1",
            "tool_call_id": "call_1",
            "arguments_digest": DIGEST,
            "tool_digest": DIGEST,
            "by": "ada",
            "at": 1_700_000_000.5,
            **fields,
        }
    )


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"arguments": "{}", "note": "n" * 2_000},
        {"kind": "reject", "note": "No."},
        {"kind": "answer", "output": ""},
        {"kind": "answer", "output": "o" * 511_999},
        {"kind": "claim", "groups": ["g"] * 100},
        {"for_rest_of_run": True},
    ],
)
def test_what_is_within_the_limits_is_taken(fields: dict[str, Any]) -> None:
    """Also what is just within them."""
    decisions.check(decision(**fields))


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"id": "dec_short"}, "id"),
        ({"id": "dec_" + "a" * 65}, "id"),
        ({"run_id": ""}, "run_id"),
        ({"tool_call_id": "c" * 256}, "tool_call_id"),
        ({"by": ""}, "by"),
        ({"by": "a\0b"}, "by"),
        ({"token": "\ud800"}, "token"),
        ({"token": ""}, "token"),
        ({"token_made_by": ""}, "token_made_by"),
        ({"shown": "a page"}, "shown"),
        ({"arguments_digest": "sha256:no"}, "arguments_digest"),
        ({"tool_digest": ""}, "tool_digest"),
        ({"groups": ["g"] * 101}, "groups"),
        ({"groups": ["g", ""]}, r"groups\[1\]"),
        ({"at": -1.0}, "at"),
        ({"at": float("nan")}, "at"),
        ({"note": "n" * 2_001}, "note.*2,000"),
        ({"arguments": "x" * 256_001}, "arguments.*256,000"),
        ({"kind": "answer", "output": "x" * 512_000}, "output.*511,999"),
        ({"kind": "answer", "output": "\ud800"}, "output"),
        ({"kind": "answer"}, "output"),
        ({"output": "paid"}, "output"),
        ({"kind": "reject"}, "note"),
        ({"kind": "reject", "note": " "}, "note"),
        ({"kind": "claim", "arguments": "{}"}, "arguments"),
        ({"kind": "reject", "note": "No.", "for_rest_of_run": True}, "for_rest_of_run"),
        ({"for_rest_of_run": True, "arguments": "{}"}, "arguments"),
        ({"signature": "s" * 256}, "signature"),
    ],
)
def test_what_is_malformed_is_named(fields: dict[str, Any], names: str) -> None:
    """The error names the field, and its limit where it has one."""
    with pytest.raises(InvalidDecision, match=f"^{names}"):
        decisions.check(decision(**fields))


def test_every_field_is_signed() -> None:
    """A field that comes later is signed too, or somebody could change it on the way."""
    contents = {"note", "arguments", "output"}
    signed = {*Decision.model_fields} - contents - {"signature"}

    signable = {*decision(token_made_by="bob").signable()}
    assert signable - signed == {
        "note_digest",
        "edited_arguments_digest",
        "output_digest",
    }
    assert signed <= signable


def test_who_made_the_token_is_signed_where_somebody_else_did() -> None:
    """What was signed before there was such a field must verify as it did."""
    assert "token_made_by" not in decision().signable()
    assert "bob" == decision(token_made_by="bob").signable()["token_made_by"]


@pytest.mark.parametrize(
    ("one", "other", "may"),
    [
        ({"by": "ada"}, {"by": "bob"}, False),
        ({"by": "ada"}, {"by": "Ada"}, True),
        ({"by": "ada"}, {"by": "bob", "token_made_by": "ADA"}, True),
        ({"by": "bob", "token_made_by": "ada"}, {"by": "ada"}, True),
        ({"by": "bob", "token_made_by": "ada"}, {"by": "ada", "token_made_by": "cid"}, True),
        ({"by": "bob", "token_made_by": "ada"}, {"by": "cid", "token_made_by": "ada"}, False),
    ],
)
def test_whoever_made_a_token_may_have_said_what_was_said_by_it(
    one: dict[str, Any], other: dict[str, Any], may: bool
) -> None:
    """Two tokens of one maker are two people's, though: somebody must make the tokens."""
    assert may is decision(**one).may_repeat(decision(**other))
    assert may is decision(**other).may_repeat(decision(**one))


def test_contents_are_signed_by_their_digests() -> None:
    """So that a signature outlives them."""
    told = decision(kind="answer", output="paid", note="By hand.").signable()

    assert told["output_digest"] == decisions.digest("paid")
    assert told["note_digest"] == decisions.digest("By hand.")
    assert told["edited_arguments_digest"] is None


@pytest.mark.parametrize(
    ("groups", "approvers", "asked", "may"),
    [
        ([], [], [], True),
        ([], ["ada"], [], True),
        ([], ["bob"], [], False),
        (["support"], [], ["support", "finance"], True),
        (["sales"], [], ["support"], False),
        ([], ["ada"], ["support"], True),
        (["support"], ["bob"], ["finance"], False),
    ],
)
def test_who_may_decide(
    groups: list[str], approvers: list[str], asked: list[str], *, may: bool
) -> None:
    """Whoever is named, or is in a group that is asked; anybody where nobody is named."""
    assert decisions.may_decide("ada", groups, approvers, asked) is may


@pytest.mark.parametrize(
    "other",
    [
        " ADA  LOUÏS ",
        "ada loui\u0308s",
        "ada\u200b lou\u00efs",
        "\uff41\uff44\uff41 lou\u00efs",
        "ada\u00a0louïs",
    ],
)
def test_a_person_is_one_person_however_the_name_is_coded(other: str) -> None:
    """Nobody is two people by an accent in two characters, or by one that can't be seen."""
    assert decisions.same_person("Ada Louïs", other)
    assert not decisions.same_person("Ada Louis", other)
