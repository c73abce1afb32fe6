"""A run's steps, read from the upstream runs that made them."""

from collections.abc import AsyncIterator, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from temporalio.client import Client

from runlane import reading
from runlane.errors import InvalidRequest, StepNotFound, UpstreamUnreachable
from runlane.rpc import explained
from runlane.settings import Settings
from runlane.upstream import find_upstream
from runsapi import APIConnectionError, APIStatusError, Assistants, RunsAPIError, RunStep
from runsapi.limits import MAX_PAGE
from runsapi.paths import is_segment
from workflows.contract import RunView

_Order = Literal["asc", "desc"]


@dataclass(frozen=True)
class StepPage:
    """One page of steps; `async for` goes on through all later ones."""

    data: list[RunStep]
    has_more: bool
    _later: Sequence[RunStep]

    @property
    def first_id(self) -> str | None:
        """Id of the page's first step."""
        return self.data[0].id if self.data else None

    @property
    def last_id(self) -> str | None:
        """Id of the page's last step."""
        return self.data[-1].id if self.data else None

    async def __aiter__(self) -> AsyncIterator[RunStep]:
        """Yield this page's steps, and all after them."""
        for step in (*self.data, *self._later):
            yield step


class StepList:
    """Steps that were asked for: `await` it for one page, or iterate over all."""

    def __init__(self, steps: "Steps", run_id: str, query: dict[str, Any]) -> None:
        """Fetch nothing yet."""
        self._steps = steps
        self._run_id = run_id
        self._query = query

    def __await__(self) -> Generator[Any, None, StepPage]:
        """Fetch the first page."""
        return self._steps._page(self._run_id, **self._query).__await__()

    async def __aiter__(self) -> AsyncIterator[RunStep]:
        """Yield every step."""
        async for step in await self:
            yield step


class Steps:
    """Steps by the protocol's method names.

    They stand with the upstream, so this process must reach it: by `RUNLANE_UPSTREAM_URL` and its
    key, or next to `runlane up --simulate` without anything. A run that several upstream runs
    worked on has the steps of all of them, under our run's id.
    """

    def __init__(self, client: Client, settings: Settings) -> None:
        """Share the connection of `Runlane`, which makes this."""
        self._client = client
        self._settings = settings

    def list(
        self,
        run_id: str,
        *,
        thread_id: str | None = None,
        limit: int = 20,
        after: str | None = None,
        before: str | None = None,
        order: _Order = "desc",
        view: RunView | None = None,
    ) -> StepList:
        """List a run's steps: `await` it for a page, or iterate over all.

        Args:
            run_id: ours.
            thread_id: where it must be.
            limit: of a page.
            after: a step's id: those that follow it.
            before: a step's id: those before it.
            order: by creation.
            view: the run, where that is known already.

        Raises:
            InvalidRequest: a parameter is out of its range, or no upstream is known here.
            RunNotFound: when fetched, there is no such run.
            UpstreamUnreachable: when fetched, the upstream doesn't answer.
        """
        if not 1 <= limit <= MAX_PAGE:
            text = f"limit must be between 1 and {MAX_PAGE}, got {limit}."
            raise InvalidRequest(text, param="limit")
        query = {"thread_id": thread_id, "limit": limit, "after": after, "before": before}
        return StepList(self, run_id, {**query, "order": order, "view": view})

    async def retrieve(
        self,
        step_id: str,
        *,
        run_id: str,
        thread_id: str | None = None,
        view: RunView | None = None,
    ) -> RunStep:
        """Return one step of a run.

        Args:
            step_id: which.
            run_id: ours.
            thread_id: where it must be.
            view: the run, where that is known already.

        Raises:
            StepNotFound: none of its upstream runs has it.
            InvalidRequest: no upstream is known here.
            RunNotFound: there is no such run.
            UpstreamUnreachable: the upstream doesn't answer.
        """
        view = view or await self._view(run_id, thread_id)
        # No upstream has made what isn't one segment of a path, and none is asked for it.
        attempts = upstream_runs(view) if is_segment(step_id) else []
        async with await find_upstream(self._client, self._settings) as upstream:
            for upstream_run_id in attempts:
                try:
                    step = await upstream.runs.steps.retrieve(
                        step_id, thread_id=view.run.thread_id, run_id=upstream_run_id
                    )
                except APIStatusError as error:
                    if error.status_code != 404:
                        raise _unreachable(error, upstream) from error
                except RunsAPIError as error:
                    raise _unreachable(error, upstream) from error
                else:
                    return step.model_copy(update={"run_id": run_id})
        raise StepNotFound(f"Run {run_id} has no step {step_id}.", param="step_id")

    async def _page(
        self,
        run_id: str,
        *,
        thread_id: str | None,
        limit: int,
        after: str | None,
        before: str | None,
        order: _Order,
        view: RunView | None,
    ) -> StepPage:
        view = view or await self._view(run_id, thread_id)
        # Attempts follow each other, so their steps do, whatever the upstream's clock says.
        steps: list[RunStep] = []
        async with await find_upstream(self._client, self._settings) as upstream:
            for upstream_run_id in upstream_runs(view):
                steps.extend(await _steps_of(upstream, view.run.thread_id, upstream_run_id, run_id))
        if order == "desc":
            steps.reverse()
        begin = 0 if after is None else _index(steps, after) + 1
        end = len(steps) if before is None else _index(steps, before)
        steps = steps[begin:end]
        if before is not None and after is None:
            return StepPage(steps[-limit:], len(steps) > limit, ())
        return StepPage(steps[:limit], len(steps) > limit, steps[limit:])

    async def _view(self, run_id: str, thread_id: str | None) -> RunView:
        with explained(self._client):
            return await reading.read(self._client, run_id, thread_id=thread_id)


async def _steps_of(
    upstream: Assistants, thread_id: str, upstream_run_id: str, run_id: str
) -> list[RunStep]:
    pages = upstream.runs.steps.list(
        upstream_run_id, thread_id=thread_id, order="asc", limit=MAX_PAGE
    )
    try:
        return [step.model_copy(update={"run_id": run_id}) async for step in pages]
    except APIStatusError as error:
        # An upstream may forget a run before we do.
        if error.status_code == 404:
            return []
        raise _unreachable(error, upstream) from error
    except RunsAPIError as error:
        raise _unreachable(error, upstream) from error


def upstream_runs(view: RunView) -> list[str]:
    """Return the upstream runs that have worked on a run, the oldest first, as far as is known."""
    found = [attempt.upstream_run_id for attempt in view.runlane.attempts]
    if not found and view.runlane.upstream_run_id is not None:
        found = [view.runlane.upstream_run_id]
    return found


def _index(steps: Sequence[RunStep], step_id: str) -> int:
    for index, step in enumerate(steps):
        if step.id == step_id:
            return index
    raise StepNotFound(f"The run has no step {step_id}.", param="after")


def _unreachable(error: RunsAPIError, upstream: Assistants) -> UpstreamUnreachable:
    if isinstance(error, APIConnectionError):
        text = f"The upstream {upstream.url} doesn't answer: {error}."
    else:
        text = f"The upstream {upstream.url} refuses to show the steps: {error}."
    return UpstreamUnreachable(f"{text} Check RUNLANE_UPSTREAM_URL and its key.")
