"""The runs that the ledger knows: recorded as often as one likes, listed, erased, pruned."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from ledger import KeyTaken, Ledger, LedgerRefused, Location, RunNotKnown
from ledger.chain import Event, Kind
from ledger.contents import digest_of
from ledger.database import Database
from ledger.intent import Begin, Execution, IntentKey
from ledger.retention import Pruned, Retention
from ledger.run_record import RunQuery, RunRecord, Usage
from ledger.signing import Signer
from ledger.verifying import verify

T0 = datetime(2026, 11, 23, 1, 0, tzinfo=UTC)
USAGE = Usage(prompt_tokens=3, completion_tokens=4, total_tokens=7)
RUN = RunRecord(
    run_id="run_A",
    owner="ann",
    idempotency_key="order 7",
    request_digest=digest_of("request"),
    thread_id="thread_1",
    assistant_id="asst_1",
    status="queued",
    created_at=T0,
    updated_at=T0,
)
ENDED = replace(
    RUN,
    status="completed",
    updated_at=T0 + timedelta(minutes=5),
    ended_at=T0 + timedelta(minutes=5),
    usage=USAGE,
    contents='{"instructions":"hush"}',
)


def listed(page: list[RunRecord]) -> str:
    """Return the last letters of the runs' ids."""
    return "".join(record.run_id[-1] for record in page)


async def test_a_record_is_found_as_it_was_given(ledger: Ledger) -> None:
    """By its id and by its owner's key, and by no other owner."""
    stands = await ledger.runs.record(ENDED)

    assert replace(ENDED, contents_digest=digest_of(ENDED.contents or "")) == stands
    assert stands == await ledger.runs.find("run_A")
    assert stands == await ledger.runs.find("run_A", owner="ann")
    assert stands == await ledger.runs.find_key("ann", "order 7")
    assert None is await ledger.runs.find("run_A", owner="bob")
    assert None is await ledger.runs.find_key("bob", "order 7")
    assert None is await ledger.runs.find("run_B")


async def test_a_run_moves_on_and_never_back(ledger: Ledger) -> None:
    """A record that comes late changes nothing, nor does one that comes twice."""
    await ledger.runs.record(RUN)
    going = replace(RUN, status="in_progress", updated_at=T0 + timedelta(minutes=1))
    assert "in_progress" == (await ledger.runs.record(going)).status
    assert "in_progress" == (await ledger.runs.record(RUN)).status
    end = await ledger.runs.record(ENDED)
    assert ("completed", USAGE) == (end.status, end.usage)
    for late in (RUN, ENDED, replace(ENDED, status="failed", usage=None, contents="other")):
        assert end == await ledger.runs.record(late)


async def test_an_end_takes_what_was_not_known(ledger: Ledger) -> None:
    """Usage and contents may come after it."""
    await ledger.runs.record(replace(ENDED, usage=None, contents=None))
    stands = await ledger.runs.record(ENDED)

    assert (USAGE, ENDED.contents) == (stands.usage, stands.contents)


async def test_what_a_run_is_stays(ledger: Ledger) -> None:
    """Owner, key, thread and creation are the first record's."""
    await ledger.runs.record(RUN)
    other = replace(ENDED, owner="bob", thread_id="t", created_at=T0 + timedelta(1))
    stands = await ledger.runs.record(other)

    assert ("ann", "thread_1", T0) == (stands.owner, stands.thread_id, stands.created_at)


async def test_a_key_is_its_owners_for_one_run(ledger: Ledger) -> None:
    """Another run is refused; another owner's key of the same name is another key."""
    await ledger.runs.record(RUN)
    with pytest.raises(KeyTaken, match="belongs to run_A") as caught:
        await ledger.runs.record(replace(RUN, run_id="run_B"))
    assert "order 7" not in str(caught.value)

    await ledger.runs.record(replace(RUN, run_id="run_C", owner="bob"))
    await ledger.runs.record(replace(RUN, run_id="run_D", idempotency_key=None))
    await ledger.runs.record(replace(RUN, run_id="run_E", idempotency_key=None))


async def test_one_of_two_at_once_has_the_key(location: Location) -> None:
    """The other is told which; neither fails otherwise."""
    async with await Ledger.open(location) as one, await Ledger.open(location) as two:
        done = await asyncio.gather(
            *((one, two)[n % 2].runs.record(replace(RUN, run_id=f"run_{n}")) for n in range(8)),
            return_exceptions=True,
        )
    kinds = sorted(type(result).__name__ for result in done)
    assert ["KeyTaken"] * 7 + ["RunRecord"] == kinds


