"""Whether people have approved a call, as a worker finds it out right before the tool runs."""

from typing import Any

import pytest

from activities.approved import NotApproved, approved
from activities.decision import Decision
from activities.tools import Rule
from ledger.signing import Signer
from runlane.decisions import signing
from tests.deciding import decision, rule

SIGNER = Signer.generate()


def given(**fields: Any) -> Decision:
    """Return an approval that its face has signed."""
    return signing.sign(decision(**fields), SIGNER)


def people(*decisions: Decision, under: Rule) -> list[str]:
    """Return who has approved."""
    known = signing.Signatures([SIGNER.public])
    return approved(decisions, known, run_id="run_1", rule=under).by


def test_two_people_approve() -> None:
    """Also through tokens, which somebody else made for both."""
    made = {"token": "t", "token_made_by": "cid"}

    found = people(given(**made), given(by="bob", **made), under=rule(approvals=2))

    assert ["ada", "bob"] == found


@pytest.mark.parametrize("order", [1, -1])
def test_the_maker_of_a_token_counts_once(order: int) -> None:
    """Whatever the workflow believes: a token's maker may have kept it."""
    decisions = [given(), given(by="bob", token="t", token_made_by="ADA")][::order]

    with pytest.raises(NotApproved, match="1 of 2 people"):
        people(*decisions, under=rule(approvals=2))
