"""How a batch's items are read from a stored file. Whoever knows what lines may say does it."""

from typing import Protocol

from ledger.batch_record import BatchRecord

FILE = "input_file_id"
"""In a batch's options: the file that its items are read from."""


class Intake(Protocol):
    """The reading of stored input."""

    async def take(self, batch: BatchRecord) -> None:
        """Check a batch's file, and add its items or end the batch; done again, it goes on.

        Raises:
            LedgerError: the ledger doesn't answer, or can't be used.
        """
        ...