async def fill(ledger: Ledger) -> None:
    """Record six runs, a to f; c, d and e were created in the same microsecond."""
    for letter, minutes in zip("fedcba", (9, 5, 5, 5, 1, 0), strict=True):
        record = replace(
            RUN, run_id=f"run_{letter}", idempotency_key=None,
            created_at=T0 + timedelta(minutes=minutes),
            owner="bob" if letter in "bd" else "ann",
            status="completed" if letter in "abc" else "queued",
        )  # fmt: skip
        await ledger.runs.record(record)


@pytest.mark.parametrize(
    ("query", "expected", "has_more"),
    [
        (RunQuery(), "fedcba", False),
        (RunQuery(order="asc"), "abcdef", False),
        (RunQuery(limit=2), "fe", True),
        (RunQuery(limit=2, after="run_e"), "dc", True),
        (RunQuery(limit=2, after="run_c"), "ba", False),
        (RunQuery(limit=2, order="asc", after="run_c"), "de", True),
        (RunQuery(limit=2, before="run_c"), "ed", True),
        (RunQuery(limit=2, before="run_e"), "f", False),
        (RunQuery(limit=2, order="asc", before="run_d"), "bc", True),
        (RunQuery(after="run_e", before="run_b"), "dc", False),
        (RunQuery(order="asc", after="run_b", before="run_e"), "cd", False),
        (RunQuery(limit=1, after="run_e", before="run_b"), "d", True),
        (RunQuery(owner="bob"), "db", False),
        (RunQuery(status="completed", order="asc"), "abc", False),
        (RunQuery(thread_id="thread_2"), "", False),
        (RunQuery(assistant_id="asst_1", limit=6), "fedcba", False),
        (RunQuery(created_from=T0 + timedelta(minutes=5)), "fedc", False),
        (RunQuery(created_until=T0 + timedelta(minutes=5)), "ba", False),
    ],
)
async def test_a_list_has_the_protocols_order(
    ledger: Ledger, query: RunQuery, expected: str, has_more: bool
) -> None:
    """By creation, then by id; pages leave none out and show none twice."""
    await fill(ledger)
    page = await ledger.runs.list(query)

    assert (expected, has_more) == (listed(page.data), page.has_more)


async def test_a_list_leaves_contents_out(ledger: Ledger) -> None:
    """A page never reads run by run."""
    await ledger.runs.record(ENDED)
    [record] = (await ledger.runs.list(RunQuery())).data

    assert (None, USAGE) == (record.contents, record.usage)
    assert record.contents_digest is not None


async def test_a_cursor_that_is_not_there(ledger: Ledger) -> None:
    """Nor is another owner's."""
    await fill(ledger)
    with pytest.raises(RunNotKnown, match="after: the ledger has no run 'run_z'"):
        await ledger.runs.list(RunQuery(after="run_z"))
    with pytest.raises(RunNotKnown, match="before"):
        await ledger.runs.list(RunQuery(before="run_b", owner="ann"))


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (RunQuery(limit=0), "limit must be between 1 and 100, got 0"),
        (RunQuery(limit=101), "limit must be between 1 and 100, got 101"),
        (RunQuery(order="up"), "order must be asc or desc"),  # type: ignore[arg-type] # the point
        (RunQuery(after="x" * 256), "after must have at most 255"),
        (RunQuery(thread_id="\0"), "thread_id holds a character"),
        (RunQuery(created_from=datetime(2026, 1, 1)), "created_from must have a time zone"),  # noqa: DTZ001 # the point
    ],
)
async def test_a_list_that_cannot_be(ledger: Ledger, query: RunQuery, said: str) -> None:
    """The parameter and its range are named."""
    with pytest.raises(LedgerRefused, match=said):
        await ledger.runs.list(query)


async def test_erased_contents_are_gone_from_the_disk(location: Location) -> None:
    """From SQLite's files at once; digests, usage and status stay."""
    async with await Ledger.open(location) as ledger:
        await ledger.runs.record(replace(ENDED, contents="hush " * 2_000))
        event = Event(key="erased", kind=Kind.ERASURE, at=T0)
        for left in (1, 0):
            assert left == await ledger.erase_run("run_A", [event])
        stands = await ledger.runs.record(ENDED)
        assert 1 == len(await ledger.audit.read("run_A"))
        assert ["run_A"] == list(await ledger.runs.of_thread("thread_1"))
        assert [] == list(await ledger.runs.of_thread("thread_1", owner="bob"))
        if location.is_sqlite:
            files = location.file.parent.glob("ledger.db*")
            assert not [file for file in files if b"hush hush" in file.read_bytes()]

    assert (None, "completed", USAGE) == (stands.contents, stands.status, stands.usage)
    assert digest_of("hush " * 2_000) == stands.contents_digest


