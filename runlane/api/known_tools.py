"""The tools that this process knows: its modules are imported once, when somebody first asks."""

import asyncio
from typing import Annotated

from fastapi import Depends, Request

from runlane.settings import Settings
from runlane.tools.loading import load
from runlane.tools.registry import Registry


class KnownTools:
    """Those of the modules in `RUNLANE_TOOLS`, and of `runlane.toml`."""

    def __init__(self) -> None:
        """Import nothing yet."""
        self._lock = asyncio.Lock()
        self._registry: Registry | None = None

    async def registry(self, settings: Settings) -> Registry:
        """Return them.

        Raises:
            InvalidTool: they can't be loaded.
        """
        async with self._lock:
            if self._registry is None:
                # Somebody's own modules, which may take their time.
                self._registry = await asyncio.to_thread(load, settings)
            return self._registry


def _of(request: Request) -> KnownTools:
    tools: KnownTools = request.app.state.tools
    return tools


Known = Annotated[KnownTools, Depends(_of)]
"""A route's parameter."""
