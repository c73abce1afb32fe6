"""Runs as streams of server-sent events."""

from collections.abc import Sequence

from fastapi.responses import Response

from runlane.api.refusals import Refusal
from runlane.api.services import Services


async def stream(
    services: Services,
    run_id: str,
    *,
    after: str | None = None,
    answering: Sequence[str] | None = None,
) -> Response:
    """Return a stream of a run's events."""
    raise Refusal("Streams are not served yet.", param="stream")
