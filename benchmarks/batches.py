"""Items a second and what each costs: a batch, a `Run` each, a plain script, and DBOS."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from benchmarks.contenders import Contenders, Turn, of_postgres
from benchmarks.figures import BatchRow, Figure, Target
from benchmarks.items import ROUND
from benchmarks.parts import Site
from runlane.ledger_access import open_ledger
from tests.postgres_server import PostgresServer

TIMES_A_RUN_EACH = 10.0
OF_THE_SCRIPT = 0.5
MOST_EVENTS = 0.5

_SUBJECT = "batches"


@dataclass(frozen=True)
class _Plan:
    at_a_time: int
    items: int
    """Of the ways that don't take a workflow an item."""
    runs: int
    """Of the `Run`s, which take longest."""
    dbos: int


async def measure(site: Site, *, quick: bool) -> list[Figure]:
    """Return what was measured, whoever is ahead."""
    plan = _Plan(at_a_time=256, items=3000, runs=400, dbos=1000)
    if quick:
        plan = _Plan(at_a_time=10, items=20, runs=4, dbos=10)
    turns = await _turns(site, plan)
    return _rows(turns, plan)


async def _turns(site: Site, plan: _Plan) -> Mapping[str, Turn]:
    assistant_id = await site.upstream.assistant(rounds=[ROUND])
    contenders = Contenders(site, assistant_id, plan.at_a_time)
    say = site.progress.say
    turns: dict[str, Turn] = {}

    def done(way: str, turn: Turn) -> None:
        turns[way] = turn
        say(f"  {turn.rate:.1f} items/s, {turn.own_ms:.1f} ms of a processor each")

    with site.progress.watching(lambda: "still at it"):
        say(f"Batches: {plan.items:,} items by a plain script, {plan.at_a_time} at a time")
        done("script", await contenders.program(plan.items, "benchmarks.plain_script"))
        say(f"Batches: {plan.items:,} items by a batch, its ledger in SQLite")
        settings = site.runlane.client.settings
        async with await open_ledger(settings, site.client) as ledger:
            done("runlane", await contenders.batch(plan.items, site.runlane, ledger))
        say(f"Batches: {plan.runs:,} items by a Run each")
        done("run_each", await contenders.runs(plan.runs, site.runlane))
        say(f"Batches: {plan.dbos:,} items by DBOS and SQLite")
        url = f"sqlite:///{site.data_dir}/dbos.sqlite"
        done("dbos", await contenders.program(plan.dbos, "benchmarks.dbos_app", database_url=url))
        async with _postgres() as server:
            cpu = of_postgres(server)
            say(f"Batches: {plan.items:,} items by a batch, its ledger in PostgreSQL")
            environ = {"RUNLANE_DATABASE_URL": server.url}
            settings = replace(settings, database_url=server.url)
            async with (
                site.runlane_worker(**environ) as worker,
                await open_ledger(settings, site.client) as ledger,
            ):
                turn = await contenders.batch(plan.items, worker, ledger, cpu, **environ)
                done("postgres", turn)
            say(f"Batches: {plan.dbos:,} items by DBOS and PostgreSQL")
            url = server.url.replace("/postgres?", "/dbos?")
            turn = await contenders.program(plan.dbos, "benchmarks.dbos_app", cpu, database_url=url)
            done("dbos_postgres", turn)
    return turns


@asynccontextmanager
async def _postgres() -> AsyncIterator[PostgresServer]:
    server = await asyncio.to_thread(PostgresServer)
    try:
        await asyncio.to_thread(server.start)
        yield server
    finally:
        await asyncio.to_thread(server.remove)


def _rows(turns: Mapping[str, Turn], plan: _Plan) -> list[Figure]:
    rates = {way: turn.rate for way, turn in turns.items()}
    ours = {way: rates[way] for way in ("runlane", "postgres")}
    events = {way: turn.events for way, turn in turns.items() if turn.events is not None}
    each = {way: rate / rates["run_each"] for way, rate in ours.items()}
    script = {way: rate / rates["script"] for way, rate in ours.items()}
    dbos = {
        "runlane": rates["runlane"] / rates["dbos"],
        "postgres": rates["postgres"] / rates["dbos_postgres"],
    }
    most = max(events[way] for way in ours)
    return [
        _row("items", "", {way: float(turn.items) for way, turn in turns.items()}),
        _row(f"rate, {plan.at_a_time} at a time", "items/s", rates),
        _row("of the rate of a Run each", "times", each,
             Target(f"{TIMES_A_RUN_EACH:g} times", min(each.values()) >= TIMES_A_RUN_EACH)),
        _row("of the script's", "times", script,
             Target(f"at least {OF_THE_SCRIPT:g}", min(script.values()) >= OF_THE_SCRIPT)),
        _row("of DBOS's, by the same database", "times", dbos,
             Target("more than 1", min(dbos.values()) > 1)),
        _row("history", "events an item", events,
             Target(f"fewer than {MOST_EVENTS:g}", most < MOST_EVENTS)),
        _row("processor time, all but the upstream", "ms an item",
             {way: turn.own_ms for way, turn in turns.items()}),
        _row("processor time of the upstream", "ms an item",
             {way: turn.upstream_ms for way, turn in turns.items()}),
    ]  # fmt: skip


def _row(
    what: str, unit: str, values: Mapping[str, float], target: Target | None = None
) -> BatchRow:
    return BatchRow(subject=_SUBJECT, what=what, unit=unit, target=target, **values)
