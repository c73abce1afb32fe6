"""The application: its routes, and what holds for all of them."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI

import runlane
from runlane.api import (
    approvals,
    assistants,
    audit,
    batches,
    files,
    health,
    messages,
    refusals,
    runs,
    stops,
    streams,
    threads,
    tokens,
    tools,
)
from runlane.api.admitting import Admitting
from runlane.api.documenting import Documented
from runlane.api.hardening import Hardening
from runlane.api.health import Readiness
from runlane.api.known_tools import KnownTools
from runlane.api.services import Services
from runlane.api.watching import Watching

TITLE = "Runlane"


def create_app(services: Callable[[], AbstractAsyncContextManager[Services]]) -> FastAPI:
    """Return the application.

    Args:
        services: opened when the server starts, and closed when it ends.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with services() as app.state.services:
            yield

    app = Documented(
        title=TITLE,
        version=runlane.__version__,
        lifespan=lifespan,
        # They load scripts from other servers.
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,
    )
    app.state.tools = KnownTools()
    app.state.readiness = Readiness()
    refusals.install(app)
    app.add_middleware(Admitting)
    app.add_middleware(Hardening)
    # In front of it: what it refuses is counted too.
    app.add_middleware(Watching)
    # `/v1/threads/runs` goes before `/v1/threads/{thread_id}`, which would match it too.
    for module in (
        runs,
        streams,
        threads,
        messages,
        assistants,
        approvals,
        audit,
        stops,
        tools,
        tokens,
        files,
        batches,
        health,
    ):
        app.include_router(module.routes)
    return app
