"""The `Batch` workflow's contract: its names on the wire, ids, input, messages and result.

The batch itself stands in the ledger, which counts its items and holds their results; what is
pinned here stands in histories too.
"""

from pydantic import BaseModel, ConfigDict

from activities.batch_contract import PauseOrder as PauseOrder  # noqa: PLC0414 - it is had from here
from activities.contract import Upstream

BATCH_WORKFLOW = "Batch"
"""Its workflow id is the batch's."""

PAUSE_SIGNAL = "pause"
RESUME_SIGNAL = "resume"
CANCEL_SIGNAL = "cancel"
LOOK_SIGNAL = "look"
"""Something has changed in the ledger: look at once."""

DEFAULT_LANES = 2
DEFAULT_WINDOW = 32
"""Items that one lane drives at a time."""
MAX_LANES = 64
MAX_WINDOW = 1_000


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class BatchTiming(_Message):
    """How long things take, in seconds. Callers leave these alone; tests and settings don't."""

    stay: float = 600.0
    """A lane comes back after this long."""
    poll_floor: float = 0.5
    """The shortest interval of the polling curve."""
    poll_ceiling: float = 900.0
    """The longest one, of lanes and of looks at the ledger."""
    look_floor: float = 5.0
    """Where only promoted items are left, or the batch is paused, it is looked at no oftener."""
    retry_floor: float = 1.0
    """Before an item's second try."""


class CancelOrder(_Message):
    """Payload of the signal `cancel`."""

    by: str = ""


class BatchInput(_Message):
    """The workflow's input; after a continue-as-new with what hasn't been acted on."""

    batch_id: str
    lanes: int = DEFAULT_LANES
    window: int = DEFAULT_WINDOW
    timing: BatchTiming = BatchTiming()
    pause: PauseOrder | None = None
    resume: bool = False
    cancel_by: str | None = None
    check: bool = False
    """Its items are still to be read from a file in the ledger."""
    upstream: Upstream | None = None
    """Where its runs live, once that is known."""
    idle_since: float | None = None
    """Unix seconds since which lanes have had nothing to do."""


class BatchResult(_Message):
    """How the batch ended; the items' results are in the ledger."""

    status: str
