"""What the simulated model does: scenarios, and how they are read from TOML or JSON.

A scenario is a list of rounds. Each round is one leg of a run: it is queued, then in progress, then
it asks for tools (`calls`) or ends the run (`ends`). After the last round that asks, a run ends
`completed` with a message that reports the outputs. With no rounds at all, the model calls each
declared function once, with arguments made from its JSON schema.

    assistant_id = "asst_orders"        # without it: the scenario of every other assistant
    expires_after = 600                 # seconds from creation; 0 means never
    poll_after_ms = 500                 # sends `openai-poll-after-ms`

    [[rounds]]
    queued = 0.2                        # seconds
    in_progress = 0.8                   # seconds
    calls = [{name = "lookup_order", arguments = {order_id = "A-1042"}}]

    [[rounds]]
    polls = 2                           # instead of seconds: this many retrieves see it unfinished
    says = "Order A-1042 is {state}."   # `{state}` from the outputs; also `{outputs}`, `{<tool>}`
    ends = "completed"

A file may hold several scenarios: `[[scenarios]]`, each of this shape.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

_Model = TypeVar("_Model", bound=BaseModel)
Ending = Literal["completed", "failed", "incomplete", "expired", "cancelled", "never"]

DEFAULT_QUEUED = 0.3
DEFAULT_IN_PROGRESS = 0.7
DEFAULT_CANCELLING = 0.2


class ScenarioError(ValueError):
    """A scenario or fault can't be read; the message names the file and the field."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Call(_Part):
    """One tool call the model makes."""

    name: str
    arguments: dict[str, Any] | str = Field(default_factory=dict)
    """An object, or a string that is sent as it stands (broken JSON, for instance)."""
    type: str = "function"
    server_label: str | None = None
    """For calls of type `mcp`."""


class LastError(_Part):
    """Why a run failed."""

    code: str = "server_error"
    message: str = "Sorry, something went wrong."


class Usage(_Part):
    """The token counts of a run that has ended."""

    prompt_tokens: int = 120
    completion_tokens: int = 30


class Round(_Part):
    """One leg of a run and how it ends."""

    queued: float | None = Field(default=None, ge=0)
    """Seconds in `queued`."""
    in_progress: float | None = Field(default=None, ge=0)
    """Seconds in `in_progress`."""
    polls: int | None = Field(default=None, ge=0)
    """End the leg after this many retrieves instead, whatever the time. A stream goes by time."""
    calls: tuple[Call, ...] = ()
    says: str | None = None
    """What the assistant writes: before its calls, or as its last message."""
    words_per_second: float | None = Field(default=None, gt=0)
    """Write it at this speed, after the leg's time and before its end; without it, at once."""
    ends: Ending | None = None
    last_error: LastError = LastError()
    incomplete_reason: str | None = "max_completion_tokens"
    status: str | None = None
    """A status (an unknown one, say) shown between `queued` and `in_progress`."""
    status_seconds: float = Field(default=0.5, ge=0)
    status_polls: int | None = Field(default=None, ge=0)
    """Show `status` for this many retrieves instead of `status_seconds`."""
    required_action_type: str | None = None
    """`submit_tool_outputs` unless said otherwise; alone, it asks with an empty list of calls."""
    resolves_after: float | None = Field(default=None, ge=0)
    """Seconds after which what it asks for resolves without a submit, as hosted tools do."""

    @property
    def asks(self) -> bool:
        """Whether the leg ends at `requires_action`."""
        return bool(self.calls) or self.required_action_type is not None

    @model_validator(mode="after")
    def _asks_or_ends(self) -> Self:
        if self.asks and self.ends is not None:
            raise ValueError("a round either asks (calls) or ends the run (ends), not both")
        return self


class Scenario(_Part):
    """The model's part in the runs of one assistant, or of all that have no scenario."""

    assistant_id: str | None = None
    rounds: tuple[Round, ...] = ()
    attempts: dict[str, tuple[Round, ...]] = Field(default_factory=dict)
    """Other rounds for a run whose metadata `runlane_attempt` has this value."""
    endless: bool = False
    """After the last round begin again with the first, for ever."""
    queued: float = Field(default=DEFAULT_QUEUED, ge=0)
    in_progress: float = Field(default=DEFAULT_IN_PROGRESS, ge=0)
    polls: int | None = Field(default=None, ge=0)
    expires_after: float | None = Field(default=None, ge=0)
    """Seconds from creation; 0 means never; without it the server's setting holds."""
    expires_at_form: Literal["seconds", "null", "zero", "milliseconds"] = "seconds"
    """How `expires_at` is shown; some servers show it otherwise than the protocol says."""
    poll_after_ms: int | None = Field(default=None, ge=0)
    cancel_seconds: float = Field(default=DEFAULT_CANCELLING, ge=0)
    cancel_loses: bool = False
    """A cancelled run completes all the same."""
    usage: Usage = Usage()
    word_seconds: float = Field(default=0.02, ge=0)
    """Pause after each word of a streamed message."""

    @model_validator(mode="after")
    def _endless_needs_a_question(self) -> Self:
        if self.endless and any(r.ends for r in self.rounds):
            raise ValueError("an endless scenario can't have a round that ends")
        return self


def parse_scenario(data: Any, where: str = "scenario") -> Scenario:
    """Read one scenario; a `ScenarioError` names the field that is wrong."""
    return parse(Scenario, data, where)


def load_scenarios(path: Path) -> list[Scenario]:
    """Read a TOML or JSON file with one scenario, or several under `scenarios`."""
    data = load_file(path)
    parts = data["scenarios"] if isinstance(data, dict) and "scenarios" in data else data
    parts = parts if isinstance(parts, list) else [parts]
    return [parse_scenario(part, f"{path}: scenario {n}") for n, part in enumerate(parts, 1)]


def load_file(path: Path) -> Any:
    """Read TOML (`.toml`) or JSON (anything else)."""
    try:
        text = path.read_text(encoding="utf-8")
        return tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise ScenarioError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise ScenarioError(f"{path}: {error}") from error


def parse(model: type[_Model], data: Any, where: str) -> _Model:
    """Validate, and say in one line which field is wrong."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "(the whole)"
        raise ScenarioError(f"{where}: {field}: {first['msg']}") from error
