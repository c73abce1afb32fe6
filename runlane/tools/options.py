"""What is said of a tool beside what it does: who must approve it, by when, how it is run."""

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from runlane.errors import InvalidTool
from runlane.tools.calendar import LONGEST, Calendar, read_calendar
from runlane.tools.deadline import Deadline, DeadlineOutcome, read_deadline, read_duration
from runlane.tools.policy import Policy, PolicyFunction

DEFAULT_TIMEOUT = timedelta(seconds=60)
LONGEST_TIMEOUT = timedelta(hours=24)
MAX_RETRIES = 100
MAX_APPROVALS = 20
MAX_NAMES = 100
MAX_NAME = 255
MAX_REMINDERS = 20
_GROUPS_TO_ESCALATE = 2


@dataclass(frozen=True, kw_only=True)
class ToolOptions:
    """A tool's options, checked. `read` makes them from what was written."""

    policy: Policy | PolicyFunction | None = None
    """None: nobody classified the tool; its calls need approval."""
    read_only: bool = False
    """It changes nothing outside, so that to run it twice does no harm."""
    approvers: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    """In the order in which they are asked; approvers and groups empty: anybody may approve."""
    approvals: int = 1
    """How many people must approve."""
    requester_may_approve: bool | None = None
    """Whether who asked for the run may approve its calls; None: see `lets_requester_approve`."""
    deadline: Deadline | None = None
    """None: a call waits as long as its run does."""
    outcome: DeadlineOutcome = DeadlineOutcome.REJECT
    """What happens when the deadline passes."""
    calendar: Calendar | None = None
    """Its hours are what deadline and reminders count."""
    reminders: tuple[timedelta, ...] = ()
    """How long after it was asked for a call that still waits is called to mind, in order."""
    timeout: timedelta = DEFAULT_TIMEOUT
    """Of one attempt."""
    retries: int = 0
    """How often it is tried again after an attempt that failed."""
    at_most_once: bool = False
    """It must never begin twice, not even where nobody knows whether it did."""

    @property
    def lets_requester_approve(self) -> bool:
        """Whether who asked for the run may approve its calls.

        Where nobody says, only if the tool names nobody and one approval is enough.
        """
        if self.requester_may_approve is not None:
            return self.requester_may_approve
        return not self.approvers and not self.groups and self.approvals == 1

    @property
    def policy_name(self) -> str:
        """`auto`, `approve`, `function` or, where nobody classified the tool, `unclassified`."""
        if self.policy is None:
            return "unclassified"
        return str(self.policy) if isinstance(self.policy, Policy) else "function"

    def deadlines_of(self, asked_at: float) -> list[float]:
        """Return when a call's deadlines are, in Unix seconds; none without a deadline.

        With `escalate` there is one for each group, counted from the one before.

        Args:
            asked_at: when the call was asked for, in Unix seconds.
        """
        if self.deadline is None:
            return []
        times = len(self.groups) if self.outcome is DeadlineOutcome.ESCALATE else 1
        found = [datetime.fromtimestamp(asked_at, UTC)]
        for _ in range(times):
            found.append(self.deadline.instant(found[-1], self.calendar))
        return [each.timestamp() for each in found[1:]]

    def reminders_of(self, asked_at: float) -> list[float]:
        """Return when a call that still waits is called to mind, in Unix seconds and in order.

        Args:
            asked_at: when the call was asked for, in Unix seconds.
        """
        start = datetime.fromtimestamp(asked_at, UTC)
        due = [Deadline(after=each).instant(start, self.calendar) for each in self.reminders]
        found = sorted({each.timestamp() for each in due})
        # Nobody waits any more once the last deadline has passed.
        until = max(self.deadlines_of(asked_at), default=found[-1] + 1 if found else 0.0)
        return [each for each in found if each < until]

    @classmethod
    def read(cls, tool: str, given: dict[str, Any]) -> "ToolOptions":
        """Check options as they were written; one that isn't given has its default.

        Raises:
            InvalidTool: the message names the tool, the option and its limit.
        """
        read: dict[str, Any] = {}
        for option, value in given.items():
            reader = _READERS.get(option)
            if reader is None:
                known = ", ".join(_READERS)
                raise _invalid(tool, option, f"is not an option; those are {known}")
            try:
                read[option] = reader(value)
            except ValueError as error:
                raise _invalid(tool, option, str(error)) from None
        options = cls(**read)
        _check_together(tool, options, given)
        return options


