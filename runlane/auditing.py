"""The audit trail as people handle it: exported, verified, and its public key handed on."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from temporalio.client import Client

from ledger import Ledger
from ledger.errors import LedgerError
from ledger.exporting import Exported
from ledger.signing import KeyUnusable, PublicKey, Signer
from ledger.verdict import Verdict
from ledger.verifying import verify as verify_lines
from runlane import upkeep
from runlane.client_ledger import ClientLedger
from runlane.errors import InvalidRequest, RunNotFound
from runlane.settings import Settings, SettingsError
from runlane.temporal import connect, find_data_dir


async def export(
    settings: Settings,
    write: Callable[[str], object],
    *,
    run_id: str | None = None,
    since: datetime | None = None,
    client: Client | None = None,
    ledger: Ledger | None = None,
) -> Exported:
    """Write trails as lines of JSON, signed, as they are at one moment.

    Args:
        settings: say where the ledger and the key lie.
        write: takes one line with its end; called in a thread.
        run_id: only this run.
        since: only runs of which something was written from then on; their trails are whole.
        client: asked for its server's data directory, where the settings name none.
        ledger: held open by the caller; without it the one that the settings name is opened.

    Raises:
        RunNotFound: the ledger has no trail of this run.
        InvalidRequest: `since` has no time zone.
        LedgerUnreachable: the ledger doesn't answer; what was written is of no use.
        LedgerUnusable: there is no key, or it can't be read.
        SettingsError: nobody says where the ledger lies.
    """
    data_dir = await _data_dir(settings, client)
    signer = _signer(settings, data_dir)
    async with ClientLedger(_placed(settings, data_dir), held=ledger).opened() as opened:
        done = await opened.export(write, signer, run_id=run_id, since=since)
    if run_id is not None and not done.runs:
        text = f"The ledger has no audit trail of {run_id}."
        raise RunNotFound(text, param="run_id")
    return done


async def public_key(settings: Settings) -> PublicKey:
    """Return what verifies this installation's exports and checkpoints.

    Raises:
        LedgerUnusable: the key can't be read.
        SettingsError: nobody says where it lies.
    """
    return _signer(settings, await _data_dir(settings)).public


def verify(file: Path, key: Path, checkpoints: Path | None = None) -> Verdict:
    """Tell whether an export is what was signed; needs nothing but the files.

    Args:
        file: the export.
        key: the public key, as PEM.
        checkpoints: a second place of checkpoints: its directory, or a file of their lines.

    Raises:
        InvalidRequest: one of them can't be read.
    """
    try:
        public = upkeep.public_key(key)
    except KeyUnusable as error:
        raise InvalidRequest(str(error), param="--key") from None
    except OSError as error:
        raise InvalidRequest(f"{key} can't be read: {error.strerror}.", param="--key") from None
    try:
        kept = [] if checkpoints is None else _kept(checkpoints)
        with file.open(encoding="utf-8", errors="replace", newline="\n") as lines:
            return verify_lines(lines, public, kept=kept)
    except OSError as error:
        raise InvalidRequest(f"{error.filename} can't be read: {error.strerror}.") from None
    except LedgerError as error:
        raise InvalidRequest(str(error)) from None


def _kept(place: Path) -> list[str]:
    if place.is_dir():
        return upkeep.kept_lines(place)
    return place.read_text(encoding="utf-8", errors="replace").splitlines()


def _signer(settings: Settings, data_dir: Path | None) -> Signer:
    signer = upkeep.find_signer(settings, data_dir)
    if signer is None:
        problem = "must be set: nobody names a data directory, in which the key would lie."
        raise SettingsError("RUNLANE_AUDIT_KEY", problem)
    return signer


async def _data_dir(settings: Settings, client: Client | None = None) -> Path | None:
    if settings.data_dir is not None:
        return settings.data_dir
    if settings.audit_key is not None and settings.read_database_url() is not None:
        return None
    return await find_data_dir(client or await connect(settings))


def _placed(settings: Settings, data_dir: Path | None) -> Settings:
    return settings if data_dir is None else replace(settings, data_dir=data_dir)
