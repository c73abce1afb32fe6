"""A tool as documents have it: those of `--json`, and of the API."""

from typing import TYPE_CHECKING, Any

from runlane.durations import format_duration

if TYPE_CHECKING:
    # Commands that show no tool load this, and not what tools bring.
    from runlane.tools.tool import Tool


def document(tool: "Tool") -> dict[str, Any]:
    """Return all that is declared of a tool, and the schema that a model gets."""
    options = tool.options
    deadline = options.deadline
    return {
        "object": "tool",
        "name": tool.name,
        "description": tool.description,
        "kind": tool.body.kind,
        "from": tool.body.source,
        "policy": options.policy_name,
        "read_only": options.read_only,
        "at_most_once": options.at_most_once,
        "approvers": list(options.approvers),
        "groups": list(options.groups),
        "approvals": options.approvals,
        "deadline": None if deadline is None else str(deadline),
        "outcome": None if deadline is None else str(options.outcome),
        "calendar": None if options.calendar is None else str(options.calendar),
        "reminders": [format_duration(each) for each in options.reminders],
        "timeout": format_duration(options.timeout),
        "retries": options.retries,
        "digest": tool.digest,
        "parameters": dict(tool.parameters),
    }
