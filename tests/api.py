"""The API in front of a lab: a real server on loopback, and the clients that ask it."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import uvicorn
from openai import AsyncOpenAI

from runlane import tokens
from runlane.api.access import Access, Principal, Role
from runlane.api.app import create_app
from runlane.api.services import Services
from runlane.orchestrator import Runlane
from runlane.settings import Settings
from runsapi import Assistants
from tests.lab import Lab

ADMIN = Principal(person="ada", role=Role.ADMIN, token="tests")


class Api:
    """An API that serves."""

    def __init__(self, url: str, services: Services) -> None:
        self.url = url
        """With `/v1`."""
        self.services = services
        self._clients: list[AsyncOpenAI | httpx.AsyncClient] = []

    def sdk(self, token: str = "any") -> AsyncOpenAI:
        """Return the official client, pointed here; it tries nothing again by itself."""
        client = AsyncOpenAI(base_url=self.url, api_key=token, max_retries=0)
        self._clients.append(client)
        return client

    async def token(self, role: Role = Role.OPERATOR, person: str = "ann", **fields: Any) -> str:
        """Make a token, and return its secret."""
        made = await tokens.create(
            self.services.ledger,
            name=fields.pop("name", f"t-{secrets.token_hex(4)}"),
            person=person,
            role=role,
            made_by=fields.pop("made_by", "root"),
            **fields,
        )
        self.services.access.known.forget()
        return made.secret

    def http(self, token: str = "any") -> httpx.AsyncClient:
        """Return a plain client."""
        headers = {"authorization": f"Bearer {token}"}
        client = httpx.AsyncClient(base_url=self.url, headers=headers, timeout=30)
        self._clients.append(client)
        return client

    async def close(self) -> None:
        """Close the clients."""
        for client in self._clients:
            await (client.close() if isinstance(client, AsyncOpenAI) else client.aclose())


@asynccontextmanager
async def serving(
    lab: Lab,
    *,
    local: Principal | None = ADMIN,
    trusted_user_header: str | None = None,
    **more: Any,
) -> AsyncIterator[Api]:
    """Serve the API for a lab's queue, ledger and upstream; without `local`, to tokens alone.

    `more` are settings.
    """
    settings = Settings(task_queue=lab.task_queue, upstream_url=lab.simulator.url, **more)
    async with Assistants(lab.simulator.url) as upstream:
        services = Services(
            runlane=Runlane(lab.client, settings),
            ledger=lab.ledger,
            upstream=upstream,
            access=Access(lab.ledger, local=local, trusted_user_header=trusted_user_header),
        )

        @asynccontextmanager
        async def given() -> AsyncIterator[Services]:
            yield services

        config = uvicorn.Config(
            create_app(given), port=0, log_config=None, access_log=False, ws="none"
        )
        server = uvicorn.Server(config)
        listener = config.bind_socket()
        port = listener.getsockname()[1]
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            while not server.started:
                await asyncio.sleep(0.01)
            api = Api(f"http://127.0.0.1:{port}/v1", services)
            try:
                yield api
            finally:
                await api.close()
        finally:
            server.should_exit = True
            await serving
