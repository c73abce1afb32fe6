"""Batches over HTTP, in the shape of OpenAI's Batch API."""

import hashlib
import json
import re
import secrets
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query

from activities.intake import FILE
from ledger import BatchNotKnown
from ledger.batch_notes import Note
from ledger.batch_record import PRICES, BatchRecord, BatchStatus, batch_id
from ledger.files import StoredFile
from runlane.api import batch_files
from runlane.api.access import Operator, Principal, Reader
from runlane.api.batch_bodies import BatchCreate, BatchPage, BatchShown
from runlane.api.files import find_input
from runlane.api.known_tools import Known
from runlane.api.refusals import Refusal, not_found
from runlane.api.runs import IdempotencyKey
from runlane.api.services import Given, Services
from runlane.batches import presenting, steering
from runlane.batches.deadlines import WINDOWS
from runlane.batches.running import Batches, NameTaken
from runlane.batches.wanted import Wanted

routes = APIRouter(prefix="/v1/batches", tags=["batches"])

BatchId = Annotated[str, Path(max_length=255, examples=["batch_jtimxmz3ek5e2gop2u3obqwx"])]

_ID = re.compile(r"batch_[a-z2-7]{24}")
_DIGEST = "request_digest"
_OPTIONS = {"rpm", "tpm", "tries", "with_tools", "with_messages"}
_START_AGAIN_AFTER = timedelta(seconds=5)
_MAX_PAGE = 100


@routes.post("", operation_id="createBatch")
async def create_batch(
    body: BatchCreate,
    asking: Operator,
    services: Given,
    tools: Known,
    idempotency_key: IdempotencyKey = None,
) -> BatchShown:
    """Begin a batch: its file is checked line by line before anything is sent.

    Without an `Idempotency-Key`, a request that is sent again begins another batch.
    """
    name = f"api-{_name_of(idempotency_key)}"
    its_id, digest = batch_id(asking.person, name), body.digest()
    made = await services.ledger.batches.find(its_id)
    if made is None:
        file = await find_input(services, asking, body.input_file_id)
        planned = _planned(body, asking, name, file)
        notes = {Note.METADATA: json.dumps(body.metadata)}
        if body.runlane.with_tools:
            registry = await tools.registry(services.runlane.settings)
            notes[Note.TOOLS] = json.dumps(registry.added_to({})["tools"])
        await services.ledger.batch_notes.prepare(its_id, notes)
        try:
            made = await _batches(services).create(planned, asking.person)
        except NameTaken:
            raise _other_request() from None
    if made.options.get(_DIGEST) != digest:
        raise _other_request()
    if made.status is BatchStatus.VALIDATING:
        # Whoever dies before this leaves a batch that nobody runs: the same key does it then, and
        # so does who looks at it.
        await _batches(services).start(made)
    return await _shown(services, made)


@routes.get("", operation_id="listBatches")
async def list_batches(
    *,
    asking: Reader,
    services: Given,
    limit: Annotated[int, Query(ge=1, le=_MAX_PAGE)] = 20,
    after: Annotated[str | None, Query(max_length=255)] = None,
) -> BatchPage:
    """List batches, the newest first; those that the command line began are there, too."""
    if after is not None:
        await _found(services, asking, after)
    try:
        found = await services.ledger.batches.list(asking.scope, limit=limit, after=after)
    except BatchNotKnown:
        raise not_found("batch", after or "") from None
    # One more than a page may hold can't be asked for.
    more = len(found) == limit and await services.ledger.batches.list(
        asking.scope, limit=1, after=found[-1].id
    )
    data = [await _shown(services, each) for each in found]
    return BatchPage(
        data=data,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
        has_more=bool(more),
    )


@routes.get("/{batch_id}", operation_id="retrieveBatch")
async def retrieve_batch(batch_id: BatchId, asking: Reader, services: Given) -> BatchShown:
    """Return a batch as it stands now."""
    found = await _found(services, asking, batch_id)
    if (
        found.status is BatchStatus.VALIDATING
        and FILE in found.options
        and datetime.now(UTC) - found.created_at > _START_AGAIN_AFTER
    ):
        await _batches(services).start(found)
    return await _shown(services, found)


