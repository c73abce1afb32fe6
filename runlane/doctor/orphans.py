"""Upstream runs that live on although their run was ended in Temporal."""

from collections.abc import AsyncIterator

from temporalio.client import Client
from temporalio.service import RPCError

from runlane import orphans
from runlane.doctor.finding import Finding, Fix, problem
from runlane.errors import InvalidRequest
from runlane.moments import format_moment
from runlane.rpc import said
from runlane.settings import Settings
from runlane.upstream import find_upstream
from runsapi import Assistants, Run, RunsAPIError

_NAME = "orphans"
LOOKED_AT = 200
"""Runs ended in Temporal that are looked at, each by a question to the upstream."""


async def check_orphans(client: Client, settings: Settings) -> AsyncIterator[Finding]:
    """Look upstream for what is left of the runs that were ended in Temporal."""
    try:
        upstream = await find_upstream(client, settings)
    except InvalidRequest:
        yield Finding(
            _NAME, "note", "not checked: RUNLANE_UPSTREAM_URL is not set here; it is asked for them"
        )
        return
    async with upstream:
        seen, found = 0, False
        try:
            async for abandoned in orphans.ended(client, limit=LOOKED_AT):
                seen += 1
                async for finding in _left(client, settings, upstream, abandoned):
                    found = True
                    yield finding
        except RPCError as error:
            yield Finding(_NAME, "note", f"not checked: {said(error, client).message}")
            return
        except RunsAPIError as error:
            text = f"can't be asked for: {error}"
            yield problem(_NAME, text, "See the finding about the upstream.")
            return
    if not found:
        ended = f"{seen} run was" if seen == 1 else f"{seen or 'no'} runs were"
        yield Finding(_NAME, "ok", f"none; {ended} ended in Temporal")


async def _left(
    client: Client, settings: Settings, upstream: Assistants, abandoned: orphans.Abandoned
) -> AsyncIterator[Finding]:
    at = format_moment(abandoned.closed_at)
    what = f"{abandoned.run_id} was {abandoned.how} in Temporal at {at}"
    lived_on = abandoned.upstream
    if lived_on is not None and lived_on.url != upstream.url:
        yield Finding(
            _NAME,
            "note",
            f"{what}; it lived on {lived_on.url}, and this is set up for {upstream.url}",
            f"Call this with RUNLANE_UPSTREAM_URL={lived_on.url}; nothing is touched until then.",
        )
        return
    for run in await orphans.alive(upstream, abandoned):
        yield Finding(
            _NAME,
            "problem",
            f"{what}, and its upstream run {run.id} on thread {abandoned.thread_id} is "
            f"{run.status}",
            "Cancel it: runlane doctor --fix",
            _cancelling(client, settings, abandoned, run),
        )


def _cancelling(client: Client, settings: Settings, abandoned: orphans.Abandoned, run: Run) -> Fix:
    async def apply() -> str:
        async with await find_upstream(client, settings) as upstream:
            return await orphans.cancel(client, upstream, abandoned, run)

    return Fix(f"cancel upstream run {run.id} of {abandoned.run_id}", apply)
