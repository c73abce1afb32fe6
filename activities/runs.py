"""Side effects on the upstream's runs: create, retrieve, submit_tool_outputs, cancel, update.

The upstream has no idempotency key. So every request that changes something can be lost after it
was accepted, and each activity here first finds out what an earlier attempt did: a create by the
stamp in the run's metadata, a submit by the run's status and steps.

Activities are given durations, never instants: the clock that counts is the workflow's, and in
tests that skip time it is far from ours.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Mapping
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Literal, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict
from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities import failures
from activities.heartbeat import heartbeating, see_through
from activities.polling import poll_interval
from runsapi import (
    INTERMEDIATE,
    TERMINAL,
    APIStatusError,
    Assistants,
    CursorPage,
    Run,
    RunCreateParams,
    RunsAPIError,
    RunStatus,
    ToolOutput,
    active_run_id,
    cancel_refused_status,
    poll_after_ms,
    submit_refused_status,
)

RUN_ID_STAMP = "runlane_run_id"
ATTEMPT_STAMP = "runlane_attempt"
STAMPS = (RUN_ID_STAMP, ATTEMPT_STAMP)

_CLOCK_SLACK = 120.0
"""Seconds by which the upstream's clock and Temporal's may differ when a stamped run's age is
compared with ours."""
_MAX_PAGES = 50
"""Of a hundred runs each: a server that pages for ever must not hold a create for ever."""
_SETTLE_EVERY = 1.0
_BUSY_LONGEST = 30.0

_T = TypeVar("_T")


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Upstream(_Model):
    """The service on which a run lives, as recorded in the run."""

    name: str
    url: str


class Target(_Model):
    """An upstream run."""

    upstream: Upstream
    thread_id: str
    run_id: str


class CreateInput(_Model):
    """Input of `runs.create`."""

    run_id: str
    """Ours."""
    attempt: int
    thread_id: str
    params: dict[str, Any]
    upstream: Upstream | None = None
    """Where the run lives already; none before its first create."""
    age: float
    """Seconds since our run began: an upstream run older than that is not ours."""
    look_first: bool = False
    """Look for the stamp before the first request too: this execution may be a Reset."""
    execution: str = ""
    """Which execution of the workflow asked for this. In another one the activity was begun before
    a Reset, which counts its attempts anew."""
    find_only: bool = False
    """Only look, don't create: the run is being stopped."""
    settle_for: float = 0.0
    """With `find_only`: seconds to keep looking, for a request that may still be on its way."""


class Created(_Model):
    """Result of `runs.create`; `run` is none when `find_only` found nothing."""

    run: Run | None
    upstream: Upstream
    poll_after_ms: int | None = None
    simulated: bool = False
    adopted: bool = False


class RetrieveInput(_Model):
    """Input of `runs.retrieve`."""

    target: Target
    attach_for: float = 0.0
    """Seconds to stay and poll; 0 looks once, at once."""
    leg_age: float = 0.0
    poll_interval_ms: int | None = None
    poll_after_ms: int | None = None
    """From the upstream's latest answer."""
    floor: float = 0.5
    ceiling: float = 900.0
    timer_from: float = 10.0
    """An interval this long or longer is not waited out here."""
    ending: bool = False
    """The run is being stopped."""
    beyond_action: bool = False
    """Go on through an action that outputs can't answer: the workflow has seen it already."""
    answered: list[str] = []
    """Calls whose outputs are in: to see them asked for still is no news."""


class Observed(_Model):
    """The upstream run as an activity saw it last."""

    run: Run
    poll_after_ms: int | None = None
    polls: int = 0


class SubmitInput(_Model):
    """Input of `runs.submit_tool_outputs`."""

    target: Target
    tool_outputs: list[ToolOutput]
    look_first: bool = False


class Submitted(_Model):
    """Result of `runs.submit_tool_outputs`."""

    run: Run
    outcome: Literal["submitted", "overtaken", "expired"]
    poll_after_ms: int | None = None


class CancelInput(_Model):
    """Input of `runs.cancel`."""

    target: Target


class UpdateInput(_Model):
    """Input of `runs.update`; `metadata` holds the stamps too."""

    target: Target
    metadata: dict[str, str]


def answerable(run: Run) -> bool:
    """Tell whether tool outputs can answer what the run requires.

    An MCP approval, a hosted function or an empty list can't be answered so: an output for them
    would be refused, and an empty submit never made.
    """
    action = run.required_action
    return (
        action is not None
        and action.type == "submit_tool_outputs"
        and bool(run.tool_calls)
        and all(call.type == "function" and call.function is not None for call in run.tool_calls)
    )


