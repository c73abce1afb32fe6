"""What can go wrong with the ledger, sorted by what a caller can do about it.

    LedgerError
    ├── LedgerUnavailable   try again until it answers; every write is idempotent
    ├── LedgerRefused       mend what was given; nothing was written
    │   ├── KeyTaken
    │   ├── RunNotKnown
    │   ├── ApprovalSpent
    │   ├── TokenNameTaken
    │   ├── BatchTaken
    │   ├── BatchNotKnown
    │   └── EventChanged
    └── SchemaError         the schema and this program don't fit; a person must act
        └── SchemaTooNew

No text holds a password, a statement's parameters or anybody's contents.
"""


class LedgerError(Exception):
    """Something went wrong with the ledger."""


class LedgerUnavailable(LedgerError):
    """The ledger did not answer, or could not write; whether it wrote is not known.

    The same call again does no harm: the first one stands.
    """


class LedgerRefused(LedgerError):
    """What was given can't be written; the text names the field and its limit."""


class KeyTaken(LedgerRefused):
    """The owner's idempotency key belongs to another run."""

    def __init__(self, run_id: str, taken_by: str) -> None:
        """Name both runs, and not the key."""
        super().__init__(f"{run_id}: its idempotency key belongs to {taken_by}.")
        self.taken_by = taken_by


class ApprovalSpent(LedgerRefused):
    """What people have approved lets the call run no more; the text says why."""


class TokenNameTaken(LedgerRefused):
    """Another token that isn't revoked has this name."""

    def __init__(self, name: str) -> None:
        """Name it."""
        super().__init__(f"There is a token {name!r} already.")


class RunNotKnown(LedgerRefused):
    """There is no such run, or it is another owner's."""

    def __init__(self, field: str, run_id: str) -> None:
        """Name the field that names the run."""
        super().__init__(f"{field}: the ledger has no run {run_id!r}.")


class BatchTaken(LedgerRefused):
    """The owner's name for a batch belongs to one with another input."""

    def __init__(self, name: str, taken_by: str) -> None:
        """Name both."""
        super().__init__(f"The name {name!r} belongs to {taken_by}, which has another input.")
        self.taken_by = taken_by


class BatchNotKnown(LedgerRefused):
    """There is no such batch."""

    def __init__(self, batch_id: str) -> None:
        """Name it."""
        super().__init__(f"The ledger has no batch {batch_id!r}.")


class EventChanged(LedgerRefused):
    """An event of this key stands in the trail already, and says something else."""

    def __init__(self, run_id: str, event_key: str, seq: int) -> None:
        """Name the row that stands."""
        super().__init__(
            f"{run_id}: row {seq} of its audit trail has the event {event_key!r} with other facts."
        )
        self.seq = seq


class SchemaError(LedgerError):
    """The ledger's schema can't be used by this program."""


class SchemaTooNew(SchemaError):
    """A newer Runlane has changed the schema."""

    def __init__(self, where: str, found: str, known: str) -> None:
        """Say what was found, what is known, and what to do."""
        super().__init__(
            f"{where} has schema {found}, and this Runlane knows schemas up to {known}. "
            "Start the newer Runlane, or restore a backup made before it was started."
        )