@routes.post("/{batch_id}/cancel", operation_id="cancelBatch")
async def cancel_batch(batch_id: BatchId, asking: Operator, services: Given) -> BatchShown:
    """Begin nothing more of a batch, and cancel what has begun. Sent again, it changes nothing."""
    found = await _found(services, asking, batch_id)
    if found.status.is_end:
        text = f"Cannot cancel batch with status '{found.status.value}'."
        raise Refusal(text, code="batch_ended")
    found = await steering.cancel(_batches(services), found, asking.person)
    return await _shown(services, found)


def _name_of(key: str | None) -> str:
    if key is None:
        return secrets.token_hex(16)
    return hashlib.sha256(key.encode(errors="surrogatepass")).hexdigest()[:32]


def _planned(body: BatchCreate, asking: Principal, name: str, file: StoredFile) -> BatchRecord:
    its = body.runlane
    options: dict[str, Any] = {
        FILE: file.id,
        "endpoint": body.endpoint,
        "completion_window": body.completion_window,
        "requested_by": asking.person,
        _DIGEST: body.digest(),
        **its.model_dump(include=_OPTIONS, exclude_defaults=True),
    }
    if its.price_per_million_tokens is not None:
        options[PRICES] = its.price_per_million_tokens
    wanted = Wanted(name=name, options=options, max_in_flight=its.max_in_flight)
    now = datetime.now(UTC)
    until = now + WINDOWS[body.completion_window]
    if its.deadline is not None:
        if not now < its.deadline <= until:
            text = f"deadline must lie within the next {body.completion_window}."
            raise Refusal(text, param="runlane.deadline", code="invalid_parameter")
        until = its.deadline.astimezone(UTC)
    return BatchRecord(
        id=batch_id(asking.person, name),
        owner=asking.person,
        name=name,
        input_digest=file.digest,
        total=0,
        options=wanted.stored_options(),
        deadline=until,
        token_limit=its.max_tokens,
        cost_limit=None if its.max_cost is None else Decimal(its.max_cost),
        created_at=now,
    )


def _other_request() -> Refusal:
    text = "This Idempotency-Key belongs to a batch that was asked for otherwise."
    return Refusal(text, param="Idempotency-Key", code="idempotency_key_reused")


async def _found(services: Services, asking: Principal, its_id: str) -> BatchRecord:
    found = None
    if _ID.fullmatch(its_id):
        found = await services.ledger.batches.find(its_id, owner=asking.scope)
    if found is None:
        raise not_found("batch", its_id)
    return found


def _batches(services: Services) -> Batches:
    runlane = services.runlane
    return Batches(runlane.temporal, runlane.settings.task_queue, services.ledger)


async def _shown(services: Services, batch: BatchRecord) -> BatchShown:
    ledger = services.ledger
    counts = await ledger.batches.counts(batch.id)
    errors = metadata = None
    if FILE in batch.options:
        metadata = await ledger.batch_notes.find(batch.id, Note.METADATA)
        if batch.status is BatchStatus.FAILED:
            errors = await ledger.batch_notes.find(batch.id, Note.ERRORS)
    usage = counts.usage
    return BatchShown.model_validate(
        {
            **presenting.document(batch, counts),
            **batch_files.ids(batch, counts),
            "endpoint": batch.options.get("endpoint", "/v1/threads/runs"),
            "input_file_id": batch.options.get(FILE, ""),
            "completion_window": batch.options.get("completion_window", "24h"),
            "errors": None if errors is None else {"data": json.loads(errors)},
            "metadata": None if metadata is None else json.loads(metadata),
            "usage": {
                "input_tokens": usage.prompt_tokens,
                "output_tokens": usage.completion_tokens,
                "total_tokens": usage.total_tokens,
            },
        }
    )
