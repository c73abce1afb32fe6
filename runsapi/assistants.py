"""The connection to one upstream that speaks the Assistants protocol."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from runsapi.answers import Response
from runsapi.credentials import Credentials
from runsapi.exchanges import OnExchange
from runsapi.runs import Runs
from runsapi.transport import DEFAULT_TIMEOUT, Auth, Query, Transport


class Assistants:
    """One upstream. Use it with ``async with``, or call :meth:`aclose` in the end.

    Proxies and certificate authorities are taken from the environment, as httpx does.

    Args:
        base_url: Where ``/threads`` is: ``https://host/v1``, or the URL of a Foundry project. User
            and password in it are used where there are no credentials; its query goes with every
            request.
        credentials: Asked for the key at every request. With ``auth="azure"`` the default is a
            token from ``DefaultAzureCredential``.
        auth: ``bearer``, ``api-key`` (Azure OpenAI), or ``azure`` (Foundry Agents: a bearer token
            and ``api-version=v1``).
        api_version: The query's ``api-version``.
        timeout: Seconds in which a request must be answered, from the connection to the answer's
            end; ``None`` waits for ever.
        max_concurrency: Requests under way at a time, over all runs; a quarter of them is kept from
            what is asked in the ``background``.
        rps: Requests begun a second, likewise. With or without these, one 429 lets all requests
            wait.
        http_client: Used instead of one of our own, and left open.
        name: What people call this upstream; its host by default.
        on_exchange: Told of each request that ended, and of each stream that began. It must not
            raise.

    Attributes:
        name: The same.
        runs: The runs of its threads.
        turns: Who waits under its limits.

    Raises:
        InvalidParameter: The URL or another argument can't be used.
    """

    def __init__(
        self,
        base_url: str,
        *,
        credentials: Credentials | None = None,
        auth: Auth = "bearer",
        api_version: str | None = None,
        timeout: float | None = DEFAULT_TIMEOUT,
        http_client: httpx.AsyncClient | None = None,
        name: str | None = None,
        max_concurrency: int | None = None,
        rps: float | None = None,
        on_exchange: OnExchange = lambda _: None,
    ) -> None:
        self._transport = Transport(
            base_url,
            credentials=credentials,
            auth=auth,
            api_version=api_version,
            timeout=timeout,
            http_client=http_client,
            max_concurrency=max_concurrency,
            rps=rps,
            on_exchange=on_exchange,
        )
        self.name = name or urlsplit(self._transport.url).netloc
        self.runs = Runs(self._transport)
        self.turns = self._transport.turns

    def __repr__(self) -> str:
        return f"Assistants({self.url!r}, name={self.name!r})"

    @property
    def url(self) -> str:
        """The base URL without user, password and query."""
        return self._transport.url

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        body: Mapping[str, Any] | None = None,
    ) -> Response[Any]:
        """Send one request of the protocol that has no method here, and return its JSON.

        Args:
            method: The HTTP method.
            path: Below the base URL, as :func:`runsapi.paths.path` makes it.
            query: What the base URL's own query names too is left out.
            body: Sent as JSON; ``None`` sends no body.

        Raises:
            InvalidParameter: The body can't be written as JSON.
            CredentialsError: No key could be had.
            APIConnectionError: No answer.
            APIStatusError: An answer that says no.
            APIResponseError: An answer that can't be read.
        """
        own = self._transport.query_names
        query = [pair for pair in query if pair[0] not in own]
        return await self._transport.request(method, path, query=query, body=body)

    async def aclose(self) -> None:
        """Close the connections that were opened here."""
        await self._transport.aclose()
