"""The baseline: the same lifecycle as a workflow written the plain way, as samples show it.

One activity creates, then a timer and an activity for each look, once a second, a signal with the
outputs, and an activity that submits them. It has no answer to anything that goes wrong.
"""

import asyncio
from datetime import timedelta

from pydantic import BaseModel
from temporalio import activity, workflow

with workflow.unsafe.imports_passed_through():
    from runsapi import TERMINAL, Assistants, Run, RunCreateParams, RunStatus, ToolOutput

POLL_SECONDS = 1
_TIMEOUT = timedelta(seconds=30)


class PlainRequest(BaseModel):
    """Which run to create."""

    thread_id: str
    params: RunCreateParams


class UpstreamRun(BaseModel):
    """Which run to look at."""

    thread_id: str
    run_id: str


class Outputs(BaseModel):
    """The answers of a round."""

    run: UpstreamRun | None = None
    tool_outputs: list[ToolOutput]


class PlainActivities:
    """The requests; temporalio's own retries take care of those that fail."""

    def __init__(self, upstream: Assistants) -> None:
        self._runs = upstream.runs

    @activity.defn
    async def create_run(self, request: PlainRequest) -> Run:
        """Create the run."""
        return await self._runs.create(request.thread_id, request.params)

    @activity.defn
    async def retrieve_run(self, run: UpstreamRun) -> Run:
        """Look at the run."""
        return await self._runs.retrieve(run.run_id, thread_id=run.thread_id)

    @activity.defn
    async def submit_outputs(self, outputs: Outputs) -> Run:
        """Submit the outputs."""
        assert outputs.run is not None
        return await self._runs.submit_tool_outputs(
            outputs.run.run_id,
            thread_id=outputs.run.thread_id,
            tool_outputs=outputs.tool_outputs,
        )


@workflow.defn
class PlainRun:
    """Drives one run to its end."""

    def __init__(self) -> None:
        self._outputs: Outputs | None = None

    @workflow.signal
    def submit(self, outputs: Outputs) -> None:
        """Take the answers."""
        self._outputs = outputs

    @workflow.run
    async def run(self, request: PlainRequest) -> Run:
        """Create, look once a second, submit when asked, until the end."""
        run = await workflow.execute_activity_method(
            PlainActivities.create_run, request, start_to_close_timeout=_TIMEOUT
        )
        upstream_run = UpstreamRun(thread_id=request.thread_id, run_id=run.id)
        while run.status not in TERMINAL:
            if run.status == RunStatus.REQUIRES_ACTION:
                await workflow.wait_condition(lambda: self._outputs is not None)
                assert self._outputs is not None
                outputs, self._outputs = self._outputs, None
                run = await workflow.execute_activity_method(
                    PlainActivities.submit_outputs,
                    Outputs(run=upstream_run, tool_outputs=outputs.tool_outputs),
                    start_to_close_timeout=_TIMEOUT,
                )
            else:
                await asyncio.sleep(POLL_SECONDS)
                run = await workflow.execute_activity_method(
                    PlainActivities.retrieve_run, upstream_run, start_to_close_timeout=_TIMEOUT
                )
        return run
