"""What the `Batch` workflow hands to its activities and gets from them. Pinned: histories hold it.

No item stands here: lanes find theirs in the ledger.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from activities.contract import Upstream

MAX_TRIES = 3
"""How often an item may fail before its failure stands, unless its batch says otherwise."""

PauseKind = Literal["quota", "credentials", "other_upstream", "stopped", "person"]
"""Why a batch stands still: what must be mended outside, a stop, or somebody's word."""

LaneEnd = Literal["time", "idle", "paused", "ended"]
"""Why a lane came back. `time`: there is more to do. `idle`: nothing waits. `ended`: the batch."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class BatchItem(_Model):
    """One line of a batch, as the run that it has become knows it."""

    batch_id: str
    index: int
    custom_id: str


class BatchOptions(_Model):
    """What holds for a whole batch; its record in the ledger has it as `options`."""

    rpm: float | None = None
    """Requests a minute, over all lanes."""
    tpm: float | None = None
    """Tokens a minute, likewise, counted when runs end."""
    tries: int = MAX_TRIES
    with_tools: bool = False
    """Workers answer calls of their own tools in runs that were promoted."""
    with_messages: bool = False
    """Lines of items that completed hold their runs' messages."""
    requested_by: str | None = None
    """The person, whom a tool's rule may let not approve."""


class CheckInput(_Model):
    """Input of `batch.check`."""

    batch_id: str


class LaneInput(_Model):
    """Input of `batch.lane`."""

    batch_id: str
    lane: int
    """From 0."""
    window: int
    """Items that it drives at a time."""
    upstream: Upstream | None = None
    """Where the batch's runs live; a worker that is set up for another one touches none."""
    stay: float = 600.0
    """Seconds after which it comes back, whatever is under way."""
    poll_floor: float = 0.5
    """Seconds; the shortest interval of the polling curve."""
    poll_ceiling: float = 900.0
    retry_floor: float = 1.0
    """Seconds before the second try of an item; each further try waits twice as long."""


class LaneDone(_Model):
    """Result of `batch.lane`."""

    why: LaneEnd
    settled: int = 0


class PauseOrder(_Model):
    """Somebody wants a batch to stand still."""

    reason: str
    by: str


class LookInput(_Model):
    """Input of `batch.look`: what was asked of the workflow since the last look."""

    batch_id: str
    pause: PauseOrder | None = None
    resume: bool = False
    cancel_by: str | None = None


class Looked(_Model):
    """Result of `batch.look`: where the batch stands."""

    status: str
    """As OpenAI's Batch."""
    paused: str | None = None
    """Why, in words."""
    to_drive: int = 0
    """Items that lanes have to drive still."""
    promoted: int = 0
    """Items that are runs of their own."""
    upstream: Upstream | None = None
    """That of the worker that looked: the first one binds the batch."""
    deadline_in: float | None = None
    """Seconds until nothing new begins; none without a deadline, or after it."""


class RecordInput(_Model):
    """Input of `batch.record`."""

    item: BatchItem
    run: dict[str, Any]
    """The run as it ended, by its own id, with the caller's metadata."""
    uncertain: str | None = None
    upstream_run_id: str | None = None
    """That it ended with."""
    upstream_url: str | None = None
    """Where that lives."""
