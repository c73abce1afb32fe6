"""Stops in the ledger: who stands against what, on SQLite and PostgreSQL."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest

from activities import trail
from ledger import Ledger, LedgerRefused, Location
from ledger.stops import TRAIL, Scope, Stop

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def stop(scope: Scope, target: str = "", *, by: str = "ann", minutes: int = 0) -> Stop:
    """Return a stop that is about to be ordered."""
    since = NOON + timedelta(minutes=minutes)
    return Stop(scope=scope, target=target, by=by, reason="a wrong price list", since=since)


async def test_a_stop_holds_what_it_names_and_nothing_else(ledger: Ledger) -> None:
    """All, a run, a tool: each of them for itself, until it is resumed."""
    await ledger.stops.stop(stop(Scope.RUN, "run_1"))
    await ledger.stops.stop(stop(Scope.TOOL, "refund", minutes=1))

    assert stop(Scope.RUN, "run_1") == await ledger.stops.against("run_1")
    assert stop(Scope.RUN, "run_1") == await ledger.stops.against("run_1", "refund")
    assert stop(Scope.TOOL, "refund", minutes=1) == await ledger.stops.against("run_2", "refund")
    assert await ledger.stops.against("run_2") is None
    assert await ledger.stops.against("run_2", "look_up") is None
    # A run and a tool may have one name.
    assert await ledger.stops.against("refund", "run_1") is None

    everything = await ledger.stops.stop(stop(Scope.ALL, minutes=2))
    assert everything == await ledger.stops.against("run_2", "look_up")
    assert everything == await ledger.stops.against("run_1", "refund")
    assert ["run run_1", "tool refund", "everything"] == [
        str(each) for each in await ledger.stops.standing()
    ]

    assert everything == await ledger.stops.resume(Scope.ALL)
    assert stop(Scope.RUN, "run_1") == await ledger.stops.against("run_1")
    assert await ledger.stops.resume(Scope.ALL) is None
    assert await ledger.stops.resume(Scope.TOOL, "run_1") is None


async def test_the_first_stop_stands(ledger: Ledger) -> None:
    """A second one of the same scope is told whose stands, and takes nothing over; nor by race."""
    wanted = [stop(Scope.ALL, by=by) for by in ("ann", "bob", "eve")]

    found = await asyncio.gather(*(ledger.stops.stop(each) for each in wanted))

    assert 1 == len(set(found))
    assert [found[0]] == await ledger.stops.standing()


async def test_only_what_changes_something_is_in_the_trail(ledger: Ledger) -> None:
    """A stop and its resume, once each, with who and which; the reason is a content."""
    for minute in (0, 1):
        event = trail.control(
            what="stop", scope="all", by="ann", reason="prices", at=NOON + timedelta(minutes=minute)
        )
        await ledger.stops.stop(stop(Scope.ALL, minutes=minute), [event])
    for minute in (2, 3):
        event = trail.control(
            what="resume", scope="all", by="bob", reason=None, at=NOON + timedelta(minutes=minute)
        )
        await ledger.stops.resume(Scope.ALL, events=[event])

    bodies = [json.loads(row.body) for row in await ledger.audit.read(TRAIL)]

    assert [
        ("control", {"what": "stop", "scope": "all", "by": "ann"}),
        ("control", {"what": "resume", "scope": "all", "by": "bob"}),
    ] == [(body["kind"], body["facts"]) for body in bodies]
    assert "prices" not in str(bodies)


async def test_a_stop_outlives_the_process(location: Location) -> None:
    """It is written when `stop` returns."""
    async with await Ledger.open(location) as ledger:
        await ledger.stops.stop(stop(Scope.TOOL, "refund"))

    async with await Ledger.open(location) as ledger:
        assert [stop(Scope.TOOL, "refund")] == await ledger.stops.standing()


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"scope": Scope.RUN}, "target"),
        ({"scope": Scope.TOOL, "target": "x" * 256}, "target"),
        ({"by": ""}, "by"),
        ({"reason": ""}, "reason"),
        ({"reason": "x" * 256}, "reason"),
        ({"reason": "a\0b"}, "reason"),
        ({"since": datetime(2026, 1, 1)}, "since"),  # noqa: DTZ001 - that is the mistake
    ],
)
def test_a_stop_that_can_not_be_stored_is_refused(fields: dict[str, object], field: str) -> None:
    """By the name of the field."""
    given = {"scope": Scope.ALL, "by": "ann", "reason": "prices", "since": NOON, **fields}

    with pytest.raises(LedgerRefused, match=f"^{field} "):
        Stop(**given)  # type: ignore[arg-type]  # each of a type that fits, but one