class RunActivities:
    """The activities of one worker's upstream.

    Args:
        upstream: The connection; its client makes no retries of its own, for Temporal does.
    """

    def __init__(self, upstream: Assistants) -> None:
        self._runs = upstream.runs
        self._upstream = Upstream(name=upstream.name, url=upstream.url)

    @activity.defn(name="runs.create")
    async def create(self, input: CreateInput) -> Created:
        """Create the upstream run, or adopt the one that an earlier attempt created."""
        self._check_upstream(input.upstream)
        async with heartbeating():
            if input.find_only:
                return await self._settle(input)
            if input.look_first or _may_repeat(input):
                found = await self._find(input)
                if found is not None:
                    return found
            try:
                response = await see_through(
                    self._runs.with_response.create(
                        input.thread_id, RunCreateParams.model_validate(input.params)
                    )
                )
            except RunsAPIError as error:
                return await self._after_refused_create(input, error)
            return Created(
                run=response.data,
                upstream=self._upstream,
                poll_after_ms=poll_after_ms(response.headers),
                simulated="x-runlane-simulator" in response.headers,
            )

    @activity.defn(name="runs.retrieve")
    async def retrieve(self, input: RetrieveInput) -> Observed:
        """Look at the upstream run, once or until it wants something or `attach_for` has passed.

        Heartbeats carry the leg's age, so that a poll handed over to another worker goes on where
        it was, and the status, so that callers can show it without an event in the history.
        """
        self._check_upstream(input.target.upstream)
        earlier = _progress()
        age = max(input.leg_age, float(earlier.get("age", 0.0)))
        progress: dict[str, Any] = {"age": age, "polls": int(earlier.get("polls", 0))}
        if "status" in earlier:
            progress["status"] = earlier["status"]
        began = time.monotonic() - (age - input.leg_age)
        after_ms = input.poll_after_ms
        async with heartbeating(progress):
            while True:
                wait = poll_interval(
                    progress["age"],
                    poll_interval_ms=input.poll_interval_ms,
                    poll_after_ms=after_ms,
                    floor=input.floor,
                    ceiling=input.ceiling,
                    ending=input.ending,
                )
                if input.attach_for > 0:
                    await _or_hand_over(asyncio.sleep(wait), progress)
                observed = await _or_hand_over(self._observe(input.target), progress)
                after_ms = observed.poll_after_ms
                attached = time.monotonic() - began
                progress["age"] = input.leg_age + attached
                progress["polls"] += 1
                if progress.get("status") != observed.run.status:
                    progress["status"] = str(observed.run.status)
                    activity.heartbeat(progress)
                following = poll_interval(
                    progress["age"],
                    poll_interval_ms=input.poll_interval_ms,
                    poll_after_ms=after_ms,
                    floor=input.floor,
                    ceiling=input.ceiling,
                    ending=input.ending,
                )
                if (
                    not _goes_on(observed.run, input)
                    or attached + following > input.attach_for
                    or following >= input.timer_from
                ):
                    return observed.model_copy(update={"polls": progress["polls"]})

    @activity.defn(name="runs.submit_tool_outputs")
    async def submit_tool_outputs(self, input: SubmitInput) -> Submitted:
        """Submit a round's outputs; if they may be in already, read what became of them."""
        self._check_upstream(input.target.upstream)
        async with heartbeating():
            if input.look_first or activity.info().attempt > 1:
                settled = await self._settled_submit(input)
                if settled is not None:
                    return settled
            try:
                response = await see_through(
                    self._runs.with_response.submit_tool_outputs(
                        input.target.run_id,
                        thread_id=input.target.thread_id,
                        tool_outputs=input.tool_outputs,
                    )
                )
            except APIStatusError as error:
                if error.status_code in (400, 409, 500):
                    # 500 too: a clone answers so to call ids it doesn't know.
                    settled = await self._settled_submit(input)
                    if settled is not None:
                        return settled
                    if submit_refused_status(error) is not None:
                        raise failures.unavailable(
                            "The upstream refused the outputs, yet says that it awaits them"
                        ) from None
                failures.raise_for_upstream(error, creating=False)
            except RunsAPIError as error:
                failures.raise_for_upstream(error, creating=False)
            return Submitted(
                run=response.data,
                outcome="submitted",
                poll_after_ms=poll_after_ms(response.headers),
            )

    @activity.defn(name="runs.cancel")
    async def cancel(self, input: CancelInput) -> Observed:
        """Ask the upstream to cancel; a refusal is an answer, and the run tells which."""
        self._check_upstream(input.target.upstream)
        async with heartbeating():
            try:
                response = await see_through(
                    self._runs.with_response.cancel(
                        input.target.run_id, thread_id=input.target.thread_id
                    )
                )
            except APIStatusError as error:
                if cancel_refused_status(error) is None and error.status_code not in (400, 409):
                    failures.raise_for_upstream(error, creating=False)
                return await self._observe(input.target)
            except RunsAPIError as error:
                failures.raise_for_upstream(error, creating=False)
            return Observed(run=response.data, poll_after_ms=poll_after_ms(response.headers))

    @activity.defn(name="runs.update")
    async def update(self, input: UpdateInput) -> Observed:
        """Replace the upstream run's metadata; twice is as good as once."""
        self._check_upstream(input.target.upstream)
        async with heartbeating():
            try:
                response = await see_through(
                    self._runs.with_response.update(
                        input.target.run_id,
                        thread_id=input.target.thread_id,
                        metadata=input.metadata,
                    )
                )
            except RunsAPIError as error:
                failures.raise_for_upstream(error, creating=False)
            return Observed(run=response.data, poll_after_ms=poll_after_ms(response.headers))

    def _check_upstream(self, recorded: Upstream | None) -> None:
        """Refuse to look for a run on a service on which it doesn't live."""
        if recorded is not None and recorded.url != self._upstream.url:
            raise failures.blocked(
                "other_upstream",
                f"The run lives on {recorded.url}, and this worker is set up for "
                f"{self._upstream.url}. Start a worker with the run's RUNLANE_UPSTREAM_URL.",
            )

    async def _observe(self, target: Target) -> Observed:
        try:
            response = await self._runs.with_response.retrieve(
                target.run_id, thread_id=target.thread_id
            )
        except RunsAPIError as error:
            failures.raise_for_upstream(error, creating=False, reading=True)
        return Observed(run=response.data, poll_after_ms=poll_after_ms(response.headers))

    async def _settle(self, input: CreateInput) -> Created:
        """Look for the stamp until it is there or no request of ours can still be on its way."""
        give_up = time.monotonic() + input.settle_for
        while True:
            found = await self._find(input)
            if found is not None:
                return found
            if time.monotonic() >= give_up:
                return Created(run=None, upstream=self._upstream)
            await asyncio.sleep(min(_SETTLE_EVERY, input.settle_for))

    async def _find(self, input: CreateInput) -> Created | None:
        """Find the upstream run with our stamp among the thread's runs, back to our own start."""
        try:
            response = await self._runs.with_response.list(input.thread_id, limit=100, order="desc")
            oldest = _oldest(input, response.headers)
            page: CursorPage[Run] = response.data
            for _ in range(_MAX_PAGES):
                for run in page.data:
                    if run.created_at < oldest:
                        return None
                    if _stamped(run, input):
                        return self._adopt(run)
                if not page.has_next_page():
                    return None
                page = await page.get_next_page()
        except RunsAPIError as error:
            if isinstance(error, APIStatusError) and error.status_code == 404 and input.find_only:
                # No such thread, so no run of ours on it.
                return None
            failures.raise_for_upstream(error, creating=_is_first(input))
        return None

    def _adopt(self, run: Run) -> Created:
        return Created(run=run, upstream=self._upstream, adopted=True)

    async def _after_refused_create(self, input: CreateInput, error: RunsAPIError) -> Created:
        holder = active_run_id(error)
        if holder is None:
            failures.raise_for_upstream(error, creating=_is_first(input))
        # The run that holds the thread may be the one that a lost answer of ours created.
        with contextlib.suppress(RunsAPIError):
            response = await self._runs.with_response.retrieve(holder, thread_id=input.thread_id)
            run: Run = response.data
            if _stamped(run, input) and run.created_at >= _oldest(input, response.headers):
                return self._adopt(run)
        found = await self._find(input)
        if found is not None:
            return found
        attempt = activity.info().attempt
        raise ApplicationError(
            f"Thread {input.thread_id} is taken by run {holder}, which is not ours",
            holder,
            type=failures.THREAD_BUSY,
            next_retry_delay=timedelta(seconds=min(1.3**attempt, _BUSY_LONGEST)),
        )

    async def _settled_submit(self, input: SubmitInput) -> Submitted | None:
        """Return what became of the outputs, or none if the upstream still waits for them."""
        observed = await self._observe(input.target)
        run = observed.run
        if run.status == RunStatus.EXPIRED and not await self._holds_outputs(input):
            return Submitted(run=run, outcome="expired")
        ours = {output.tool_call_id for output in input.tool_outputs}
        if run.status == RunStatus.REQUIRES_ACTION and ours == {c.id for c in run.tool_calls}:
            return None
        outcome: Literal["submitted", "overtaken"] = (
            "submitted" if await self._holds_outputs(input) else "overtaken"
        )
        return Submitted(run=run, outcome=outcome, poll_after_ms=observed.poll_after_ms)

    async def _holds_outputs(self, input: SubmitInput) -> bool:
        """Tell whether the run's steps hold exactly our outputs."""
        wanted = {output.tool_call_id: output.output for output in input.tool_outputs}
        try:
            async for step in self._runs.steps.list(
                input.target.run_id, thread_id=input.target.thread_id, limit=100, order="desc"
            ):
                for call_id, output in _step_outputs(step):
                    if wanted.get(call_id, _ABSENT) == output:
                        del wanted[call_id]
                if not wanted:
                    return True
        except RunsAPIError as error:
            failures.raise_for_upstream(error, creating=False, reading=True)
        return False


