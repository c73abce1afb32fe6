"""Serving the API from a process: where it listens, and how it ends."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import uvicorn

from runlane.api import services
from runlane.api.access import Principal
from runlane.api.app import create_app
from runlane.api.connections import Connection
from runlane.listening import Server, listener, url_of
from runlane.settings import Settings

DEFAULT_PORT = 8400
_GRACE_SECONDS = 5
"""For answers under way when told to end; streams are cut, and are taken up again elsewhere."""
_KEEP_ALIVE = 75
"""Seconds. Longer than clients keep idle connections, which would see resets."""


async def serve(
    settings: Settings,
    *,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    local: Principal | None = None,
    ready: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: say where Temporal, the ledger and the upstream are.
        host: where to listen.
        port: 0 takes a free one.
        local: whoever asks from this machine while nobody has made a token.
        ready: called with the base URL once requests are answered.

    Raises:
        RunlaneError: the port can't be used, or something doesn't answer.
        SettingsError: a variable can't be used.
    """
    with listener(host, port) as opened:
        url = f"{url_of(opened)}/v1"
        async with services.opened(settings, local=local) as given:

            @asynccontextmanager
            async def of_app() -> AsyncIterator[services.Services]:
                yield given

            config = uvicorn.Config(
                create_app(of_app),
                http=Connection,
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE,
                timeout_graceful_shutdown=_GRACE_SECONDS,
            )
            await Server(config, lambda: ready(url)).serve_until_told(opened)
