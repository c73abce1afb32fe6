"""What activities report to the audit trail can always be stored, and once."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError

from activities import trail
from ledger import Ledger
from ledger.chain import Event, Kind
from ledger.contents import digest_of

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CALL: dict[str, Any] = {"call_id": "call_1", "tool": "refund"}
RUNNING: dict[str, Any] = {**CALL, "ordinal": 0, "execution": "e1", "attempt": 1}

EVENTS: dict[str, Callable[[str], Event]] = {
    "created": lambda text: trail.run_created(
        attempt=1, upstream_run=text, upstream="http://up/v1", thread_id=text, assistant_id=text,
        model=text, request_digest=digest_of("{}"),
    ),
    "ended": lambda text: trail.run_ended(status="completed", upstream_run=text, model=text),
    "call": lambda text: trail.call(
        call_id=text, tool=text, arguments=text, attempt=1, round=1, model=text
    ),
    "classification": lambda text: trail.classification(
        call_id=text, tool=text, attempt=1, by="people", policy="approve", reason=text,
        tool_schema=digest_of("{}"), shown=trail.shown(arguments=text), facts={"groups": [text]},
    ),
    "decision": lambda text: trail.decision(
        decision_id="dec_1", call_id=text, kind="approve", by=text, at=AT, tool_schema=None,
        arguments_digest=digest_of("{}"), note=text, arguments=text, output=text,
    ),
    "begun": lambda text: trail.execution_begun(**RUNNING, arguments=text, model=text),
    "finished": lambda text: trail.execution_finished(**RUNNING, outcome=text, output=text),
    "uncertain": lambda text: trail.execution_uncertain(**RUNNING, reason=text),
    "submission": lambda text: trail.submission(
        attempt=1, upstream_run=text, outputs={text: text}, outcome="submitted"
    ),
    "control": lambda text: trail.control(
        what="stop", scope="all", by=text, reason=text, at=AT
    ),
    "erasure": lambda text: trail.erasure(by=text, at=AT, facts={"left": [text]}),
}  # fmt: skip


@pytest.mark.parametrize("name", EVENTS)
async def test_what_an_upstream_makes_up_can_be_stored(name: str, ledger: Ledger) -> None:
    make = EVENTS[name]
    odd = ("plain", "\ud83d broken", "nul \0", "long " * 500, "two\nlines")
    rows = await ledger.audit.append("run_1", [make(text) for text in odd])

    assert len(odd) == len({row.seq for row in rows})
    bodies = [json.loads(row.body) for row in rows]
    assert all(body["version"] for body in bodies)
    written = {digest for body in bodies for digest in body.get("contents", {}).values()}
    assert all([await ledger.contents.read("run_1", digest) in odd for digest in written])


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_told_again_has_the_same_key(name: str) -> None:
    first, again, other = (EVENTS[name](text) for text in ("a", "a", "b"))

    assert first.key == again.key
    assert first.key != other.key


def test_what_is_too_large_to_keep_is_known_by_its_digest() -> None:
    text = "x" * (16 * 1024 * 1024 + 1)
    event = trail.execution_finished(**RUNNING, outcome="output", output=text)

    assert {} == event.contents
    assert {"output": digest_of(text)} == event.facts["too_large_to_keep"]


async def test_writing_waits_for_a_ledger_that_is_down(ledger: Ledger) -> None:
    event = trail.run_ended(status="completed", upstream_run="run_u")
    await trail.write(ledger, "run_1", event)
    await trail.write(ledger, "run_1", event)
    assert [Kind.RUN] == [
        Kind(json.loads(row.body)["kind"]) for row in await ledger.audit.read("run_1")
    ]

    await ledger.close()
    with pytest.raises(ApplicationError) as caught:
        await trail.write(ledger, "run_1", event)
    assert (trail.LEDGER_DOWN, False) == (caught.value.type, caught.value.non_retryable)