_ABSENT = object()


def _step_outputs(step: Any) -> list[tuple[str, str | None]]:
    details = step.step_details
    if getattr(details, "type", None) != "tool_calls":
        return []
    return [
        (call.id, call.function.output)
        for call in details.tool_calls
        if getattr(call, "type", None) == "function"
    ]


def _may_repeat(input: CreateInput) -> bool:
    """Tell whether an earlier attempt may have been accepted, one before a Reset included."""
    info = activity.info()
    return info.attempt > 1 or input.execution not in ("", info.workflow_run_id)


def _is_first(input: CreateInput) -> bool:
    """Tell whether nothing would be lost if this create failed for good.

    A later attempt has answers to keep, and nothing to find has nothing to refuse.
    """
    return input.attempt == 1 and not input.find_only


def _stamped(run: Run, input: CreateInput) -> bool:
    stamps = run.metadata or {}
    return stamps.get(RUN_ID_STAMP) == input.run_id and stamps.get(ATTEMPT_STAMP) == str(
        input.attempt
    )


def _oldest(input: CreateInput, headers: Mapping[str, str]) -> float:
    """Return when our run began, by the upstream's clock, with the clocks' slack."""
    info = activity.info()
    # The age is that of the first try; by now the upstream may have been away for hours.
    retrying = info.current_attempt_scheduled_time - info.scheduled_time
    return _upstream_now(headers) - input.age - retrying.total_seconds() - _CLOCK_SLACK


