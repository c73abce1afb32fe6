"""The API in front of a lab: a real server on loopback, and the clients that ask it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import uvicorn
from openai import AsyncOpenAI

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
async def serving(lab: Lab, *, local: Principal | None = ADMIN) -> AsyncIterator[Api]:
    """Serve the API for a lab's queue, ledger and upstream."""
    settings = Settings(task_queue=lab.task_queue, upstream_url=lab.simulator.url)
    async with Assistants(lab.simulator.url) as upstream:
        services = Services(
            runlane=Runlane(lab.client, settings),
            ledger=lab.ledger,
            upstream=upstream,
            access=Access(lab.ledger, local=local),
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
            yield (api := Api(f"http://127.0.0.1:{port}/v1", services))
            await api.close()
        finally:
            server.should_exit = True
            await serving
