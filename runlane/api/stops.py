"""The kill switch: what is not to begin until it is resumed."""

from contextlib import suppress
from typing import Any, Literal

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr

from ledger.stops import Scope, Stop
from runlane.api.access import Operator, Power, Principal, Reader
from runlane.api.owned import find_run
from runlane.api.plain import Plain
from runlane.api.refusals import Refusal
from runlane.api.services import Given, Services
from runlane.stops import MAX_REASON, Stops, document

routes = APIRouter(prefix="/v1/stops", tags=["stops"])


class _Body(Plain):
    model_config = ConfigDict(extra="forbid")

    all: StrictBool = False
    tool: StrictStr | None = Field(default=None, max_length=64)
    run_id: StrictStr | None = Field(default=None, max_length=255)


class StopOrder(_Body):
    """What is to be stopped: one of `all`, `tool` and `run_id`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"all": True, "reason": "Wrong."}]})

    reason: StrictStr = Field(
        max_length=MAX_REASON, description="Shown wherever it holds something up."
    )


class Resumption(_Body):
    """What is to go on: one of `all`, `tool` and `run_id`."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"all": True}]})


class StopDocument(BaseModel):
    """A stop."""

    object: Literal["stop"] = "stop"
    scope: Scope
    target: str | None = None
    by: str
    reason: str
    since_at: float
    """Unix seconds."""


class Ordered(StopDocument):
    """The stop that stands now."""

    new: bool
    """False: it stood already, and stands as it was."""


class StopList(BaseModel):
    """All that stand."""

    object: Literal["list"] = "list"
    data: list[StopDocument]


@routes.get("", response_model=StopList, operation_id="listStops")
async def list_stops(asking: Reader, services: Given) -> Response:
    """List what is stopped, by whom, why and since when; of runs, one's own."""
    standing = await _stops(services).list()
    data = [document(stop) for stop in standing if await _sees(services, asking, stop)]
    return JSONResponse({"object": "list", "data": data})


@routes.post("", response_model=Ordered, operation_id="orderStop")
async def order_stop(body: StopOrder, asking: Operator, services: Given) -> Response:
    """Let nothing new begin: no create, no submit, no tool. What has begun goes on."""
    await _check(services, asking, body)
    ordered = await _stops(services).stop(**_named(body), reason=body.reason, by=asking.person)
    return JSONResponse({**document(ordered.stop), "new": ordered.is_new})


@routes.post("/resume", response_model=StopDocument, operation_id="resume")
async def resume(body: Resumption, asking: Operator, services: Given) -> Response:
    """Let go on what was stopped; return the stop that ended. Workers see it within 5 seconds."""
    await _check(services, asking, body)
    ended = await _stops(services).resume(**_named(body), by=asking.person)
    return JSONResponse(document(ended))


def _stops(services: Services) -> Stops:
    client = services.runlane
    return Stops(client.settings, client.temporal, services.ledger)


def _named(body: _Body) -> dict[str, Any]:
    return body.model_dump(include={"all", "tool", "run_id"})


async def _check(services: Services, asking: Principal, body: _Body) -> None:
    """Refuse a stop of more than one's own run to whoever isn't an admin."""
    if asking.may(Power.ADMINISTER):
        return
    if body.all or body.tool is not None or body.run_id is None:
        text = "This needs a token of the role admin; an operator stops runs of their own."
        raise Refusal(text, status=403, type="permission_error", code="role_too_small")
    await find_run(services, asking, None, body.run_id)


async def _sees(services: Services, asking: Principal, stop: Stop) -> bool:
    if stop.scope is not Scope.RUN or asking.may(Power.DECIDE):
        return True
    with suppress(Refusal):
        await find_run(services, asking, None, stop.target)
        return True
    return False
