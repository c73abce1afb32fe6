"""Files over HTTP: the input of batches, uploaded, and their results, in OpenAI's shape."""

import contextlib
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict

from ledger.files import STANDING, StoredFile
from runlane.api import batch_files, uploading
from runlane.api.access import Operator, Principal, Reader
from runlane.api.batch_files import ResultFile
from runlane.api.hardening import FILE_TYPE
from runlane.api.refusals import Refusal, not_found
from runlane.api.services import Given, Services

routes = APIRouter(prefix="/v1/files", tags=["batches"])

FileId = Annotated[str, Path(max_length=255, examples=["file-4s2kq7zv3m5tq2wa7hcdx3rt"])]

_ID = re.compile(r"file-[a-z2-7]{24}")
_PAGE = 500

_LINE = (
    '{"custom_id": "ticket-1", "method": "POST", "url": "/v1/threads/thread_7/runs",'
    ' "body": {"assistant_id": "asst_tickets"}}\n'
)
_FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "purpose"],
                    "properties": {
                        "file": {
                            "type": "string",
                            "format": "binary",
                            "description": "JSON Lines, packed by gzip or not; at most 200 MiB.",
                        },
                        "purpose": {"type": "string", "enum": [uploading.PURPOSE]},
                        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
                        "expires_after[seconds]": {
                            "type": "integer",
                            "minimum": uploading.MIN_EXPIRY,
                            "maximum": uploading.MAX_EXPIRY,
                        },
                    },
                    "examples": [{"file": _LINE, "purpose": uploading.PURPOSE}],
                }
            }
        },
    }
}
_CONTENT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file's bytes.",
        "content": {FILE_TYPE: {"schema": {"type": "string", "format": "binary"}}},
    }
}


class FileShown(BaseModel):
    """A file, as OpenAI's File object."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "file-4s2kq7zv3m5tq2wa7hcdx3rt",
                    "object": "file",
                    "bytes": 52_000,
                    "created_at": 1_795_000_000,
                    "expires_at": None,
                    "filename": "tickets.jsonl",
                    "purpose": "batch",
                    "status": "processed",
                    "status_details": None,
                }
            ]
        }
    )

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None = None
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"
    status_details: str | None = None


class FilePage(BaseModel):
    """A page of uploaded files."""

    object: Literal["list"] = "list"
    data: list[FileShown]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileDeleted(BaseModel):
    """A file that is gone."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


@routes.post("", operation_id="createFile", openapi_extra=_FORM)
async def create_file(request: Request, asking: Operator, services: Given) -> FileShown:
    """Upload a batch's input. Where the answer is lost, upload it again: nothing has begun."""
    content_type = request.headers.get("content-type", "")
    made = await uploading.take(
        content_type, request.stream(), services.ledger.files, asking.person
    )
    return _shown(made)


@routes.get("", operation_id="listFiles")
async def list_files(
    *,
    asking: Reader,
    services: Given,
    purpose: Annotated[str | None, Query(max_length=255)] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = _PAGE,
    order: Annotated[Literal["asc", "desc"], Query(description="By creation.")] = "desc",
    after: Annotated[str | None, Query(max_length=255)] = None,
) -> FilePage:
    """List uploaded files, at most 500 on a page; results are named by their batches alone."""
    if purpose not in (None, uploading.PURPOSE, STANDING):
        return FilePage(data=[], first_id=None, last_id=None, has_more=False)
    place = None if after is None else await _uploaded(services, asking, after)
    if after is not None and place is None:
        raise not_found("file", after)
    most = min(limit, _PAGE)
    found = await services.ledger.files.list(
        datetime.now(UTC),
        owner=asking.scope,
        purpose=purpose,
        limit=most + 1,
        after=place,
        oldest_first=order == "asc",
    )
    data = [_shown(each) for each in found[:most]]
    return FilePage(
        data=data,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
        has_more=len(found) > most,
    )


@routes.get("/{file_id}", operation_id="retrieveFile")
async def retrieve_file(file_id: FileId, asking: Reader, services: Given) -> FileShown:
    """Return what is known of a file. How large a batch's results are is counted once."""
    found = await _found(services, asking, file_id)
    if isinstance(found, StoredFile):
        return _shown(found)
    return FileShown(
        id=found.id,
        bytes=await found.size(services.ledger),
        created_at=_seconds(found.batch.ended_at or found.batch.created_at),
        filename=found.filename,
        purpose=batch_files.PURPOSE,
    )


@routes.get(
    "/{file_id}/content",
    operation_id="downloadFile",
    response_class=StreamingResponse,
    responses=_CONTENT,
)
async def download_file(file_id: FileId, asking: Reader, services: Given) -> StreamingResponse:
    """Return a file's bytes. Where the answer breaks off, ask again."""
    found = await _found(services, asking, file_id)
    ledger = services.ledger
    headers = {}
    if isinstance(found, StoredFile):
        content = ledger.files.chunks(found.id)
        # A file that is deleted meanwhile must not look like a whole one.
        headers["content-length"] = str(found.bytes)
    else:
        content = found.lines(ledger)
    return StreamingResponse(_closing(content), media_type=FILE_TYPE, headers=headers)


@routes.delete("/{file_id}", operation_id="deleteFile")
async def delete_file(file_id: FileId, asking: Operator, services: Given) -> FileDeleted:
    """Delete an uploaded file. A batch that has read it goes on without it."""
    found = await _found(services, asking, file_id)
    if isinstance(found, ResultFile):
        text = f"{file_id} is written from its batch's items, and goes with them."
        raise Refusal(text, param="file_id", code="file_of_batch")
    if found.purpose == STANDING:
        text = f"{file_id} is what a schedule begins batches of, and goes with it."
        raise Refusal(text, param="file_id", code="file_of_schedule")
    await services.ledger.files.delete(found.id)
    return FileDeleted(id=found.id)


async def find_input(services: Services, asking: Principal, file_id: str) -> StoredFile:
    """Return a file that a batch can be begun of, if it is there and the asker's.

    Raises:
        Refusal: it isn't, or is for something else.
    """
    found = await _found(services, asking, file_id)
    if isinstance(found, StoredFile) and found.purpose == uploading.PURPOSE:
        return found
    purpose = found.purpose if isinstance(found, StoredFile) else batch_files.PURPOSE
    text = f"{file_id} has the purpose {purpose}; the input of a batch has {uploading.PURPOSE}."
    raise Refusal(text, param="input_file_id", code="invalid_parameter")


async def _uploaded(services: Services, asking: Principal, file_id: str) -> StoredFile | None:
    if not _ID.fullmatch(file_id):
        return None
    return await services.ledger.files.find(file_id, datetime.now(UTC), owner=asking.scope)


async def _found(services: Services, asking: Principal, file_id: str) -> StoredFile | ResultFile:
    of_batch = await batch_files.find(services.ledger, asking, file_id)
    found = of_batch or await _uploaded(services, asking, file_id)
    if found is None:
        raise not_found("file", file_id)
    return found


async def _closing(content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async with contextlib.aclosing(content) as pieces:  # type: ignore[type-var]
        async for piece in pieces:
            yield piece


def _shown(file: StoredFile) -> FileShown:
    return FileShown(
        id=file.id,
        bytes=file.bytes,
        created_at=_seconds(file.created_at),
        expires_at=None if file.expires_at is None else _seconds(file.expires_at),
        filename=file.filename,
        purpose=file.purpose,
    )


def _seconds(at: datetime) -> int:
    return int(at.timestamp())
