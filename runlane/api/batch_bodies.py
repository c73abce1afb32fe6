"""What the routes of batches are sent and answer with: OpenAI's Batch, and the key `runlane`."""

import hashlib
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

import rfc8785
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    model_validator,
)
from pydantic.config import JsonDict

from ledger.batch_money import Prices, amount
from runlane.batches.wanted import MAX_TRIES
from workflows.batch_contract import DEFAULT_LANES, DEFAULT_WINDOW, MAX_LANES, MAX_WINDOW

_Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Key = Annotated[StrictStr, Field(max_length=64)]
_Value = Annotated[StrictStr, Field(max_length=512)]


def _prices(text: str) -> str:
    try:
        return str(Prices.parse(text))
    except ValueError:
        raise ValueError("must be two numbers from 0 to 1,000,000, as in 2.50,10") from None


def _cost(text: str) -> str:
    try:
        found = amount(text)
    except ValueError:
        found = Decimal(0)
    if not found:
        raise ValueError("must be a number above 0, up to 1,000,000, as in 12.50")
    return f"{found:f}"


_Prices = Annotated[StrictStr, Field(max_length=64), AfterValidator(_prices)]
_Cost = Annotated[StrictStr, Field(max_length=32), AfterValidator(_cost)]

_EXAMPLE: JsonDict = {
    "id": "batch_jtimxmz3ek5e2gop2u3obqwx",
    "object": "batch",
    "endpoint": "/v1/threads/runs",
    "input_file_id": "file-4s2kq7zv3m5tq2wa7hcdx3rt",
    "completion_window": "24h",
    "status": "in_progress",
    "created_at": 1_795_000_000,
    "in_progress_at": 1_795_000_004,
    "expires_at": 1_795_086_400,
    "request_counts": {"total": 200, "completed": 20, "failed": 1},
    "metadata": {"night": "monday"},
}


class BatchRunlane(BaseModel):
    """What a batch may be told beyond OpenAI's parameters: SDKs send it as `extra_body`."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    rpm: _Rate | None = Field(default=None, description="Requests a minute, of all workers.")
    tpm: _Rate | None = Field(default=None, description="Tokens a minute, of all workers.")
    tries: Annotated[StrictInt, Field(ge=1, le=MAX_TRIES)] | None = Field(
        default=None, description="Of an item, before it has failed."
    )
    max_in_flight: Annotated[StrictInt, Field(ge=1, le=MAX_LANES * MAX_WINDOW)] = (
        DEFAULT_LANES * DEFAULT_WINDOW
    )
    max_tokens: Annotated[StrictInt, Field(ge=1, lt=2**53)] | None = Field(
        default=None, description="The batch pauses once so many are used."
    )
    price_per_million_tokens: _Prices | None = Field(
        default=None,
        description="What tokens cost that are read, and written.",
        examples=["2.50,10"],
    )
    max_cost: _Cost | None = Field(
        default=None,
        description="The batch pauses once its tokens have cost so much, by these prices.",
        examples=["12.50"],
    )
    deadline: AwareDatetime | None = Field(
        default=None,
        description="Nothing begins after it; within the completion window. ISO 8601 with a zone, "
        "or Unix seconds.",
    )
    with_tools: StrictBool = Field(
        default=False, description="Hand each run the tools that this server knows; workers answer."
    )
    with_messages: StrictBool = Field(
        default=False, description="In the results: what was said in each run."
    )

    @model_validator(mode="after")
    def _is_priced(self) -> Self:
        if self.max_cost is not None and self.price_per_million_tokens is None:
            raise ValueError("max_cost needs price_per_million_tokens")
        return self


class BatchCreate(BaseModel):
    """What is to be run."""

    model_config = ConfigDict(
        extra="forbid",
        hide_input_in_errors=True,
        json_schema_extra={
            "examples": [
                {
                    "input_file_id": "file-4s2kq7zv3m5tq2wa7hcdx3rt",
                    "endpoint": "/v1/threads/runs",
                    "completion_window": "24h",
                    "metadata": {"night": "monday"},
                }
            ]
        },
    )

    input_file_id: StrictStr = Field(min_length=1, max_length=255)
    endpoint: Literal["/v1/threads/runs"] = Field(
        description="Each line says whether it makes a thread, or names one: its `url`."
    )
    completion_window: Literal["24h"] = Field(description="Nothing begins after it.")
    metadata: Annotated[dict[_Key, _Value], Field(max_length=16)] | None = None
    runlane: BatchRunlane = BatchRunlane()

    def digest(self) -> str:
        """Return the name of what is asked for, by which a repeated request is known."""
        return "sha256:" + hashlib.sha256(rfc8785.dumps(self.model_dump(mode="json"))).hexdigest()


class BatchErrorShown(BaseModel):
    """What is wrong with a line of the input."""

    code: str
    line: int | None
    message: str
    param: str | None


class BatchErrors(BaseModel):
    """Why a batch has failed: the first lines that can't be used, and how many more there are."""

    object: Literal["list"] = "list"
    data: list[BatchErrorShown]


class RequestCounts(BaseModel):
    """How many items have ended."""

    total: int
    completed: int
    failed: int


class InputDetails(BaseModel):
    """Runs don't tell it: 0."""

    cached_tokens: int = 0


class OutputDetails(BaseModel):
    """Runs don't tell it: 0."""

    reasoning_tokens: int = 0


class BatchUsage(BaseModel):
    """Tokens of all items, those tries included that led nowhere."""

    input_tokens: int
    input_tokens_details: InputDetails = InputDetails()
    output_tokens: int
    output_tokens_details: OutputDetails = OutputDetails()
    total_tokens: int


class BatchShown(BaseModel):
    """A batch. Times are Unix seconds."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    errors: BatchErrors | None = None
    input_file_id: str = Field(description="Empty where the input came from no uploaded file.")
    completion_window: str
    status: Literal[
        "validating", "failed", "in_progress", "finalizing", "completed", "expired",
        "cancelling", "cancelled",
    ]  # fmt: skip
    output_file_id: str | None = None
    error_file_id: str | None = None
    created_at: int
    in_progress_at: int | None = None
    expires_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: RequestCounts
    usage: BatchUsage
    metadata: dict[str, str] | None = None
    runlane: dict[str, Any] = Field(
        description="Name, owner, items by state, error kinds, pause, options."
    )


class BatchPage(BaseModel):
    """A page of batches, the newest first."""

    object: Literal["list"] = "list"
    data: list[BatchShown]
    first_id: str | None
    last_id: str | None
    has_more: bool
