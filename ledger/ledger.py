"""One ledger, open: where everything else in this package starts."""

from collections.abc import Callable, Sequence
from datetime import datetime
from types import TracebackType

from ledger.approvals import Approvals
from ledger.audit import Audit
from ledger.batch_contents import BatchContents
from ledger.batch_erasing import erase_batch, recorded_runs
from ledger.batch_items import BatchItems
from ledger.batch_notes import BatchNotes
from ledger.batch_paces import BatchPaces
from ledger.batches import Batches
from ledger.chain import Event
from ledger.checkpoints import Checkpoints
from ledger.contents import Contents, Plain, Sealing
from ledger.database import Database, make_private
from ledger.decisions import Decisions
from ledger.erasing import erase_run
from ledger.exporting import Exported, export
from ledger.files import Files
from ledger.intents import Intents
from ledger.location import Location
from ledger.migrating import migrate
from ledger.retention import Pruned, Retention, prune
from ledger.runs import Runs
from ledger.signing import Signer
from ledger.stops import Stops
from ledger.tokens import Tokens


class Ledger:
    """What must outlive Temporal's retention, and prove what was done.

    Every write is idempotent, and every method may raise `LedgerUnavailable`: then call it again.
    """

    def __init__(self, database: Database, sealing: Sealing) -> None:
        """Use `Ledger.open`."""
        self._database = database
        self.contents = Contents(database, sealing)
        self.intents = Intents(database, self.contents)
        self.audit = Audit(database, self.contents)
        self.checkpoints = Checkpoints(database)
        self.runs = Runs(database, self.contents)
        self.approvals = Approvals(database, self.contents)
        self.decisions = Decisions(database, self.contents)
        self.stops = Stops(database, self.contents)
        self.tokens = Tokens(database, self.contents)
        self.batches = Batches(database, self.contents)
        self._batch_contents = BatchContents(sealing)
        self.batch_items = BatchItems(database, self._batch_contents, self.contents)
        self.batch_notes = BatchNotes(database, sealing)
        self.batch_paces = BatchPaces(database)
        self.files = Files(database, sealing)

    @property
    def location(self) -> Location:
        """Where it lies."""
        return self._database.location

    @classmethod
    async def open(cls, location: Location, sealing: Sealing | None = None) -> "Ledger":
        """Connect, and bring the schema up to date.

        Args:
            location: where it lies.
            sealing: how contents are encrypted where they lie; without it they are not.

        Raises:
            LedgerUnavailable: it doesn't answer, or its directory can't be written.
            SchemaTooNew: a newer Runlane has changed the schema.
            LedgerError: the driver for PostgreSQL isn't installed.
        """
        if location.is_sqlite:
            make_private(location)
        database = Database(location)
        try:
            await migrate(database)
        except BaseException:
            await database.close()
            raise
        return cls(database, sealing or Plain())

    async def export(
        self,
        write: Callable[[str], object],
        signer: Signer,
        *,
        run_id: str | None = None,
        since: datetime | None = None,
    ) -> Exported:
        """Write audit trails as `ledger.exporting.export` does."""
        return await export(self._database, write, signer, run_id=run_id, since=since)

    async def erase_run(self, run_id: str, events: Sequence[Event] = ()) -> int:
        """Remove a run's contents as `ledger.erasing.erase_run` does."""
        return await erase_run(self._database, self.contents, self._batch_contents, run_id, events)

    async def erase_batch(self, batch_id: str, events: Sequence[Event] = ()) -> int:
        """Remove a batch's contents as `ledger.batch_erasing.erase_batch` does."""
        return await erase_batch(self._database, self.contents, batch_id, events)

    async def recorded_runs(
        self, batch_id: str, *, after: int = -1, limit: int = 100
    ) -> Sequence[tuple[int, str]]:
        """Return a batch's runs as `ledger.batch_erasing.recorded_runs` does."""
        return await recorded_runs(self._database, batch_id, after=after, limit=limit)

    async def prune(self, retention: Retention) -> Pruned:
        """Remove what is old enough as `ledger.retention.prune` does."""
        return await prune(self._database, retention)

    async def close(self) -> None:
        """Give up the connections; what was begun is done first."""
        await self._database.close()

    async def __aenter__(self) -> "Ledger":
        """Return the ledger itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        await self.close()
