"""The `Run` workflow's contract: its names on the wire, ids, input, messages, view and result.

Callers (`runlane`) and the workflow share this module and nothing else. Every name pinned here
stands in the histories of living runs: it may be added to, never renamed. New fields have
defaults, and unknown ones are ignored, so that old and new processes read each other.
"""

import hashlib
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from activities.batch_contract import BatchItem
from activities.contract import canonical_json as canonical_json  # noqa: PLC0414 - it is had from here
from activities.contract import derive_run_id as derive_run_id  # noqa: PLC0414 - likewise
from activities.decision import DecisionKind
from activities.tools import Beside
from runsapi import Run

WORKFLOW = "Run"
NOTICES_WORKFLOW = "Notices"
"""Sends what a run that has ended left."""
DEFAULT_TASK_QUEUE = "runlane"

TOOL_OUTPUTS_SIGNAL = "tool_outputs"
NUDGE_SIGNAL = "nudge"
SUBMIT_TOOL_OUTPUTS_UPDATE = "submit_tool_outputs"
CANCEL_UPDATE = "cancel"
UPDATE_METADATA_UPDATE = "update_metadata"
DECIDE_UPDATE = "decide"
VIEW_QUERY = "view"

REQUEST_MEMO = "runlane_request"
"""Set once, at the start: a `RequestMemo`."""
PENDING_MEMO = "runlane_pending"
"""The pending calls as `PendingCall`s with shortened arguments; meaningful only while the status
is `requires_action`, for clearing it would cost an event."""

NOTHING_NEW = "NothingNew"
"""Type of the error by which `submit_tool_outputs` refuses a request in which nothing is new; its
details are the `Receipts`."""
NOT_RECORDED = "DecisionNotRecorded"
"""Type of the error by which `decide` refuses a decision; its details are the `DecisionReceipt`."""
RUN_IS_ENDING = "RunIsEnding"
"""Type of the error by which a message comes too late for a run that has ended or is ending."""
INVALID_MESSAGE = "InvalidMessage"
"""Type of the error by which a malformed message is refused; it names the field and the limit."""

MAX_ID_LENGTH = 255
"""Characters of a thread or assistant id: a search attribute over 2,048 bytes ends the workflow."""
MAX_MESSAGE_BYTES = 1_000_000
"""Bytes of one message to a workflow, as JSON; Temporal itself refuses 2 MB, for good."""
MAX_EARLY_CALLS = 128
"""Answers kept for calls that nobody has asked for yet."""
PENDING_MEMO_BYTES = 8_000
PENDING_ARGUMENTS_SHOWN = 300
"""Characters of a call's arguments shown in lists."""


def notices_workflow_id(run_id: str) -> str:
    """Return the id of the workflow that sends what a run that has ended left."""
    return f"{run_id}-notices"


def content_digest(text: str) -> str:
    """Return the digest by which contents are named where they must not stand themselves."""
    # A model's broken emoji stands in JSON as half a pair, which strict UTF-8 can't hold.
    return "sha256:" + hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


class _Message(BaseModel):
    # A message that can't be read is logged, and an output must not stand in a log.
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class Timing(_Message):
    """How long things take, in seconds. Callers leave these alone; tests and settings don't."""

    poll_floor: float = 0.5
    """The shortest interval of our own polling curve."""
    poll_ceiling: float = 900.0
    """The longest one."""
    timer_from: float = 10.0
    """From this interval on, polls are timers of the workflow; below it, attached polls."""
    attach_for: float = 300.0
    """An attached poll comes back after this long."""
    attach_for_fixed: float = 3600.0
    """The same where the caller fixed an interval under a minute."""
    look_floor: float = 60.0
    """While answers are awaited, the upstream run is looked at no oftener than this."""
    blocked_floor: float = 5.0
    """A blocked run tries again no oftener than this."""
    not_found_for: float = 600.0
    """An upstream run answered by 404 for this long is gone."""
    cancel_for: float = 600.0
    """How long the truth is sought after a cancel before the end is called uncertain."""
    settle_for: float = 10.0
    """How long a create whose answer was lost is looked for before it counts as never arrived."""
    slot_within: float = 60.0
    """A poll that finds no slot in this time becomes a timer, which needs none."""
    effect_for: float = 90.0
    """How long an update of metadata is tried again before the run goes on without it."""
    request_for: float = 3600.0
    """Start-to-close of what makes requests, longer than these may take with all that they look
    up, or Temporal would start a second one beside the first. Heartbeats tell of a dead worker,
    and each request has its own timeout: this ends only what neither of them ends."""


