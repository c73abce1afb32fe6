"""The application: its routes, and what holds for all of them."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI

import runlane
from runlane.api import (
    approvals,
    assistants,
    audit,
    messages,
    refusals,
    runs,
    stops,
    threads,
    tools,
)
from runlane.api.known_tools import KnownTools
from runlane.api.services import Services

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

    app = FastAPI(
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
    refusals.install(app)
    # `/v1/threads/runs` goes before `/v1/threads/{thread_id}`, which would match it too.
    for module in (runs, threads, messages, assistants, approvals, audit, stops, tools):
        app.include_router(module.routes)
    return app
