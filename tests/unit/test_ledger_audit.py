"""The audit trail: one unbroken chain a run, whoever writes and however often."""

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import text

from ledger import EventChanged, Ledger, LedgerRefused, Location
from ledger.chain import Event, Kind, Row, body_digest
from ledger.contents import digest_of

AT = datetime(2026, 11, 23, 1, 2, 3, 4, tzinfo=UTC)
CALL = Event(
    key="call:1",
    kind=Kind.CALL,
    at=AT,
    version="0.1.0",
    model="gpt-4o",
    policy="approve",
    tool_schema=digest_of("schema"),
    shown=digest_of("screen"),
    facts={"tool": "refund", "round": 1, "limit": 2.5},
    contents={"arguments": '{"to":"caf\u00e9 \ud83d"}'},
)

SECOND = replace(CALL, key="call:2")


def unbroken(rows: list[Row]) -> bool:
    """Tell whether each row follows the one before it, and has the digest of what it says."""
    bodies = [json.loads(row.body) for row in rows]
    before = [None, *(row.digest for row in rows[:-1])]
    return (
        list(range(len(rows))) == [body["seq"] for body in bodies]
        and before == [body["previous"] for body in bodies]
        and all(body_digest(row.body.encode()) == row.digest for row in rows)
    )


async def test_a_row_says_what_happened_by_digests(ledger: Ledger) -> None:
    """What a model wrote stands apart; the row has its digest."""
    [row] = await ledger.audit.append("run_A", [CALL])

    assert {
        "v": 1, "run": "run_A", "seq": 0, "previous": None, "key": "call:1", "kind": "call",
        "at": "2026-11-23T01:02:03.000004Z", "version": "0.1.0", "model": "gpt-4o",
        "policy": "approve", "tool_schema": digest_of("schema"), "shown": digest_of("screen"),
        "facts": {"tool": "refund", "round": 1, "limit": 2.5},
        "contents": {"arguments": digest_of(CALL.contents["arguments"])},
    } == json.loads(row.body)  # fmt: skip
    digest = digest_of(CALL.contents["arguments"])
    assert CALL.contents["arguments"] == await ledger.contents.read("run_A", digest)


async def test_the_same_event_again_adds_nothing(ledger: Ledger) -> None:
    """Also at another time, and beside new ones; the first one's row stands."""
    [first] = await ledger.audit.append("run_A", [CALL])
    later = replace(CALL, at=AT + timedelta(minutes=1))
    rows = await ledger.audit.append("run_A", [replace(CALL, key="a"), later])

    assert [1, 0] == [row.seq for row in rows]
    assert first == rows[1]
    assert unbroken(await ledger.audit.read("run_A"))
    assert 2 == len(await ledger.audit.read("run_A"))


@pytest.mark.parametrize(
    "changed",
    [
        {"facts": {"tool": "pay"}},
        {"kind": Kind.DECISION},
        {"model": None},
        {"contents": {"arguments": "{}"}},
    ],
)
async def test_an_event_that_changed_is_refused(ledger: Ledger, changed: dict[str, object]) -> None:
    """Nothing of what came with it is added."""
    await ledger.audit.append("run_A", [CALL])
    other = replace(CALL, **changed)  # type: ignore[arg-type] # one field at a time
    with pytest.raises(EventChanged, match="row 0 of its audit trail"):
        await ledger.audit.append("run_A", [replace(CALL, key="new"), other])

    assert 1 == len(await ledger.audit.read("run_A"))


async def test_many_writers_of_one_run(location: Location) -> None:
    """Of several processes' ledgers: every event once, in one unbroken chain."""
    ledgers = [await Ledger.open(location) for _ in range(3)]
    await asyncio.gather(
        *(
            ledger.audit.append("run_A", [replace(CALL, key=f"{n}"), replace(CALL, key="same")])
            for n, ledger in enumerate(ledgers * 10)
        )
    )
    rows = await ledgers[0].audit.read("run_A")
    await asyncio.gather(*(ledger.close() for ledger in ledgers))

    assert 31 == len(rows)
    assert unbroken(rows)


async def test_runs_have_chains_of_their_own(ledger: Ledger) -> None:
    """The same event in two runs has two digests."""
    [one], [two] = [await ledger.audit.append(run, [CALL]) for run in ("run_A", "run_B")]

    assert (0, 0) == (one.seq, two.seq)
    assert one.digest != two.digest


async def test_erased_contents_leave_the_chain_whole(ledger: Ledger) -> None:
    """And the event may still be reported again."""
    before = await ledger.audit.append("run_A", [CALL])
    assert 1 == await ledger.erase_run("run_A")

    assert before == await ledger.audit.append("run_A", [CALL])
    assert unbroken(await ledger.audit.read("run_A"))
    digest = digest_of(CALL.contents["arguments"])
    assert None is await ledger.contents.read("run_A", digest)


async def test_an_instant_is_written_in_utc(ledger: Ledger) -> None:
    """Wherever it was taken."""
    there = timezone(timedelta(hours=2))
    [row] = await ledger.audit.append("run_A", [replace(CALL, at=AT.astimezone(there))])

    assert "2026-11-23T01:02:03.000004Z" == json.loads(row.body)["at"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"at": datetime(2026, 1, 1)}, "event.at must have a time zone"),  # noqa: DTZ001 # the point
        ({"key": ""}, "event.key must not be empty"),
        ({"model": "x" * 300}, "event.model must have at most 255"),
        ({"facts": {"n": 2**53}}, "event.facts must be JSON"),
        ({"facts": {"n": float("nan")}}, "event.facts must be JSON"),
        ({"facts": {"n": "\ud83d"}}, "event.facts must be JSON"),
        ({"facts": {"n": object()}}, "event.facts must be JSON"),
        ({"facts": {1: 2}}, "event.facts must be JSON"),
        ({"contents": {"a": "x" * (16 * 2**20 + 1)}}, "event.contents.a must have at most"),
    ],
)
async def test_what_cannot_be_stored_is_named(
    ledger: Ledger, changed: dict[str, object], said: str
) -> None:
    """Before anything is written; the value itself isn't repeated."""
    with pytest.raises(LedgerRefused, match=said):
        await ledger.audit.append("run_A", [CALL, replace(SECOND, **changed)])  # type: ignore[arg-type] # one field at a time

    assert [] == await ledger.audit.read("run_A")


async def test_contents_are_sealed_where_they_lie(location: Location) -> None:
    """With a sealing, neither arguments nor outputs stand in the database's files."""

    class Turned:
        def seal(self, body: bytes) -> bytes:
            return body[::-1]

        def unseal(self, stored: bytes) -> bytes:
            return stored[::-1]

    event = replace(CALL, contents={"note": "abc"})
    async with await Ledger.open(location, Turned()) as ledger:
        await ledger.audit.append("run_A", [event])
        assert "abc" == await ledger.contents.read("run_A", digest_of("abc"))
        query = text("SELECT body FROM contents")
        # Past everything that would unseal it.
        database = ledger.contents._database
        stored = await database.read(lambda connection: connection.execute(query).scalar_one())
    assert b"cba" == bytes(stored)
