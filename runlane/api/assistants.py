"""Assistants, which are the upstream's."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import ConfigDict, StrictStr

from runlane.api.access import Operator, Reader
from runlane.api.ids import AssistantId
from runlane.api.passing import Deleted, Metadata, Page, Sent, Shown, ask, query_of, shown
from runlane.api.runs import Cursor, Limit, Order
from runlane.api.services import Given

routes = APIRouter(prefix="/v1/assistants", tags=["assistants"])


class AssistantUpdate(Sent):
    """The protocol's body; what it leaves out stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "Orders"}]})

    model: StrictStr | None = None
    name: StrictStr | None = None
    description: StrictStr | None = None
    instructions: StrictStr | None = None
    tools: list[dict[str, Any]] | None = None
    metadata: Metadata = None


class AssistantCreate(AssistantUpdate):
    """The protocol's body for a new assistant."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "gpt-4o", "name": "Orders"}]}
    )

    model: StrictStr


@routes.post("", response_model=Shown, operation_id="createAssistant")
async def create_assistant(body: AssistantCreate, asking: Operator, services: Given) -> Response:
    """Create an assistant upstream."""
    return shown(await ask(services, "POST", "assistants", body=body.as_sent(), once=True))


@routes.get("", response_model=Page, operation_id="listAssistants")
async def list_assistants(
    *,
    request: Request,
    asking: Reader,
    services: Given,
    limit: Limit = 20,
    order: Order = "desc",
    after: Cursor = None,
    before: Cursor = None,
) -> Response:
    """List the upstream's assistants."""
    return shown(await ask(services, "GET", "assistants", query=query_of(request)))


@routes.get("/{assistant_id}", response_model=Shown, operation_id="getAssistant")
async def retrieve_assistant(
    assistant_id: AssistantId, asking: Reader, services: Given
) -> Response:
    """Return an assistant of the upstream's."""
    found = await ask(services, "GET", "assistants", "assistant_id", assistant_id=assistant_id)
    return shown(found)


@routes.post("/{assistant_id}", response_model=Shown, operation_id="modifyAssistant")
async def update_assistant(
    assistant_id: AssistantId, body: AssistantUpdate, asking: Operator, services: Given
) -> Response:
    """Change an assistant of the upstream's; runs that have begun keep what they began with."""
    changed = await ask(
        services,
        "POST",
        "assistants",
        "assistant_id",
        assistant_id=assistant_id,
        body=body.as_sent(),
    )
    return shown(changed)


@routes.delete("/{assistant_id}", response_model=Deleted, operation_id="deleteAssistant")
async def delete_assistant(
    assistant_id: AssistantId, asking: Operator, services: Given
) -> Response:
    """Delete an assistant of the upstream's."""
    gone = await ask(services, "DELETE", "assistants", "assistant_id", assistant_id=assistant_id)
    return shown(gone)