class RunOptions(_Message):
    """What a caller may say about a run beyond the protocol's own parameters."""

    poll_interval_ms: int | None = None
    """Fixed interval between polls; beats the upstream's header and our curve."""
    on_expiry: Literal["recreate", "fail"] = "recreate"
    """What happens when the upstream run expires: create another one, or end as `expired`."""
    deadline: float = Field(default=90 * 86400.0)
    """Seconds from the start after which the run is cancelled upstream and ends `expired`."""
    max_rounds: int = 50
    """Rounds of tool calls after which the run ends `incomplete`."""
    with_tools: bool = False
    """The worker answers calls of its own tools that only read and need nobody."""
    stream: bool = False
    """Somebody wants to see the text of messages while it is written, as far as that can be."""
    timing: Timing = Timing()


class RequestMemo(_Message):
    """What a list shows of a run, and what its key is bound to, without reading the run."""

    digest: str
    created_at: float
    metadata: dict[str, str] = {}
    model: str | None = None
    deadline: float | None = None


class RunRequest(_Message):
    """What the run was asked for; unchanged over its whole life."""

    thread_id: str
    params: dict[str, Any]
    """The create body as the caller gave it, plus `include`. A dict, because null and absent
    differ and a model would make them one."""
    options: RunOptions = RunOptions()
    created_at: float
    """Unix seconds by the caller's clock; the run's `created_at`, and what lists are ordered by."""
    owner: str = ""
    requested_by: str | None = None
    """The person who asked for it, where the face knows; whom a tool's rule may let not approve."""
    has_key: bool = False
    """The run's id belongs to an idempotency key: the same id comes again after Temporal, set back
    to a copy of its database, has forgotten the run."""
    batch: BatchItem | None = None
    """The line of a batch whose run this is: its end is the line's result."""
    new_thread: str | None = None
    """Digest of what its thread was to be, where that was made for it by the same request."""

    def digest(self) -> str:
        """Return what two requests with one idempotency key are compared by."""
        # How one listens to a run is no part of what is asked of it.
        options = self.options.model_dump(mode="json", exclude={"timing", "stream"})
        if not self.options.with_tools:
            # Requests from before there was this option stay equal to themselves.
            del options["with_tools"]
        asked = {"thread_id": self.thread_id, "params": self.params, "options": options}
        if self.new_thread is not None:
            asked["new_thread"] = self.new_thread
        return content_digest(canonical_json(asked))

    def memo(self, metadata: dict[str, str]) -> RequestMemo:
        """Return what lists show of this request, with the caller's metadata as it is now."""
        return RequestMemo(
            digest=self.digest(),
            created_at=self.created_at,
            metadata=metadata,
            model=self.params.get("model"),
            deadline=self.options.deadline,
        )


class ToolOutputMessage(_Message):
    """One answer as delivered."""

    tool_call_id: str
    output: str


class ToolOutputs(_Message):
    """Payload of the signal `tool_outputs` and the update `submit_tool_outputs`."""

    tool_outputs: list[ToolOutputMessage]
    by: str | None = None
    """Who gives the answers, as far as the caller says."""


class ReceiptStatus(StrEnum):
    """What became of one delivered answer."""

    ACCEPTED = "accepted"
    """The call was waiting; this is its answer."""
    EARLY = "early"
    """Nobody has asked yet; kept until somebody does."""
    DUPLICATE = "duplicate"
    """The same content was there already."""
    CONFLICT = "conflict"
    """Another content was there already; the first one stands."""
    LATE = "late"
    """The call was submitted, ended or given up; the content was not used."""
    UNKNOWN = "unknown"
    """Answers are awaited, and for no such call."""
    TOO_LARGE = "too_large"
    """It would bring the round over what the upstream takes; `room` bytes are left."""
    HELD = "held"
    """A person must decide this call."""


class Receipt(_Message):
    """What became of one answer."""

    tool_call_id: str
    status: ReceiptStatus
    room: int | None = None
    """With `too_large`: bytes that would still fit."""


