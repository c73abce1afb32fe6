"""Runs that can't go on: blocked ones, and those whose workflow tasks fail."""

from collections.abc import AsyncIterator

from temporalio.client import Client
from temporalio.service import RPCError

from runlane import blocked, stuck
from runlane.doctor.finding import Finding, problem
from runlane.rpc import said
from workflows.contract import BlockedKind

_NAMED = 10
"""Stuck runs that are told one by one."""


async def check_runs(client: Client) -> AsyncIterator[Finding]:
    """Look for runs for which something is to be mended."""
    try:
        async for finding in _blocked(client):
            yield finding
        async for finding in _stuck(client):
            yield finding
    except RPCError as error:
        yield Finding("runs", "note", f"not checked: {said(error, client).message}")


async def _blocked(client: Client) -> AsyncIterator[Finding]:
    name, found = "blocked runs", False
    for kind in BlockedKind:
        count = await blocked.count(client, kind)
        if count:
            found = True
            yield problem(name, f"{count} by {kind}", blocked.REMEDIES[kind])
    if not found:
        yield Finding(name, "ok", "none")


async def _stuck(client: Client) -> AsyncIterator[Finding]:
    name = "workflow tasks"
    found = await stuck.find(client)
    for each in found[:_NAMED]:
        yield problem(name, f"{each.run_id} fails ({each.cause}): {each.message}", each.remedy)
    if len(found) > _NAMED:
        rest = f"{len(found) - _NAMED} more runs fail"
        yield problem(name, rest, "Mend those above; then call this again.")
    if not found:
        yield Finding(name, "ok", "none fails")
