"""Who answers a call of a tool: code by itself, or code after a person approved."""

import logging
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, NamedTuple, TypeAlias

_logger = logging.getLogger(__name__)


class Policy(StrEnum):
    """What must happen before a tool's code runs."""

    AUTO = "auto"
    """Nothing."""
    APPROVE = "approve"
    """A person approves the call."""


class Verdict(NamedTuple):
    """What a call needs, and why."""

    policy: Policy
    reason: str | None = None


PolicyFunction: TypeAlias = Callable[
    [Mapping[str, Any]], Policy | str | tuple[Policy | str, str | None]
]
"""Takes a call's validated arguments by name; returns a policy, or a policy and the reason."""


def decide(policy: Policy | PolicyFunction | None, arguments: Mapping[str, Any]) -> Verdict:
    """Return what a call needs. Where that can't be told, a person must approve it.

    Args:
        policy: the tool's; None: nobody classified the tool.
        arguments: the call's, validated.
    """
    if policy is None:
        return Verdict(Policy.APPROVE, "nobody classified the tool")
    if isinstance(policy, Policy):
        return Verdict(policy)
    try:
        # A copy: what the function does to it must not reach the tool.
        return _read(policy(dict(arguments)))
    except Exception as error:
        name = type(error).__name__
        _logger.warning("A tool's policy failed", extra={"action": "policy_failed", "error": name})
        return Verdict(Policy.APPROVE, f"its policy failed: {name}")


def _read(given: object) -> Verdict:
    policy, reason = given if isinstance(given, tuple) else (given, None)
    if reason is not None and not isinstance(reason, str):
        raise TypeError
    return Verdict(Policy(policy), reason)