class Receipts(_Message):
    """Answer of the update `submit_tool_outputs`: one receipt for each output, in its order."""

    receipts: list[Receipt]

    def is_new(self) -> bool:
        """Tell whether any of the answers changed anything."""
        return any(r.status in (ReceiptStatus.ACCEPTED, ReceiptStatus.EARLY) for r in self.receipts)


class CancelRequest(_Message):
    """Payload of the update `cancel`."""

    by: str | None = None


class MetadataUpdate(_Message):
    """Payload of the update `update_metadata`: the caller's pairs, replacing all former ones."""

    metadata: dict[str, str] = {}


class Acknowledged(_Message):
    """Answer of `cancel` and `update_metadata`: recorded. The truth is got by `poll`."""

    status: str


class UpstreamView(_Message):
    """The service that executes the run."""

    name: str
    url: str


class AttemptView(_Message):
    """One upstream run of ours."""

    attempt: int
    upstream_run_id: str
    status: str
    created_at: int | None = None


class Approvals(_Message):
    """How many people have approved a call, and must."""

    have: int = 0
    need: int = 1


class PendingCall(_Message):
    """A tool call that waits for its answer: the caller's, or one that people must decide."""

    tool_call_id: str
    name: str
    arguments: str
    arguments_digest: str
    """Of the text; where people decide, of the arguments as canonical JSON."""
    attempt: int = 1
    round: int = 1
    since_at: float | None = None
    handled_by: Literal["caller", "people"] = "caller"
    state: Literal["waiting", "approved", "running", "uncertain"] = "waiting"
    """`approved`: it runs when a live upstream run asks for it. `uncertain`: it may have run, and
    a person must say."""
    # What follows is of calls that people decide:
    tool_digest: str | None = None
    """Of the tool's schema."""
    reason: str | None = None
    """Why people must decide; where it is uncertain, why nobody knows."""
    groups: list[str] = []
    """Those whose turn it is."""
    approvers: list[str] = []
    approvals: Approvals | None = None
    approved_by: list[str] = []
    approved_arguments: str | None = None
    """Those that they approved, as JSON, where they edited them: whoever else approves must too."""
    claimed_by: str | None = None
    """As of `claimed_at`; an hour later it is over."""
    claimed_at: float | None = None
    deadline_at: float | None = None
    outcome: str | None = None
    """What happens at the deadline: `reject`, `fail` or `escalate`."""
    checking: bool = False
    """A decision on it is being verified."""
    beside: list[Beside] = []
    """What its tool did in this run before, with other arguments."""


class RunningTool(_Message):
    """A call whose tool a worker runs, or is about to."""

    tool_call_id: str
    name: str
    begun_at: float
    """Unix seconds."""
    progress: str | None = None
    """What the tool says of it."""
    failure: str | None = None
    """Why it is tried again, or what it waits for."""


class AskView(_Message):
    """A moment at which the caller was asked: the status was `requires_action`, and it was theirs.

    Kept for ever: afterwards nothing else tells that it was the caller who was asked.
    """

    attempt: int
    round: int
    call_ids: list[str] = []
    """All the caller's calls of the round; empty where the upstream asked for something else."""


class AnswerOutcome(StrEnum):
    """What became of an accepted answer."""

    WAITING = "waiting"
    """Accepted; the round is not complete, or the upstream run is parked."""
    SUBMITTED = "submitted"
    """The upstream took it."""
    OVERTAKEN = "overtaken"
    """Somebody else answered the upstream, or it moved on, before ours arrived."""
    UNUSED = "unused"
    """The run ended without asking for it again."""
    UNCERTAIN = "uncertain"
    """It was sent, and whether it was taken could not be established."""


class AnswerView(_Message):
    """One tool call and its answer, by digest."""

    tool_call_id: str
    name: str
    attempt: int
    round: int
    outcome: AnswerOutcome
    output_digest: str
    by: str | None = None
    answered_at: float | None = None
    call_ids: list[str] = []
    """The ids under which upstream runs of all attempts asked for it."""
    failure: str | None = None
    """What went wrong in the tool that gave it: the error's class, or fixed words."""