def _goes_on(run: Run, input: RetrieveInput) -> bool:
    """Tell whether to keep polling: an unknown status is no end, only somebody's new word."""
    if run.status == RunStatus.REQUIRES_ACTION:
        if not answerable(run):
            return input.beyond_action
        return {call.id for call in run.tool_calls} <= set(input.answered)
    return run.status in INTERMEDIATE or run.status not in TERMINAL


def _progress() -> Mapping[str, Any]:
    details = activity.info().heartbeat_details
    return details[0] if details and isinstance(details[0], dict) else {}


async def _or_hand_over(part: Awaitable[_T], progress: Mapping[str, Any]) -> _T:
    """Await a part of a poll; when the worker shuts down, hand the poll over at once.

    A request is given up too: it only reads, and an upstream may be long in answering.
    """
    task = asyncio.ensure_future(part)
    shutdown = asyncio.ensure_future(activity.wait_for_worker_shutdown())
    try:
        await asyncio.wait({task, shutdown}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            # The last word reaches the next worker, or what was polled since the last is lost.
            activity.heartbeat(progress)
            hand_over()
        return await task
    finally:
        task.cancel()
        shutdown.cancel()
        await asyncio.gather(task, shutdown, return_exceptions=True)


def hand_over() -> NoReturn:
    """Raise the error that costs no event and is retried after a millisecond (0 is ignored)."""
    raise ApplicationError(
        "The worker is shutting down",
        type=failures.HANDOVER,
        next_retry_delay=timedelta(milliseconds=1),
    )


def _upstream_now(headers: Mapping[str, str]) -> float:
    """Return the upstream's clock in unix seconds, or ours where it doesn't tell."""
    try:
        return parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, ValueError):
        return time.time()