def _check_together(tool: str, options: ToolOptions, given: dict[str, Any]) -> None:
    if options.at_most_once and options.retries:
        raise _invalid(tool, "retries", "must be 0 for a tool that is at_most_once")
    if "outcome" in given and options.deadline is None:
        raise _invalid(tool, "outcome", "says what happens at the deadline, and there is none")
    if options.calendar and options.deadline is None and not options.reminders:
        raise _invalid(tool, "calendar", "counts the hours of deadline and reminders: give one")
    if options.outcome is DeadlineOutcome.ESCALATE and len(options.groups) < _GROUPS_TO_ESCALATE:
        raise _invalid(tool, "outcome", "escalate asks the next group: name at least two in groups")
    if options.approvers and not options.groups and options.approvals > len(options.approvers):
        few = f"must be at most {len(options.approvers)}, as many as there are approvers"
        raise _invalid(tool, "approvals", few)


def _invalid(tool: str, option: str, problem: str) -> InvalidTool:
    return InvalidTool(f"Tool {tool}: {option} {problem}.", param=option)


def _policy(given: Any) -> Policy | PolicyFunction:
    if isinstance(given, str) and given in list(Policy):
        return Policy(given)
    if not callable(given) or inspect.isclass(given):
        raise ValueError("must be auto, approve, or a function of the arguments")
    if inspect.iscoroutinefunction(given):
        raise ValueError("must be a plain function, not an async one")
    try:
        inspect.signature(given).bind({})
    except TypeError:
        raise ValueError("must be a function of one parameter, the arguments by name") from None
    return given  # type: ignore[no-any-return]  # what it returns is checked at each call


def _flag(given: Any) -> bool:
    if not isinstance(given, bool):
        raise ValueError("must be true or false")
    return given


def _number(low: int, high: int) -> Callable[[Any], int]:
    def read(given: Any) -> int:
        if type(given) is not int or not low <= given <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return given

    return read


def _names(given: Any) -> tuple[str, ...]:
    limit = f"must be a list of 1 to {MAX_NAMES} different names of 1 to {MAX_NAME} characters"
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ValueError(limit)
    names = tuple(given)
    if not 1 <= len(names) <= MAX_NAMES or not all(map(_is_name, names)):
        raise ValueError(limit)
    if len(set(names)) < len(names):
        raise ValueError(limit)
    return names


def _is_name(name: object) -> bool:
    return isinstance(name, str) and 1 <= len(name.strip()) <= MAX_NAME and name.isprintable()


def _outcome(given: Any) -> DeadlineOutcome:
    if given not in list(DeadlineOutcome):
        raise ValueError(f"must be one of {', '.join(DeadlineOutcome)}")
    return DeadlineOutcome(given)


def _reminders(given: Any) -> tuple[timedelta, ...]:
    limit = f"must be a list of 1 to {MAX_REMINDERS} durations"
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise ValueError(limit)
    found = tuple(sorted({read_duration(each, LONGEST) for each in given}))
    if not 1 <= len(found) <= MAX_REMINDERS:
        raise ValueError(limit)
    return found


_READERS: dict[str, Callable[[Any], Any]] = {
    "policy": _policy,
    "read_only": _flag,
    "approvers": _names,
    "groups": _names,
    "approvals": _number(1, MAX_APPROVALS),
    "requester_may_approve": _flag,
    "deadline": read_deadline,
    "outcome": _outcome,
    "calendar": read_calendar,
    "reminders": _reminders,
    "timeout": lambda given: read_duration(given, LONGEST_TIMEOUT),
    "retries": _number(0, MAX_RETRIES),
    "at_most_once": _flag,
}
