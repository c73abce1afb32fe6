"""What the routes of approvals are sent and answer with, as the OpenAPI document describes it."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr

from activities.decision import DecisionKind
from runlane.api.plain import Plain
from workflows.contract import PendingCall


class _Body(Plain):
    model_config = ConfigDict(extra="forbid")


class Approve(_Body):
    """A word that lets a call run."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"note": "Checked the invoice."}]})

    arguments: dict[str, Any] | StrictStr | None = Field(
        default=None, description="Others to run with: an object, or JSON."
    )
    note: StrictStr | None = Field(default=None, max_length=2_000)
    for_rest_of_run: StrictBool = False


class Reject(_Body):
    """A word that refuses a call."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"reason": "Paid already."}]})

    reason: StrictStr = Field(min_length=1, max_length=2_000, description="The model is told.")


class Answer(_Body):
    """A call's output, given by a person."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"output": "paid by hand"}]})

    output: StrictStr
    note: StrictStr | None = Field(default=None, max_length=2_000)


class Approval(PendingCall):
    """A call that waits for people."""

    object: Literal["approval"] = "approval"
    id: str
    """Names it among all approvals; for `after`."""
    run_id: str


class ApprovalPage(BaseModel):
    """A page of calls that wait, the longest first."""

    object: Literal["list"] = "list"
    data: list[Approval]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool


class Decision(BaseModel):
    """What became of a decision."""

    object: Literal["decision"] = "decision"
    id: str
    kind: DecisionKind
    run_id: str
    tool_call_id: str
    by: str
    at: float
    """Unix seconds."""
    state: Literal["counted", "checking"]
    """`checking`: the run has it, and no worker has verified it yet."""
    call: PendingCall | None = None
    """As it waits on; none where it waits no more."""
    run_status: str
