"""The ledger as a client finds it: opened for one piece of work, or held open by its process."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from temporalio.client import Client

from ledger import Ledger, LedgerError, LedgerRefused, LedgerUnavailable, Location
from runlane import ledger_access
from runlane.errors import InvalidRequest, LedgerUnreachable, LedgerUnusable
from runlane.settings import Settings
from runlane.temporal import find_data_dir


class ClientLedger:
    """Where the settings, or the data directory of the client's embedded server, say it lies."""

    def __init__(
        self, settings: Settings, client: Client | None = None, held: Ledger | None = None
    ) -> None:
        """Open nothing yet.

        Args:
            settings: of the client.
            client: asked for its server's data directory, where the settings name no place.
            held: open already, and left open: used in place of what the others say.
        """
        self._settings = settings
        self._client = client
        self._held = held

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Ledger]:
        """Open it; what it says no to within the body is told as an error of ours.

        Raises:
            SettingsError: nobody says where it lies.
            LedgerUnreachable: it doesn't answer.
            LedgerUnusable: it answers, and this program can't use it.
            InvalidRequest: it refuses what it was given.
        """
        if self._held is not None:
            with _told():
                yield self._held
            return
        async with await ledger_access.open_ledger(self._settings, self._client) as ledger:
            with _told():
                yield ledger

    async def check_there(self) -> None:
        """Refuse to make an empty one, where what stands in the workers' own is asked for.

        Raises:
            LedgerUnusable: nobody has made it where it is said to lie.
            SettingsError: what is said of it can't be used.
            TemporalUnreachable: Temporal was to be asked, and doesn't answer.
        """
        if self._held is not None:
            return
        location = await self._location()
        if location is not None and location.is_sqlite and not location.file.exists():
            raise LedgerUnusable(
                f"There is no ledger at {location.file}: no worker has made one there. "
                "RUNLANE_DATA_DIR must be the workers' own."
            )

    async def is_there(self) -> bool:
        """Tell whether somebody says where it lies, and it has been made there.

        Raises:
            SettingsError: what is said of it can't be used.
            TemporalUnreachable: Temporal was to be asked, and doesn't answer.
        """
        if self._held is not None:
            return True
        location = await self._location()
        return location is not None and (not location.is_sqlite or location.file.exists())

    async def _location(self) -> Location | None:
        data_dir = self._settings.data_dir
        if data_dir is None and self._client is not None:
            data_dir = await find_data_dir(self._client)
        return ledger_access.named(self._settings, data_dir)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except LedgerUnavailable as error:
        raise LedgerUnreachable(str(error)) from None
    except LedgerRefused as error:
        raise InvalidRequest(str(error)) from None
    except LedgerError as error:
        raise LedgerUnusable(str(error)) from None
