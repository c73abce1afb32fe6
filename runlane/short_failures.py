"""Failures with short stack traces, as they go to Temporal.

Temporal keeps 4 kB of what an activity failed with, and where it has more it keeps nothing: then
nobody would be shown why a request is tried again. The worker's log has the whole trace.
"""

from types import TracebackType

from temporalio.api.failure.v1 import Failure
from temporalio.converter import DefaultFailureConverter, PayloadConverter

FRAMES = 2
"""Kept of each error in a chain: the innermost ones."""


class ShortFailures(DefaultFailureConverter):
    """Temporal's own conversion, of short traces."""

    def to_failure(
        self, exception: BaseException, payload_converter: PayloadConverter, failure: Failure
    ) -> None:
        """Convert an error, and each that it came of."""
        exception.__traceback__ = _innermost(exception.__traceback__)
        super().to_failure(exception, payload_converter, failure)


class ShortEncodedFailures(ShortFailures):
    """The same, with messages and traces where the codec encrypts them."""

    def __init__(self) -> None:
        """Encode what errors have in common."""
        super().__init__(encode_common_attributes=True)


def _innermost(trace: TracebackType | None) -> TracebackType | None:
    frames = []
    while trace is not None:
        frames.append(trace)
        trace = trace.tb_next
    return frames[-FRAMES:][0] if frames else None
