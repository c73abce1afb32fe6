"""What is said of tool calls between workflows, activities and tools. Pinned: histories hold it.

What a tool does is `runlane`'s; an activity is handed the tools of its process as a `Toolbox`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict

from activities.decision import Decision
from runsapi import MAX_TOOL_OUTPUTS_BYTES


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class Call(_Model):
    """A tool call, as the upstream asks for it."""

    id: str
    name: str
    arguments: str


class Beside(_Model):
    """Something that a tool did earlier in the run, for whoever decides about its next call."""

    name: str
    arguments: str
    outcome: str
    at: float
    """Unix seconds."""


class Rule(_Model):
    """What holds for a call of a registered tool, as it was when the call was classified."""

    tool_digest: str
    """Of all that a model is told of the tool."""
    arguments_digest: str
    """Of the call's arguments as canonical JSON."""
    read_only: bool = False
    at_most_once: bool = False
    policy: Literal["auto", "approve"] = "approve"
    reason: str | None = None
    """Why a person must decide, in the policy's words."""
    approvers: list[str] = []
    groups: list[str] = []
    """In the order in which they are asked; approvers and groups empty: anybody may approve."""
    approvals: int = 1
    """How many people must approve."""
    requester_may_approve: bool = False
    deadlines: list[float] = []
    """Unix seconds: until when it must be decided, and, where it escalates, the same for each
    further group. Empty: as long as the run lives."""
    outcome: Literal["reject", "fail", "escalate"] = "reject"
    """What happens when the deadline passes."""
    remind_at: list[float] = []
    """Unix seconds."""
    notify: bool = False
    """The worker that classified it has webhooks."""


class Handling(_Model):
    """Who answers a call."""

    by: Literal["worker", "people", "caller"]
    """`worker`: its tool needs nobody. `people`: a person must decide it. `caller`: there is no
    such tool here, so it is for whoever submits outputs."""
    output: str | None = None
    """The answer, where nothing has to run: to arguments that the model may mend."""
    timeout: float = 0.0
    """Seconds that the worker has for it, with all its tries."""
    rule: Rule | None = None
    """None for the caller's."""
    beside: list[Beside] = []
    """What the same tool did in this run before, where that is why a person must decide."""


class ClassifyInput(_Model):
    """Input of `tools.classify`."""

    calls: list[Call]
    attempt: int = 1
    round: int = 1
    model: str | None = None
    """As the upstream names it."""
    owner: str = ""
    """Whose run it is."""
    asked_at: float = 0.0
    """Unix seconds by the workflow's clock, from which deadlines count."""
    begun: list[tuple[str, str, int]] = []
    """What the workflow knows to have been begun in this attempt: tools, digests, ordinals."""


class Classified(_Model):
    """Result of `tools.classify`: by call id."""

    calls: dict[str, Handling]


class CallInput(_Model):
    """Input of `tools.call`."""

    call: Call
    rule: Rule
    """As it was classified. Where the tool is another one now, it is classified anew."""
    owner: str = ""
    """Whose run it is."""
    ordinal: int = 0
    """How many equal calls came before it in the run."""
    attempt: int = 1
    round: int = 1
    model: str | None = None
    """As the upstream names it."""
    room: int = MAX_TOOL_OUTPUTS_BYTES - 1
    """Bytes that its output may have."""
    decisions: list[Decision] = []
    """What people said, where they must let it run."""


class Called(_Model):
    """Result of `tools.call`."""

    output: str | None = None
    """What the model gets; none where the tool wasn't run, or nobody knows whether it was."""
    outcome: Literal["answered", "changed", "uncertain"] = "answered"
    """`changed`: nothing ran, for the tool isn't what it was when the call was classified."""
    failure: str | None = None
    """What went wrong, where something did: the error's class, or fixed words."""
    reason: str | None = None
    """Why it is uncertain, for people."""


@dataclass(frozen=True)
class Facts:
    """What a tool is told of its call beside the arguments."""

    run_id: str
    idempotency_key: str
    report: Callable[[str], None]
    """Takes what the tool says of its progress."""
    approver: str | None = None


@dataclass(frozen=True)
class Ran:
    """What one try at a tool came to."""

    output: str
    """What the model gets."""
    kind: Literal["returned", "invalid_arguments", "failed", "timed_out"]
    error: str | None = None
    """The class of the error, or fixed words; never what it says."""

    @property
    def is_final(self) -> bool:
        """Tell whether another try would come to the same."""
        return self.kind in ("returned", "invalid_arguments")


class Busy(Exception):
    """This process can run no tool now; its text says why. Another one may."""


class Toolbox(Protocol):
    """The tools of this process."""

    async def handling(self, call: Call, asked_at: float) -> Handling:
        """Say who answers a call, whatever happens in the tool's checks and in its policy.

        Args:
            call: which.
            asked_at: Unix seconds from which deadlines count.

        Raises:
            Busy: nothing was asked.
        """

    def tries(self, name: str) -> int:
        """Return how often a tool may be tried where it fails."""

    async def run(self, call: Call, facts: Facts) -> Ran:
        """Run a call's tool once, whatever happens in it.

        Raises:
            Busy: nothing ran.
        """
