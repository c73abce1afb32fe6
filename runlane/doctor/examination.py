"""All checks, in the order in which what they find is to be mended."""

from collections.abc import AsyncIterator

from runlane import temporal
from runlane.doctor.finding import Finding, problem
from runlane.doctor.installation import check_temporal, versions
from runlane.doctor.ledger import check_ledger
from runlane.doctor.orphans import check_orphans
from runlane.doctor.runs import check_runs
from runlane.doctor.upstream import check_upstream
from runlane.errors import NamespaceMissing, TemporalUnreachable
from runlane.settings import Settings, SettingsError


async def examine(settings: Settings) -> list[Finding]:
    """Check everything that can be checked from here; nothing is changed or created."""
    return [finding async for finding in _findings(settings)]


async def _findings(settings: Settings) -> AsyncIterator[Finding]:
    yield versions()
    try:
        client = await temporal.connect(settings)
    except NamespaceMissing as error:
        yield Finding("temporal", "ok", "answers")
        yield problem("namespace", error.message, "")
        client = None
    except (TemporalUnreachable, SettingsError) as error:
        yield problem("temporal", str(error), "")
        client = None
    if client is not None:
        async for finding in check_temporal(client, settings):
            yield finding
        async for finding in check_runs(client):
            yield finding
    else:
        yield Finding("workers", "note", "not checked: Temporal comes first")
    for finding in await check_ledger(client, settings):
        yield finding
    async for finding in check_upstream(client, settings):
        yield finding
    if client is not None:
        async for finding in check_orphans(client, settings):
            yield finding
