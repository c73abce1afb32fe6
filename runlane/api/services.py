"""What the API works with: Temporal, the ledger, the upstream, and who may."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request

from ledger import Ledger
from runlane import temporal
from runlane.api.access import Access, Principal
from runlane.api.begun import Begun
from runlane.api.readers import Readers
from runlane.api.translation import RunIds
from runlane.ledger_access import open_ledger
from runlane.orchestrator import Runlane
from runlane.settings import Settings
from runlane.upstream import find_upstream
from runsapi import Assistants


@dataclass(frozen=True, kw_only=True)
class Services:
    """Open for as long as the API serves."""

    runlane: Runlane
    ledger: Ledger
    upstream: Assistants
    access: Access
    begun: Begun = field(default_factory=Begun)
    readers: Readers = field(default_factory=Readers)
    run_ids: RunIds = field(default_factory=RunIds)


@asynccontextmanager
async def opened(settings: Settings, *, local: Principal | None = None) -> AsyncIterator[Services]:
    """Connect to everything.

    Args:
        settings: say where it is.
        local: whoever asks from this machine, while nobody has made a token.

    Raises:
        RunlaneError: something doesn't answer, or can't be used.
        SettingsError: a variable can't be used.
    """
    client = await temporal.connect(settings)
    async with (
        await open_ledger(settings, client) as ledger,
        await find_upstream(client, settings) as upstream,
    ):
        yield Services(
            runlane=Runlane(client, settings, ledger),
            ledger=ledger,
            upstream=upstream,
            access=Access(ledger, local=local, trusted_user_header=settings.trusted_user_header),
        )


# Not `def`: that would cost each request a thread.
async def _of(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


Given = Annotated[Services, Depends(_of)]
"""A route's parameter."""