def receipt_for(outcome: AnswerOutcome, stands: str, delivered: str) -> ReceiptStatus:
    """Return the receipt for a second answer to a call, by the digests of the two outputs."""
    if stands == delivered:
        return ReceiptStatus.DUPLICATE
    submitted = (AnswerOutcome.SUBMITTED, AnswerOutcome.OVERTAKEN, AnswerOutcome.UNCERTAIN)
    return ReceiptStatus.LATE if outcome in submitted else ReceiptStatus.CONFLICT


class RejectedAnswer(_Message):
    """An answer delivered by signal that could not be used."""

    tool_call_id: str
    reason: ReceiptStatus
    at: float
    by: str | None = None


class DecisionView(_Message):
    """What a person said about a call, and whether it counts."""

    id: str
    kind: DecisionKind
    tool_call_id: str
    by: str
    at: float
    """Unix seconds by the clock of the face that took it."""
    recorded_at: float
    state: Literal["checking", "counted", "late", "refused"]
    """`late`: it is true, and the call waited no more. `refused`: it isn't, or isn't allowed."""
    reason: str | None = None
    """Why it doesn't count."""
    note: str | None = None
    """The person's, shortened."""
    for_rest_of_run: bool = False
    face: str = ""
    digest: str = ""
    """Of the whole decision, by which it is known again."""


class BlockedKind(StrEnum):
    """What must be mended outside before the run can go on."""

    CREDENTIALS = "credentials"
    QUOTA = "quota"
    NOT_FOUND = "not_found"
    OTHER_UPSTREAM = "other_upstream"


class BlockedView(_Message):
    """Why the run can't go on, and since when."""

    kind: BlockedKind
    message: str
    since_at: float | None
    """None where no worker could be asked."""


class StoppedView(_Message):
    """A stop that stands: nothing new is begun until it is resumed."""

    scope: str
    """`all`, `run` or `tool`."""
    target: str | None
    """The run's id or the tool's name; null with `all`."""
    by: str
    reason: str
    since_at: float


class UnreadableView(_Message):
    """Why what a run says can't be read where it is listed. Its other facts are in the clear."""

    message: str
    key_id: str | None
    """The key that this process lacks, or of which it has other bytes; None where it isn't a key
    that is missing."""


class RunlaneView(_Message):
    """What Runlane knows beyond the protocol's own Run object; the key `runlane` in JSON."""

    owner: str = ""
    """Whose run it is; empty where it was created without a token."""
    upstream: UpstreamView | None = None
    upstream_run_id: str | None = None
    attempt: int = 0
    attempts: list[AttemptView] = []
    upstream_status: str | None = None
    """The upstream run's last status seen, which may be a word that the protocol doesn't have."""
    parked: bool = False
    blocked: BlockedView | None = None
    needs_attention: str | None = None
    uncertain: str | None = None
    """What could not be established, naming the upstream run that may be alive."""
    cancel_requested: bool = False
    pending: list[PendingCall] = []
    asks: list[AskView] = []
    """When the caller was asked, the first time first."""
    running: list[RunningTool] = []
    answers: list[AnswerView] = []
    early: list[str] = []
    """Ids of answers that came before anybody asked for them."""
    rejected: list[RejectedAnswer] = []
    decisions: list[DecisionView] = []
    polls: int = 0
    rounds: int = 0
    recreations: int = 0
    simulated: bool = False
    deadline_at: float | None = None
    # Filled in by the orchestrator, from outside the workflow:
    known_at: float | None = None
    """Unix seconds of what is shown, where no worker could be asked."""
    worker: bool | None = None
    """Whether a worker answered; null where none was needed."""
    retrying: str | None = None
    """The latest error of a request that is being retried, and when the next try is due."""
    next_try_at: float | None = None
    history_events: int | None = None
    history_bytes: int | None = None
    stopped: StoppedView | None = None
    """The stop that holds this run up; null too where the ledger can't be asked from here."""
    unreadable: UnreadableView | None = None
    """In a list: metadata, deadline and waiting calls are missing, for they can't be read."""


class RunView(_Message):
    """Answer of the query `view`, and the workflow's result."""

    run: Run
    runlane: RunlaneView

    def as_json(self) -> Mapping[str, Any]:
        """Return the protocol's Run object with one more key, `runlane`."""
        return {
            **self.run.model_dump(mode="json"),
            "runlane": self.runlane.model_dump(mode="json"),
        }
