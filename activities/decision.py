"""A decision: a person's word on a tool call. Pinned: histories and signatures hold these.

A decision counts only where its signature holds; `runlane.decisions` makes and verifies those.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from enum import StrEnum
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict

from runsapi import MAX_TOOL_OUTPUTS_BYTES

MAX_NAME = 255
"""Characters of an id, of a person, a group, a face or a token's name."""
MAX_GROUPS = 100
MAX_NOTE = 2_000
"""Characters."""
MAX_ARGUMENTS_BYTES = 256_000
"""Bytes of edited arguments, in UTF-8."""
MAX_OUTPUT_BYTES = MAX_TOOL_OUTPUTS_BYTES - 1
"""Bytes of an answer, in UTF-8; the protocol's bound is for all outputs of a round together."""
_LATEST = 253_402_300_799.0
"""Unix seconds of the end of the year 9999, the last that has a date."""

_ID = re.compile(r"dec_[A-Za-z0-9]{16,64}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class InvalidDecision(ValueError):
    """A decision is malformed; the text names the field and its limit, never its content."""

    def __init__(self, field: str, problem: str) -> None:
        """Say what is wrong with which field."""
        super().__init__(f"{field} {problem}")
        self.field = field


class DecisionKind(StrEnum):
    """What the person says."""

    APPROVE = "approve"
    """Run it, with other arguments where some are given."""
    REJECT = "reject"
    """Don't run it; the model is told the note."""
    ANSWER = "answer"
    """Don't run it; this is its output."""
    CLAIM = "claim"
    """I look after it; nobody else should."""
    RELEASE = "release"
    """I don't any more."""
    REVOKE = "revoke"
    """What I or another approved for the rest of the run holds for no further call."""


class Decision(_Model):
    """A person's word, as the face that took it signs it."""

    id: str
    """`dec_` and 16 to 64 letters and digits, drawn by chance: by it a decision counts once."""
    kind: DecisionKind
    run_id: str
    tool_call_id: str
    arguments_digest: str
    """Of the call's arguments as canonical JSON: what the person decided on."""
    tool_digest: str
    """Of the tool's schema, likewise."""
    by: str
    """The person."""
    groups: list[str] = []
    """The person's groups, for which the face vouches."""
    at: float
    """Unix seconds by the face's clock."""
    note: str | None = None
    """The reason; needed to reject, and given to the model then."""
    arguments: str | None = None
    """With `approve`: the arguments to run with instead, as JSON."""
    output: str | None = None
    """With `answer`: the call's output."""
    for_rest_of_run: bool = False
    """With `approve`: the run's later calls of the tool are approved too."""
    face: str = ""
    """What took it: `cli`, `python`, `api`."""
    token: str | None = None
    """The name of the token by which the face knew the person; never the token."""
    token_made_by: str | None = None
    """Whoever made that token, where it is somebody else: they may have kept it."""
    shown: str | None = None
    """Digest of what the face showed the person."""
    key_id: str = ""
    """Names the key of the signature."""
    signature: str = ""
    """Base64."""

    def signable(self) -> dict[str, Any]:
        """Return what is signed: every field, the contents by their digests.

        So a signature can be verified after the contents were erased.
        """
        signed = {
            "id": self.id,
            "kind": self.kind.value,
            "run_id": self.run_id,
            "tool_call_id": self.tool_call_id,
            "arguments_digest": self.arguments_digest,
            "tool_digest": self.tool_digest,
            "by": self.by,
            "groups": list(self.groups),
            "at": self.at,
            "note_digest": digest(self.note),
            "edited_arguments_digest": digest(self.arguments),
            "output_digest": digest(self.output),
            "for_rest_of_run": self.for_rest_of_run,
            "face": self.face,
            "token": self.token,
            "shown": self.shown,
            "key_id": self.key_id,
        }
        if self.token_made_by is not None:
            # Only then: what was signed before there was this field must verify as it did.
            signed["token_made_by"] = self.token_made_by
        return signed

    def is_from(self, person: str) -> bool:
        """Tell whether a person may have said this: it is theirs, or they made its token."""
        maker = self.token_made_by
        return same_person(self.by, person) or (maker is not None and same_person(maker, person))

    def may_repeat(self, other: "Decision") -> bool:
        """Tell whether one person may have said this and another decision, so that they count once.

        Two tokens that a third person made are two people's all the same: whoever makes the tokens
        says who people are.
        """
        return self.is_from(other.by) or other.is_from(self.by)


class DecisionStatus(StrEnum):
    """What became of a decision that was sent to a run."""

    RECORDED = "recorded"
    """It is with the run, which verifies it now; `view` tells whether it counts."""
    DUPLICATE = "duplicate"
    """This decision, or this person's same word on the call, was recorded before."""
    OTHER_DIGEST = "other_digest"
    """It was made on other arguments, or on another schema of the tool."""
    ALREADY_DECIDED = "already_decided"
    CONFLICT = "conflict"
    """Others have approved other arguments; all must approve the same."""
    NOT_ALLOWED = "not_allowed"
    TOO_LATE = "too_late"
    """Its deadline has passed, or the call waits no more."""
    CLAIMED = "claimed"
    """Somebody else looks after the call."""
    NOT_WAITING = "not_waiting"
    """The call waits for no person."""
    TOO_LARGE = "too_large"
    """The output would bring the round over what the upstream takes."""
    UNKNOWN = "unknown"
    """The run has no such call."""
    BUSY = "busy"
    """Another decision on the call is being verified: send it again in a moment."""


class DecisionReceipt(_Model):
    """Answer of the update `decide`."""

    status: DecisionStatus
    message: str
    """A sentence for people: why, and by whom where somebody was first."""
    decision_id: str = ""
    tool_call_id: str = ""


class Verifier(Protocol):
    """What tells a decision that a face took from one that somebody made up."""

    def refusal(self, decision: Decision) -> str | None:
        """Say why a decision's signature doesn't hold; None where it does."""


class NoKeys:
    """The verifier of a worker that was given no public key: nothing counts."""

    def refusal(self, decision: Decision) -> str | None:
        """Refuse it."""
        return (
            "The worker has no public key to verify decisions with: set "
            "RUNLANE_DECISION_PUBLIC_KEYS where it runs."
        )


def digest(text: str | None) -> str | None:
    """Return the digest by which a content is named; None where there is none."""
    if text is None:
        return None
    # As `workflows.contract.content_digest` and `ledger.contents.digest_of`.
    return "sha256:" + hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def check(decision: Decision) -> None:
    """Refuse a malformed decision; says nothing of whether it is allowed or true.

    Raises:
        InvalidDecision: It names the field and the limit.
    """
    _check_names(decision)
    _check_contents(decision)
    _check_kind(decision)


def may_decide(person: str, groups: Iterable[str], approvers: list[str], asked: list[str]) -> bool:
    """Tell whether a person is one of those who are asked; where nobody is named, all are.

    Args:
        person: who decides.
        groups: the person's.
        approvers: the people who are named.
        asked: the groups that are named and whose turn it is.
    """
    return not (approvers or asked) or person in approvers or not set(asked).isdisjoint(groups)


def asked_for_it(decision: Decision) -> str:
    """Say that a decision is the word of whoever asked for the run, to whom it is not left."""
    if decision.token_made_by is None:
        return f"{decision.by} asked for this run; somebody else must decide."
    return (
        f"{decision.by} or {decision.token_made_by}, who made the token, asked for this run; "
        "somebody else must decide."
    )


def same_person(one: str, other: str) -> bool:
    """Tell whether two names are one person's: nobody may approve twice by another spelling.

    Capitals, spaces, what can't be seen, and how an accent or a wide letter is coded tell nobody
    from somebody else.
    """
    return _folded(one) == _folded(other)


def _folded(name: str) -> str:
    shown = "".join(char for char in name if unicodedata.category(char) not in ("Cf", "Cc"))
    # Folding may undo what normalizing did, and the other way round.
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", shown).casefold())
    return " ".join(folded.split())


def _check_names(decision: Decision) -> None:
    if not _ID.fullmatch(decision.id):
        raise InvalidDecision("id", "must be dec_ and 16 to 64 letters and digits")
    for field in ("run_id", "tool_call_id", "by"):
        _name(field, getattr(decision, field))
    for field in ("face", "key_id", "signature"):
        if getattr(decision, field):
            _name(field, getattr(decision, field))
    for field in ("token", "token_made_by"):
        if getattr(decision, field) is not None:
            _name(field, getattr(decision, field))
    for field in ("arguments_digest", "tool_digest", "shown"):
        value = getattr(decision, field)
        if value is not None and not _DIGEST.fullmatch(value):
            raise InvalidDecision(field, "must be sha256: and 64 hexadecimal digits")
    if len(decision.groups) > MAX_GROUPS:
        problem = f"must have at most {MAX_GROUPS} names, got {len(decision.groups)}"
        raise InvalidDecision("groups", problem)
    for index, group in enumerate(decision.groups):
        _name(f"groups[{index}]", group)
    if not 0.0 <= decision.at <= _LATEST:
        raise InvalidDecision("at", "must be unix seconds")


def _check_contents(decision: Decision) -> None:
    note = decision.note
    if note is not None and len(note) > MAX_NOTE:
        raise InvalidDecision(
            "note", f"must have at most {MAX_NOTE:,} characters, got {len(note):,}"
        )
    _content("note", note, MAX_NOTE * 4)
    _content("arguments", decision.arguments, MAX_ARGUMENTS_BYTES)
    _content("output", decision.output, MAX_OUTPUT_BYTES)


def _check_kind(decision: Decision) -> None:
    kind = decision.kind
    if kind is DecisionKind.REJECT and not (decision.note or "").strip():
        raise InvalidDecision("note", "must say why the call is rejected: the model is told")
    if (kind is DecisionKind.ANSWER) != (decision.output is not None):
        raise InvalidDecision("output", "must be given with an answer, and only there")
    if decision.arguments is not None and kind is not DecisionKind.APPROVE:
        raise InvalidDecision("arguments", "go with an approval only")
    if decision.for_rest_of_run and kind is not DecisionKind.APPROVE:
        raise InvalidDecision("for_rest_of_run", "goes with an approval only")
    if decision.for_rest_of_run and decision.arguments is not None:
        raise InvalidDecision("arguments", "can't be edited for the rest of the run")


def _name(field: str, value: str) -> None:
    if not 1 <= len(value) <= MAX_NAME:
        raise InvalidDecision(field, f"must have 1 to {MAX_NAME} characters")
    _storable(field, value)
    if "\0" in value:
        raise InvalidDecision(field, "holds a character that can't be stored")


def _content(field: str, text: str | None, limit: int) -> None:
    if text is None:
        return
    _storable(field, text)
    size = len(text.encode())
    if size > limit:
        raise InvalidDecision(field, f"must have at most {limit:,} bytes, got {size:,}")


def _storable(field: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidDecision(field, "must be text that UTF-8 can hold") from None
