"""What a tool may know of the call that it answers."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

_logger = logging.getLogger(__name__)


def _nobody(_progress: str) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class ToolContext:
    """The call that a tool answers. A parameter of this type is filled in, and no model sees it."""

    run_id: str
    call_id: str
    idempotency_key: str
    """The same for every attempt at this call; hand it on to whatever takes such keys."""
    approver: str | None = None
    """Who approved the call; None: nobody had to."""
    reporter: Callable[[str], None] = field(default=_nobody, repr=False, compare=False)
    """Gets what `report` is given."""

    def report(self, progress: str) -> None:
        """Say how far the work is: a few words, for people. From any thread; it never fails."""
        try:
            self.reporter(str(progress))
        except Exception as error:
            name = type(error).__name__
            _logger.warning("Progress was not reported", extra={"error": name})
