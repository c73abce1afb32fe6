"""The audit trail, as `runlane audit export` writes it."""

import asyncio
import tempfile
from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response, StreamingResponse
from pydantic import AwareDatetime

from runlane import auditing
from runlane.api.access import Admin
from runlane.api.services import Given

routes = APIRouter(prefix="/v1/audit", tags=["audit"])

_IN_MEMORY = 1_000_000
_CHUNK = 65_536
"""Bytes, both."""


@routes.get(
    "",
    response_class=Response,
    responses={200: {"content": {"application/jsonl": {}}, "description": "Signed lines."}},
    operation_id="exportAudit",
)
async def export(
    *,
    asking: Admin,
    services: Given,
    run_id: Annotated[str | None, Query(max_length=255, description="Only this run's.")] = None,
    since: Annotated[
        AwareDatetime | None,
        Query(description="Only runs of which something was written from then on."),
    ] = None,
) -> Response:
    """Return audit trails as signed lines of JSON. Contents are in none of them."""
    client = services.runlane
    # Whole before the first byte is sent: a reader who is slow holds up nobody in the ledger, and
    # a ledger that fails in the middle is told by the status.
    data_dir = client.settings.data_dir
    lines = tempfile.SpooledTemporaryFile(  # noqa: SIM115 - closed by whoever reads it
        _IN_MEMORY, dir=None if data_dir is None else str(data_dir)
    )

    def write(line: str) -> None:
        lines.write(line.encode())

    try:
        await auditing.export(
            client.settings,
            write,
            run_id=run_id,
            since=since,
            client=client.temporal,
            ledger=services.ledger,
        )
    except BaseException:
        lines.close()
        raise
    await asyncio.to_thread(lines.seek, 0)
    return StreamingResponse(_chunks(lines), media_type="application/jsonl")


def _chunks(lines: tempfile.SpooledTemporaryFile[bytes]) -> Iterator[bytes]:
    with lines:
        while chunk := lines.read(_CHUNK):
            yield chunk
