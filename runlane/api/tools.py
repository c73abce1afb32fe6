"""The tools that this process knows, as it would hand them to a run."""

from typing import Any, Literal

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict

from runlane.api.access import Reader
from runlane.api.known_tools import Known
from runlane.api.services import Given
from runlane.tools.document import document

routes = APIRouter(prefix="/v1/tools", tags=["tools"])


class Tool(BaseModel):
    """What is declared of a tool."""

    model_config = ConfigDict(extra="allow")

    object: Literal["tool"] = "tool"
    name: str
    description: str | None = None
    policy: str | None = None
    read_only: bool
    at_most_once: bool
    approvers: list[str]
    groups: list[str]
    approvals: int
    parameters: dict[str, Any]


class ToolList(BaseModel):
    """All of them."""

    object: Literal["list"] = "list"
    data: list[Tool]
    has_more: bool = False


@routes.get("", response_model=ToolList, operation_id="listTools")
async def list_tools(asking: Reader, services: Given, tools: Known) -> Response:
    """List the tools of RUNLANE_TOOLS and `runlane.toml`, as they are named to this process."""
    known = await tools.registry(services.runlane.settings)
    data = [document(tool) for tool in known]
    return JSONResponse({"object": "list", "data": data, "has_more": False})
