"""Whether the ledger answers, where it lies, and with which key its trail is signed."""

from pathlib import Path

from temporalio.client import Client

from ledger import Location
from runlane.client_ledger import ClientLedger
from runlane.doctor.finding import Finding, problem
from runlane.errors import LedgerUnreachable, LedgerUnusable, RunlaneError
from runlane.settings import Settings, SettingsError

_NAME = "ledger"


async def check_ledger(client: Client | None, settings: Settings) -> Finding:
    """Open the ledger, unless nobody has made it yet."""
    ledger = ClientLedger(settings, client)
    try:
        if not await ledger.is_there():
            return _nowhere(settings)
        async with ledger.opened() as opened:
            await opened.checkpoints.latest()
            where = _place(opened.location)
    except SettingsError as error:
        return problem(_NAME, str(error), "")
    except LedgerUnreachable as error:
        remedy = "Nothing is lost meanwhile: runs wait for it, and go on by themselves."
        return problem(_NAME, error.message, remedy)
    except (LedgerUnusable, RunlaneError) as error:
        return problem(_NAME, error.message, "")
    return Finding(_NAME, "ok", where)


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
