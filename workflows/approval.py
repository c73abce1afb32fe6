"""What people have said about one call, and what that makes of it. Pure, and part of the state."""

from pydantic import BaseModel, ConfigDict

from activities.decision import Decision, DecisionKind, may_decide
from activities.tools import Rule

CLAIM_FOR = 3600.0
"""Seconds after which a claim ends by itself: whoever made it may have gone home."""


class _State(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)


class Approval(_State):
    """What people have said about a call that waits for them; instants are unix seconds."""

    approvals: list[Decision] = []
    """Verified ones that count, in the order in which they came."""
    checking: Decision | None = None
    """One whose signature is being verified."""
    checking_since: float = 0.0
    decided: DecisionKind | None = None
    """Set once nobody is asked any more."""
    decided_by: list[str] = []
    """Nobody, where a deadline decided."""
    group: int = 0
    """Index of the group whose turn it is, where the call escalates; of its deadline too."""
    reminders: int = 0
    """How many have been due."""
    claimed_by: str | None = None
    claimed_at: float = 0.0

    @property
    def by(self) -> list[str]:
        """Who has approved."""
        return [decision.by for decision in self.approvals]


class KeptApproval(_State):
    """The approval of a call that has not run, for when the upstream asks for it again."""

    key: str
    tool_digest: str
    tool_call_id: str
    attempt: int
    approval: Approval
    parked: bool = False
    """The upstream run that asked has expired: another one's call takes this, once. Else only the
    same call, should its round come back."""


class StandingApproval(_State):
    """An approval for the rest of the run."""

    decision: Decision
    tool: str
    rule: Rule
    """Of the call on which it was given."""


def asked_groups(rule: Rule, approval: Approval) -> list[str]:
    """Return the groups whose turn it is."""
    if rule.outcome != "escalate" or not rule.groups:
        return rule.groups
    return [rule.groups[min(approval.group, len(rule.groups) - 1)]]


def deadline(rule: Rule, approval: Approval) -> float | None:
    """Return until when it must be decided; none where that is as long as the run lives."""
    if not rule.deadlines:
        return None
    return rule.deadlines[min(approval.group, len(rule.deadlines) - 1)]


def claimant(approval: Approval, now: float) -> str | None:
    """Return who looks after the call, if anybody still does."""
    is_over = now >= approval.claimed_at + CLAIM_FOR
    return None if is_over else approval.claimed_by


def is_asked(rule: Rule, approval: Approval, decision: Decision) -> bool:
    """Tell whether the person is one of those whose turn it is."""
    return may_decide(decision.by, decision.groups, rule.approvers, asked_groups(rule, approval))
