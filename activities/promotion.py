"""How an item of a batch becomes a `Run` of its own. Whoever knows workflows brings it about."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from activities.batch_contract import BatchItem, BatchOptions
from activities.contract import Upstream
from runsapi import Run


@dataclass(frozen=True, kw_only=True)
class ToPromote:
    """An item whose upstream run waits for somebody."""

    item: BatchItem
    run_id: str
    """Ours, as its stamp has it."""
    thread_id: str
    params: Mapping[str, Any]
    """The create body as the batch's line gave it."""
    run: Run
    """The upstream run as last seen."""
    attempt: int
    upstream: Upstream
    simulated: bool
    owner: str
    options: BatchOptions
    began_at: float
    """Unix seconds."""


class Promotions(Protocol):
    """Runs that were promoted, as the lanes and looks of batches know them."""

    async def promote(self, wanted: ToPromote) -> bool:
        """Start the run where its upstream run is; one that was started already stays.

        Returns:
            False where Temporal doesn't answer now: the same again does no harm.

        Raises:
            Refused: Temporal will never take it; nobody drives its upstream run.
        """
        ...

    async def ended(self, run_id: str) -> "Ended | None":
        """Return how a run ended; None: it lives, or Temporal can't be asked now."""
        ...

    async def cancel(self, run_id: str) -> None:
        """Ask for its end; one that has ended, or can't be asked now, is left as it is."""
        ...

    async def look(self, batch_id: str) -> None:
        """Let a batch's workflow look at the ledger; what can't be told now, it sees later."""
        ...


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A promoted run that has ended."""

    run: Mapping[str, Any] | None
    """As JSON, by our id; None where Temporal has forgotten it."""
    uncertain: str | None = None
    """What nobody knows of it."""
    upstream_run_id: str | None = None
    """That it ended with."""
    upstream_url: str | None = None
    """Where that lives."""
