"""The simulated model: which rounds a run has, and what it writes."""

from __future__ import annotations

import json
import re
from typing import Any

from runsapi.simulator.arguments import arguments_for
from runsapi.simulator.errors import JSON
from runsapi.simulator.objects import Run, new_id
from runsapi.simulator.scenario import Call, Round, Scenario

_PLACE = re.compile(r"\{([A-Za-z0-9_-]+)\}")


def rounds_for(scenario: Scenario, fields: JSON, metadata: dict[str, str]) -> list[Round]:
    """Return the rounds of a new run, with the scenario's durations filled in."""
    attempt = metadata.get("runlane_attempt", "")
    rounds = list(scenario.attempts.get(attempt, scenario.rounds)) or _unscripted(fields)
    if not scenario.endless and rounds[-1].asks:
        rounds.append(Round())
    return [_with_defaults(part, scenario) for part in rounds]


def _with_defaults(part: Round, scenario: Scenario) -> Round:
    changes = {
        name: getattr(scenario, name)
        for name in ("queued", "in_progress", "polls")
        if getattr(part, name) is None
    }
    return part.model_copy(update=changes)


def _unscripted(fields: JSON) -> list[Round]:
    if fields.get("tool_choice") == "none":
        return [Round()]
    calls = [
        Call(
            name=tool["function"]["name"],
            arguments=arguments_for(tool["function"].get("parameters")),
        )
        for tool in fields.get("tools") or []
        if tool.get("type") == "function"
    ]
    if not calls:
        return [Round()]
    if fields.get("parallel_tool_calls") is False:
        return [Round(calls=(call,)) for call in calls]
    return [Round(calls=tuple(calls))]


def required_action_for(part: Round) -> JSON:
    """Return the `required_action` of a round, every call under a new id."""
    kind = part.required_action_type or "submit_tool_outputs"
    return {"type": kind, kind: {"tool_calls": [_call(call) for call in part.calls]}}


def _call(call: Call) -> JSON:
    arguments = call.arguments
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    if call.type == "function":
        return {
            "id": new_id("call"),
            "type": "function",
            "function": {"name": call.name, "arguments": text},
        }
    wire: JSON = {"id": new_id("call"), "type": call.type, "name": call.name, "arguments": text}
    if call.server_label is not None:
        wire["server_label"] = call.server_label
    return wire


def last_words(run: Run) -> str:
    """Return the text of the run's last message."""
    # What an asking round says was said when it asked.
    if run.round.says is not None and not run.round.asks:
        return filled(run.round.says, run.outputs)
    if run.outputs:
        return "\n".join(f"{name}: {output}" for name, output in run.outputs)
    return "Done."


def filled(text: str, outputs: list[tuple[str, str]]) -> str:
    """Replace `{name}` by a field of an output, an output, or all of them; others stay."""
    known: dict[str, Any] = {}
    for name, output in outputs:
        known[name] = output
        try:
            value = json.loads(output)
        except ValueError:
            continue
        if isinstance(value, dict):
            known.update(value)
    known["outputs"] = "; ".join(output for _, output in outputs)

    def replace(match: re.Match[str]) -> str:
        value = known.get(match[1], match[0])
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)

    return _PLACE.sub(replace, text)
