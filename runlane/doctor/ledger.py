"""Whether the ledger answers, where it lies, and what it says is stopped."""

from collections.abc import Sequence
from pathlib import Path

from temporalio.client import Client

from ledger import Location
from ledger.stops import Scope, Stop
from runlane.client_ledger import ClientLedger
from runlane.doctor.batches import check_batches
from runlane.doctor.finding import Finding, problem
from runlane.errors import LedgerUnreachable, LedgerUnusable, RunlaneError
from runlane.moments import format_moment
from runlane.settings import Settings, SettingsError

_NAME = "ledger"


async def check_ledger(client: Client | None, settings: Settings) -> list[Finding]:
    """Open the ledger, unless nobody has made it yet, and look what is stopped."""
    ledger = ClientLedger(settings, client)
    try:
        if not await ledger.is_there():
            return [_nowhere(settings)]
        async with ledger.opened() as opened:
            await opened.checkpoints.latest()
            standing = await opened.stops.standing()
            batches = await check_batches(client, opened)
            where = _place(opened.location)
    except SettingsError as error:
        return [problem(_NAME, str(error), "")]
    except LedgerUnreachable as error:
        remedy = "Nothing is lost meanwhile: runs wait for it, and go on by themselves."
        return [problem(_NAME, error.message, remedy)]
    except (LedgerUnusable, RunlaneError) as error:
        return [problem(_NAME, error.message, "")]
    return [Finding(_NAME, "ok", where), *batches, _stopped(standing)]


def _stopped(standing: Sequence[Stop]) -> Finding:
    if not standing:
        return Finding("stops", "ok", "nothing is stopped")
    words = (
        f"{stop}, by {stop.by} since {format_moment(stop.since.timestamp())}: {stop.reason}"
        for stop in standing
    )
    resumes = "\n".join(f"To let it go on: runlane resume {_option(stop)}" for stop in standing)
    return Finding("stops", "note", "; ".join(words), resumes)


def _option(stop: Stop) -> str:
    return "--all" if stop.scope is Scope.ALL else f"--{stop.scope} {stop.target}"


def _nowhere(settings: Settings) -> Finding:
    if settings.data_dir is None:
        return Finding(
            _NAME,
            "note",
            "nobody says here where it lies",
            "Set RUNLANE_DATABASE_URL or RUNLANE_DATA_DIR as for the workers.",
        )
    file = Location.in_directory(Path(settings.data_dir)).file
    return Finding(_NAME, "note", f"{file} isn't there yet; the first worker makes it")


def _place(location: Location) -> str:
    kind = "SQLite, for workers of one machine" if location.is_sqlite else "PostgreSQL"
    return f"{str(location).removeprefix('The ledger ')} ({kind})"
