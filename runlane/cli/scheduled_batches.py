"""Schedules that begin batches: what is typed, checked and shown of them."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runlane.cli import batch_checks, batch_watching, runs, schedule_words, tools
from runlane.errors import ExitCode, InvalidRequest

if TYPE_CHECKING:
    from ledger import Ledger
    from runlane.batches.running import Batches
    from runlane.batches.schedules import BatchSchedules
    from runlane.orchestrator import Runlane
    from runlane.schedule_facts import Described
    from runlane.schedules import Schedules

_IN_FLIGHT, _TRIES = 64, 3
_PRICES = "--price-per-million-tokens"


@dataclass(frozen=True)
class When:
    """The options that say when."""

    name: str
    cron: Sequence[str]
    timezone: str
    overlap: str
    catchup_window: timedelta | None


@dataclass(frozen=True)
class BatchOptions:
    """Those of a batch; None: not given."""

    max_in_flight: int | None
    rpm: float | None
    tpm: float | None
    tries: int | None
    max_tokens: int | None
    max_cost: str | None
    prices: str | None
    with_messages: bool

    def given(self) -> Mapping[str, Any]:
        """Return them by what is typed."""
        return {
            "--max-in-flight": self.max_in_flight,
            "--rpm": self.rpm,
            "--tpm": self.tpm,
            "--tries": self.tries,
            "--max-tokens": self.max_tokens,
            "--max-cost": self.max_cost,
            _PRICES: self.prices,
            "--with-messages": self.with_messages or None,
        }


def refuse(options: Mapping[str, Any], why: str) -> None:
    """Refuse options that make no sense here.

    Args:
        options: by what is typed; None: not given.
        why: goes on after the option's name.

    Raises:
        InvalidRequest: one is given.
    """
    for option, value in options.items():
        if value is not None:
            raise InvalidRequest(f"{option} {why}", param=option)


def create(
    when: When,
    path: Path,
    limits: BatchOptions,
    *,
    deadline: str | None,
    with_tools: bool,
    paused: bool,
) -> None:
    """Check the input, store it, make the schedule, and tell of it.

    Raises:
        InvalidRequest: something can't be used; nothing was made.
    """
    from ledger.batch_record import PRICES  # noqa: PLC0415
    from runlane.batches import scheduling  # noqa: PLC0415
    from runlane.batches.estimating import read_amount, read_prices  # noqa: PLC0415
    from runlane.batches.wanted import Wanted  # noqa: PLC0415
    from runlane.person import person  # noqa: PLC0415
    from runlane.settings import Settings  # noqa: PLC0415

    options = {
        "rpm": limits.rpm,
        "tpm": limits.tpm,
        "tries": _TRIES if limits.tries is None else limits.tries,
        PRICES: None if limits.prices is None else str(read_prices(limits.prices, _PRICES)),
        "with_tools": with_tools or None,
        "with_messages": limits.with_messages or None,
        "requested_by": person(Settings.from_env()),
    }
    wanted = Wanted(
        name="any",
        options={name: value for name, value in options.items() if value is not None},
        token_limit=limits.max_tokens,
        cost_limit=None if limits.max_cost is None else read_amount(limits.max_cost, "--max-cost"),
        max_in_flight=_IN_FLIGHT if limits.max_in_flight is None else limits.max_in_flight,
    )
    wanted.check()
    until = None if deadline is None else scheduling.clock_time(deadline, when.timezone)
    registry = tools.registered() if with_tools else None
    if registry is not None:
        tools.warn(registry)
    added = None if registry is None else registry.added_to
    with batch_checks.opened(path) as source:
        raw_digest = source.raw_digest()
        problems = Path(f"{path.name}.problems.jsonl")
        totals, _ = batch_checks.check(source, problems, skip_invalid=None, added=added)
        asked = scheduling.WantedBatches(
            name=when.name,
            cron=when.cron,
            timezone=when.timezone,
            overlap=when.overlap,
            catchup_window=when.catchup_window,
            batch=scheduling.asked(
                when.name,
                wanted,
                totals,
                filename=path.name,
                deadline=until,
                tools=None if registry is None else registry.definitions(),
            ),
        )
        asked.request()

        async def work(client: "Runlane", ledger: "Ledger", _: "Batches") -> int:
            known = _known(_schedules(client), ledger)
            made = await known.create(asked, source, raw_digest=raw_digest, paused=paused)
            schedule_words.tell(made, await known.begun(made))
            await runs.mention_missing_worker(client)
            return int(ExitCode.DONE)

        batch_watching.perform(work)


async def tell(client: "Runlane", schedules: "Schedules", found: "Described") -> None:
    """Print a schedule with its latest batches."""
    async with _opened(client, schedules) as known:
        schedule_words.tell(found, await known.begun(found), await known.goes_at(found))


async def delete(client: "Runlane", schedules: "Schedules", found: "Described") -> list[str]:
    """Delete a schedule; return the names of its batches that go on."""
    async with _opened(client, schedules) as known:
        await known.delete(found)
        begun = await known.begun(found, len(found.recent))
    return [each.name for each in begun if each.status is None or not each.status.is_end]


@asynccontextmanager
async def _opened(client: "Runlane", schedules: "Schedules") -> "AsyncIterator[BatchSchedules]":
    from runlane.client_ledger import ClientLedger  # noqa: PLC0415

    place = ClientLedger(client.settings, client.temporal)
    await place.check_there()
    async with place.opened() as ledger:
        yield _known(schedules, ledger)


def _schedules(client: "Runlane") -> "Schedules":
    from runlane.schedules import Schedules  # noqa: PLC0415

    return Schedules(client.temporal, client.settings.task_queue)


def _known(schedules: "Schedules", ledger: "Ledger") -> "BatchSchedules":
    from runlane.batches.schedules import BatchSchedules  # noqa: PLC0415

    return BatchSchedules(schedules, ledger)
