"""What a run knows of itself: one object, so that continue-as-new hands everything on at once."""

from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from activities.decision import Decision
from activities.decisions import LapseInput
from activities.tools import Beside, Rule
from runsapi import Run
from workflows.approval import Approval, KeptApproval, StandingApproval
from workflows.contract import (
    AnswerOutcome,
    AskView,
    AttemptView,
    BlockedView,
    DecisionView,
    RejectedAnswer,
    RunRequest,
    UpstreamView,
)
from workflows.notice import AskedCall, OpenNotice


class _State(BaseModel):
    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True)


class OpenCall(_State):
    """A tool call of the round that is being gathered."""

    id: str
    name: str
    arguments: str
    key: str
    """Digest of name and canonical arguments: what makes two calls the same call."""
    since_at: float
    handled_by: Literal["caller", "worker", "people", "unclassified"] = "caller"
    """Who answers it; `unclassified`: a worker is to be asked first."""
    timeout: float = 0.0
    """Seconds that the worker has for it."""
    rule: Rule | None = None
    """What holds for a registered tool's call."""
    beside: list[Beside] = []
    """What its tool did in this run before, where that is why a person must decide it."""
    uncertain: str | None = None
    """Why nobody knows whether its tool ran, where that is so: a person must say."""
    approval: Approval | None = None
    """What people have said of it."""
    changes: int = 0
    """How often the worker that was to run it found another tool, or another policy."""
    execution: str | None = None
    """The `Execution.id` of what runs for it, or of what nobody knows whether it ran."""


class Execution(_State):
    """A call's tool at work, or one of which nobody knows whether it ran; gone once that ends."""

    # Of the call for which it was begun:
    tool_call_id: str
    name: str
    arguments: str
    key: str
    attempt: int
    round: int

    begun_at: float
    intent: str
    """What makes two executions equal: digest of name and arguments, edited ones where they are."""
    arguments_digest: str
    """Of those arguments."""
    ordinal: int
    """How many equal ones were begun before it in the run."""
    rule: Rule
    timeout: float
    """Seconds that the worker has for it."""
    room: int
    """Bytes that its output may have."""
    decisions: list[Decision] = []
    """Those that let it run."""
    uncertain: str | None = None
    """Why nobody knows whether it ran."""

    @property
    def id(self) -> str:
        """Names it within the run."""
        return f"{self.intent}#{self.ordinal}"


class KnownCall(_State):
    """A tool call of an earlier round or attempt; its id may still be answered by somebody."""

    attempt: int
    round: int
    answer: int | None = None
    """Index into `RunState.answers`, or none if it was never answered."""
    digest: str = ""
    """Of name and arguments to the letter: another call may come under the same id."""
    taken: bool = False
    """The upstream took its output, so that seeing it asked for again is old news."""


class Answer(_State):
    """An accepted output. Kept for ever: a re-created upstream run may ask for it again."""

    tool_call_id: str
    name: str
    arguments: str
    key: str
    output: str | None
    """None once nothing can ask for it again."""
    output_digest: str
    attempt: int
    round: int
    by: str | None = None
    answered_at: float
    outcome: AnswerOutcome = AnswerOutcome.WAITING
    used_in: int = 0
    """The latest attempt in which it answers a call: in each it counts once."""
    call_ids: list[str] = []
    failure: str | None = None
    """What went wrong in the tool that gave it."""


class EarlyAnswer(_State):
    """An output for a call that nobody has asked for yet."""

    output: str
    by: str | None = None
    at: float


class StopReason(StrEnum):
    """Why a run is brought to its end from our side."""

    CANCEL = "cancel"
    DEADLINE = "deadline"
    ROUNDS = "rounds"
    GONE = "gone"
    REFUSED = "refused"
    UNDECIDED = "undecided"
    """Nobody decided about a call by its deadline, and its tool wants the run to fail then."""


class RunState(_State):
    """The whole of a run's state; instants are unix seconds by the workflow's clock."""

    # run: the lifecycle
    deadline_at: float = 0.0
    """Unix seconds."""
    upstream: UpstreamView | None = None
    simulated: bool = False
    run: Run | None = None
    """The upstream run as last seen."""
    attempt: int = 0
    attempts: list[AttemptView] = []
    leg_started_at: float = 0.0
    next_poll_at: float | None = None
    next_look_at: float | None = None
    expires_at: float | None = None
    """When the upstream run expires, by our clock."""
    seen_at: float = 0.0
    """When the upstream run was last seen."""
    gathering_since: float | None = None
    poll_after_ms: int | None = None
    polls: int = 0
    blocked: BlockedView | None = None
    blocked_until: float | None = None
    stop: StopReason | None = None
    stopped_at: float | None = None
    cancel_sent: bool = False
    create_unsettled: bool = False
    """A create was under way when the run was stopped; nobody knows yet what it did."""
    submit_unsettled: bool = False
    """A submit was under way when it failed; nobody knows yet whether its outputs were taken."""
    uncertain: str | None = None
    status: str = "queued"
    """What we show: one of the protocol's nine."""
    ended_at: float | None = None
    last_error: dict[str, Any] | None = None
    past_usage: list[int] = [0, 0, 0]
    """Prompt, completion and total tokens of the attempts before this one."""
    metadata: dict[str, str] = {}
    """The caller's pairs."""
    metadata_sent: dict[str, str] = {}
    """What the living upstream run has of them."""

    # answers: rounds, calls and their answers
    calls: list[OpenCall] = []
    rounds: int = 0
    asks: list[AskView] = []
    counted_rounds: int = 0
    """Rounds that needed an answer that was not held already."""
    known: dict[str, KnownCall] = {}
    answers: list[Answer] = []
    early: dict[str, EarlyAnswer] = {}
    rejected: list[RejectedAnswer] = []
    barren: int = 0
    """Re-creations in a row in which the upstream took no answer that was new."""
    recreations: int = 0
    reworded: bool = False
    """A re-created run asked otherwise than the one before it. It stays so: models reword again."""

    # executions: what workers run
    executions: list[Execution] = []
    begun: dict[str, list[int]] = {}
    """The ordinals in use, by `Execution.intent`."""
    begun_here: list[tuple[str, str, int]] = []
    """What was begun for the present upstream run and may change something: tools, digests of
    arguments and ordinals."""

    # notices: who was asked, and what isn't with all receivers yet
    asked: list[AskedCall] = []
    notices: list[OpenNotice] = []
    notices_made: int = 0

    # decisions: what people have said of calls
    decisions: list[DecisionView] = []
    """Those that were verified, or weren't true."""
    revoking: list[Decision] = []
    """Revocations that are yet to be verified."""
    standing: list[StandingApproval] = []
    lapses: list[LapseInput] = []
    """Deadlines that have passed and don't stand in the ledger yet."""
    kept: list[KeptApproval] = []
    """Approvals of calls that were not run before their upstream run was gone."""


class RunInput(_State):
    """The workflow's input: a request, and after a continue-as-new the state so far."""

    request: RunRequest
    state: RunState | None = None