async def aged(location: Location) -> None:
    """Make everything ten days older."""
    database = Database(location)
    back = 10 * 86_400 * 1_000_000
    columns = {
        "contents": ["stored_at"], "intents": ["begun_at", "ended_at"], "audit_heads": ["at"],
        "runs": ["created_at", "ended_at"],
    }  # fmt: skip
    for table, names in columns.items():
        changes = ", ".join(f"{name} = {name} - {back}" for name in names)
        sql = text(f"UPDATE {table} SET {changes}")
        await database.write("test", lambda connection, sql=sql: connection.execute(sql))  # type: ignore[misc] # called at once
    await database.close()


KEY = IntentKey(run_id="run_A", tool="pay", arguments_digest=digest_of("{}"), ordinal=0)
EXECUTION = Execution(id="e", attempt=1, nonce="n")
EVERYTHING = Retention(contents=9, intents=9, audit=9, runs=9)


async def a_life(ledger: Ledger, record: RunRecord) -> None:
    """Write something of everything, as of now."""
    now = datetime.now(UTC)
    ended = record.ended_at and now
    event = Event(key="e", kind=Kind.CALL, at=now, contents={"note": "x"})
    await ledger.runs.record(replace(record, updated_at=now, ended_at=ended), [event])
    key = replace(KEY, run_id=record.run_id)
    await ledger.intents.begin(key, call_id="c", execution=EXECUTION)
    await ledger.intents.finish(key, call_id="c", execution=EXECUTION, outcome="answered")


async def test_nothing_is_pruned_unless_it_is_old(location: Location) -> None:
    """Nor without a number of days; and what is pruned once is not again."""
    async with await Ledger.open(location) as ledger:
        await a_life(ledger, ENDED)
        assert Pruned() == await ledger.prune(EVERYTHING)
        await aged(location)
        assert Pruned() == await ledger.prune(Retention())
        assert Pruned() == await ledger.prune(Retention(contents=11, intents=11, audit=11, runs=11))
        assert Pruned(2, 1, 1, 1) == await ledger.prune(EVERYTHING)
        assert Pruned() == await ledger.prune(EVERYTHING)
        with pytest.raises(LedgerRefused, match="retention_days of runs must be at least 1"):
            await ledger.prune(Retention(runs=0))


async def test_a_run_that_has_not_ended_keeps_everything(location: Location) -> None:
    """Its intents are what keeps a call from running twice."""
    async with await Ledger.open(location) as ledger:
        await a_life(ledger, RUN)
        await aged(location)
        assert Pruned() == await ledger.prune(EVERYTHING)
        how, _ = await ledger.intents.begin(KEY, call_id="c", execution=EXECUTION)
    assert Begin.FINISHED is how


async def test_a_pruned_trail_leaves_an_export_that_verifies(location: Location) -> None:
    """It says so; and what comes after goes on where the trail had ended."""
    signer = Signer.generate()
    async with await Ledger.open(location) as ledger:
        await a_life(ledger, ENDED)
        await ledger.checkpoints.make(signer)
        await aged(location)
        await ledger.prune(Retention(audit=9))
        await a_life(ledger, replace(ENDED, run_id="run_B", idempotency_key=None))
        for rows in (1, 2):
            lines: list[str] = []
            await ledger.export(lines.append, signer)
            verdict = verify(lines, signer.public)
            assert (None, 2, 1, rows) == (
                verdict.problem, verdict.runs, verdict.pruned, verdict.rows
            )  # fmt: skip
            late = Event(key="late", kind=Kind.ERASURE, at=datetime.now(UTC))
            [row] = await ledger.audit.append("run_A", [late])
            assert 1 == row.seq


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"run_id": ""}, "run_id must not be empty"),
        ({"status": "x" * 33}, "status must have at most 32"),
        ({"request_digest": "abc"}, "request_digest must be sha256:"),
        ({"idempotency_key": "x" * 256}, "idempotency_key must have at most 255"),
        ({"ended_at": datetime(2026, 1, 1)}, "ended_at must have a time zone"),  # noqa: DTZ001 # the point
    ],
)
async def test_what_cannot_be_stored_is_named(
    ledger: Ledger, changed: dict[str, object], said: str
) -> None:
    """Before anything is written, on both kinds alike."""
    with pytest.raises(LedgerRefused, match=said):
        await ledger.runs.record(replace(RUN, **changed))  # type: ignore[arg-type] # one at a time
