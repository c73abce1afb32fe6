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
from collections.abc import Coroutine, Mapping
from typing import Any, Literal

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities import failures, stamps, stops
from activities.attached import earlier_progress, goes_on, or_hand_over, telling
from activities.contract import (
    CancelInput,
    Created,
    CreateInput,
    Observed,
    RetrieveInput,
    SubmitInput,
    Submitted,
    Target,
    UpdateInput,
    Upstream,
    asked_of,
)
from activities.heartbeat import POLL_BEAT, heartbeating, see_through, spent
from activities.polling import poll_interval
from activities.run_records import RunRecords
from activities.texts import Texts
from activities.upstream_runs import UpstreamRuns
from ledger import Ledger
from runsapi import (
    APIConnectionError,
    APIStatusError,
    Assistants,
    Run,
    RunCreateParams,
    RunsAPIError,
    RunStatus,
    cancel_refused_status,
    poll_after_ms,
    submit_refused_status,
)


class RunActivities:
    """The activities of one worker's upstream.

    Args:
        upstream: The connection; its client makes no retries of its own, for Temporal does.
        ledger: Where the audit trail and the runs stand.
    """

    def __init__(self, upstream: Assistants, ledger: Ledger) -> None:
        self._runs = upstream.runs
        self._texts = Texts()
        self._starting = UpstreamRuns(upstream.runs, self._texts)
        self._ledger = ledger
        self._records = RunRecords(ledger)
        self._upstream = Upstream(name=upstream.name, url=upstream.url)

    def close(self) -> None:
        """Read no stream any more; nothing is waited for."""
        self._texts.close()

    @activity.defn(name="runs.create")
    async def create(self, input: CreateInput) -> Created:
        """Create the upstream run, or adopt the one that an earlier attempt created."""
        earlier = earlier_progress()
        reached_before = stamps.upstream_reached(earlier)
        self._check_upstream(input.upstream or reached_before)
        progress = dict(earlier)
        async with heartbeating(progress):
            if input.find_only:
                settled = await stamps.settle(self._runs, input)
                if settled is not None:
                    # The run is being stopped, which no ledger may hold up.
                    with contextlib.suppress(ApplicationError):
                        await self._records.created(input, settled, self._upstream)
                return Created(run=settled, upstream=self._upstream, adopted=settled is not None)
            await self._may_act()
            await self._records.check_key(input)
            created = await self._create(input, earlier, progress)
            if created.run is not None:
                await self._told(self._records.created(input, created.run, self._upstream))
            return created

    async def _create(
        self, input: CreateInput, earlier: Mapping[str, Any], progress: dict[str, Any]
    ) -> Created:
        # An operator's reset of the activity counts its attempts anew.
        repeats = stamps.may_repeat(input) or stamps.upstream_reached(earlier) is not None
        suspected = input.look_first or repeats
        if suspected or stamps.may_be_forgotten(input):
            found = await stamps.find(self._runs, input, as_precaution=not suspected)
            if found is not None:
                return self._adopted(found)

        def reached() -> None:
            # Should this attempt be lost with its answer, the next must not create elsewhere.
            progress[stamps.REACHED] = self._upstream.model_dump()
            activity.heartbeat(progress)

        try:
            params = RunCreateParams.model_validate(input.params)
            response = await see_through(
                lambda leaving: self._starting.create(
                    input, params, before_send=self._may_act, on_send=leaving
                ),
                on_send=reached,
            )
        except RunsAPIError as error:
            if isinstance(error, APIConnectionError) and not error.sent:
                # Nothing arrived: a mistyped URL, once mended, must not bind the run.
                progress.clear()
                progress.update(earlier)
                activity.heartbeat(progress)
            return self._adopted(await stamps.find_after_refusal(self._runs, input, error))
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
        earlier = earlier_progress()
        age = max(input.leg_age, float(earlier.get("age", 0.0)))
        progress: dict[str, Any] = {"age": age, "polls": int(earlier.get("polls", 0))}
        if status := earlier.get("status", input.status):
            progress["status"] = status
        began = time.monotonic() - (age - input.leg_age)
        after_ms = input.poll_after_ms
        async with (
            heartbeating(progress, every=POLL_BEAT),
            telling(self._texts, input.target.run_id, progress),
        ):
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
                    await or_hand_over(asyncio.sleep(wait), progress)
                # Where the upstream's limits let requests wait, other runs' effects go first.
                looking = self._observe(input.target, background=not input.ending)
                observed = await or_hand_over(looking, progress)
                after_ms = observed.poll_after_ms
                attached = time.monotonic() - began
                progress["age"] = input.leg_age + attached
                progress["polls"] += 1
                following = poll_interval(
                    progress["age"],
                    poll_interval_ms=input.poll_interval_ms,
                    poll_after_ms=after_ms,
                    floor=input.floor,
                    ceiling=input.ceiling,
                    ending=input.ending,
                )
                if (
                    not goes_on(observed.run, input, progress["age"])
                    or attached + following > input.attach_for
                    or following >= input.timer_from
                ):
                    return observed.model_copy(update={"polls": progress["polls"]})
                if progress.get("status") != observed.run.status:
                    progress["status"] = str(observed.run.status)
                    activity.heartbeat(progress)

    @activity.defn(name="runs.submit_tool_outputs")
    async def submit_tool_outputs(self, input: SubmitInput) -> Submitted:
        """Submit a round's outputs; if they may be in already, read what became of them."""
        self._check_upstream(input.target.upstream)
        async with heartbeating():
            await self._may_act()
            submitted = await self._submit(input)
            await self._told(self._records.submitted(_ours(), input, submitted))
            return submitted

    async def _submit(self, input: SubmitInput) -> Submitted:
        if input.look_first or activity.info().attempt > 1:
            settled = await self._settled_submit(input)
            if settled is not None:
                return settled
        try:
            response = await see_through(
                lambda leaving: self._starting.submit(
                    input, before_send=self._may_act, on_send=leaving
                )
            )
        except APIStatusError as error:
            if error.status_code in (400, 409, 500, 504):
                # 500 too: a clone answers so to call ids it doesn't know. And 504: a gateway
                # says it of what the server behind it may well have taken.
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
            run=_asked_for(input.target, response.data),
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
                    lambda leaving: self._runs.with_response.cancel(
                        input.target.run_id, thread_id=input.target.thread_id, on_send=leaving
                    )
                )
            except APIStatusError as error:
                if cancel_refused_status(error) is None and error.status_code not in (400, 409):
                    failures.raise_for_upstream(error, creating=False)
                return await self._observe(input.target)
            except RunsAPIError as error:
                failures.raise_for_upstream(error, creating=False)
            return Observed(
                run=_asked_for(input.target, response.data),
                poll_after_ms=poll_after_ms(response.headers),
            )

    @activity.defn(name="runs.update")
    async def update(self, input: UpdateInput) -> Observed:
        """Replace the upstream run's metadata; twice is as good as once."""
        self._check_upstream(input.target.upstream)
        async with heartbeating():
            try:
                response = await see_through(
                    lambda leaving: self._runs.with_response.update(
                        input.target.run_id,
                        thread_id=input.target.thread_id,
                        metadata=input.metadata,
                        on_send=leaving,
                    )
                )
            except RunsAPIError as error:
                with failures.final_after(input.try_for, so_far=spent()):
                    failures.raise_for_upstream(error, creating=False)
            return Observed(run=response.data, poll_after_ms=poll_after_ms(response.headers))

    async def _told(self, write: Coroutine[Any, Any, None]) -> None:
        """Write to the ledger what was done upstream, although we are cancelled meanwhile.

        Where that fails, the next attempt finds out that it was done, and writes it.
        """
        task = asyncio.create_task(write)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            details = activity.cancellation_details()
            if details is None or details.worker_shutdown or not details.cancel_requested:
                task.cancel()
                raise
            await task

    async def _may_act(self) -> None:
        # Twice: before the upstream is asked anything, and when a request's turn has come, which
        # may take minutes.
        await stops.check(self._ledger, _ours())

    def _check_upstream(self, recorded: Upstream | None) -> None:
        """Refuse to look for a run on a service on which it doesn't live."""
        if recorded is not None and recorded.url != self._upstream.url:
            raise failures.blocked(
                "other_upstream",
                f"The run lives on {recorded.url}, and this worker is set up for "
                f"{self._upstream.url}. {failures.START_ITS_WORKER}",
                upstream=recorded,
            )

    def _adopted(self, run: Run) -> Created:
        return Created(run=run, upstream=self._upstream, adopted=True)

    async def _observe(self, target: Target, *, background: bool = False) -> Observed:
        try:
            response = await self._runs.with_response.retrieve(
                target.run_id, thread_id=target.thread_id, background=background
            )
        except RunsAPIError as error:
            failures.raise_for_upstream(error, creating=False, reading=True)
        return Observed(
            run=_asked_for(target, response.data), poll_after_ms=poll_after_ms(response.headers)
        )

    async def _settled_submit(self, input: SubmitInput) -> Submitted | None:
        """Return what became of the outputs, or none if the upstream still waits for them."""
        observed = await self._observe(input.target)
        run = observed.run
        if run.status == RunStatus.EXPIRED and not await self._holds_outputs(input):
            return Submitted(run=run, outcome="expired")
        ours = {output.tool_call_id for output in input.tool_outputs}
        asked = asked_of(run)
        # Another round may ask under the same ids.
        if ours == asked.keys() and asked == (input.asked or asked):
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


def _ours() -> str:
    """Return our run's id."""
    run_id = activity.info().workflow_id
    assert run_id is not None
    return run_id


def _asked_for(target: Target, run: Run) -> Run:
    """Return the run, if it is the one: what another one says must not end or answer ours."""
    if run.id != target.run_id:
        raise failures.unavailable(f"The upstream answered for {target.run_id} with another run")
    return run


def _step_outputs(step: Any) -> list[tuple[str, str | None]]:
    details = step.step_details
    if getattr(details, "type", None) != "tool_calls":
        return []
    return [
        (call.id, call.function.output)
        for call in details.tool_calls
        if getattr(call, "type", None) == "function"
    ]
