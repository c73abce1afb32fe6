"""Schedules: runs, or batches, that Temporal starts by the clock.

A schedule is Temporal's own. Each start is a workflow whose one child is the run, or the batch; the
run's id, or the batch's name, follows from the schedule's name and the scheduled time.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from pydantic import BaseModel, ConfigDict
from temporalio.client import (
    Client,
    Schedule,
    ScheduleActionExecutionStartWorkflow,
    ScheduleActionResult,
    ScheduleActionStartWorkflow,
    ScheduleAlreadyRunningError,
    ScheduleDescription,
    ScheduleInfo,
    ScheduleListActionStartWorkflow,
    ScheduleListDescription,
    SchedulePolicy,
    ScheduleSpec,
    ScheduleState,
)
from temporalio.service import RPCError, RPCStatusCode

from ledger.batch_record import batch_id
from runlane import key_check
from runlane.errors import CannotDecrypt, InvalidRequest, NotFound, Refused
from runlane.rpc import explained, is_namespace_missing
from runlane.schedule_facts import Described, Known, Start, Triggered
from runlane.scheduling import MAX_CATCHUP, OVERLAPS, Timed, check_name, zone
from workflows.scheduled_contract import (
    ID_PREFIX,
    SCHEDULED_BATCH_WORKFLOW,
    SCHEDULED_WORKFLOW,
    ScheduledBatchInput,
    ScheduledInput,
    scheduled_batch_name,
    scheduled_run_id,
)

_INPUTS: Mapping[str, type[ScheduledInput | ScheduledBatchInput]] = {
    SCHEDULED_WORKFLOW: ScheduledInput,
    SCHEDULED_BATCH_WORKFLOW: ScheduledBatchInput,
}
_MEMO = "runlane"
_TIMEOUT = timedelta(seconds=15)
_SEEN_WITHIN = 10.0
_LOOK_SECONDS = 0.2


class ScheduleNotFound(NotFound):
    """There is no schedule of this name, or it isn't Runlane's."""

    code = "schedule_not_found"


class _Memo(BaseModel):
    """What stands beside a schedule: Temporal keeps no cron expression as it was typed."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    cron: list[str]
    timezone: str
    digest: str


class Schedules:
    """The schedules of one namespace."""

    def __init__(self, client: Client, task_queue: str) -> None:
        """Share a connection.

        Args:
            client: it must convert data as `runlane.temporal.data_converter` does.
            task_queue: whose workers start and drive the runs.
        """
        self._client = client
        self._task_queue = task_queue

    async def create(self, wanted: Timed, *, paused: bool = False) -> Described:
        """Make a schedule; the same again is the one that there is.

        Raises:
            InvalidRequest: something can't be used; nothing was made.
            Refused: the name belongs to another schedule.
            TemporalUnreachable: Temporal doesn't answer; the same call again does no harm.
            CannotDecrypt: the queue's runs are encrypted, and this client has no key.
        """
        request = wanted.request()
        memo = _Memo(cron=list(wanted.cron), timezone=wanted.timezone, digest=wanted.digest())
        await key_check.check_client(self._client, self._task_queue)
        schedule = Schedule(
            action=ScheduleActionStartWorkflow(
                wanted.workflow,
                request,
                id=ID_PREFIX + wanted.name,
                task_queue=self._task_queue,
            ),
            spec=ScheduleSpec(cron_expressions=list(wanted.cron), time_zone_name=wanted.timezone),
            policy=SchedulePolicy(
                overlap=OVERLAPS[wanted.overlap], catchup_window=wanted.catchup_window
            ),
            state=ScheduleState(paused=paused),
        )
        with explained(self._client):
            try:
                await self._client.create_schedule(
                    wanted.name, schedule, memo={_MEMO: memo}, rpc_timeout=_TIMEOUT
                )
            except ScheduleAlreadyRunningError:
                await self._compare(wanted.name, memo.digest)
            except RPCError as error:
                if error.status is not RPCStatusCode.INVALID_ARGUMENT:
                    raise
                text = f"Temporal refuses the schedule: {error.message}."
                raise InvalidRequest(text, param="--cron") from None
        return await self.find(wanted.name)

    async def same(self, wanted: Timed) -> Described | None:
        """Return the schedule that `create` would find; None: there is none of this name.

        Raises:
            InvalidRequest: something can't be used.
            Refused: the name belongs to another schedule.
        """
        digest = wanted.digest()
        with explained(self._client):
            try:
                await self._client.get_schedule_handle(wanted.name).describe(rpc_timeout=_TIMEOUT)
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND or is_namespace_missing(error):
                    raise
                return None
            await self._compare(wanted.name, digest)
        return await self.find(wanted.name)

    async def find(self, name: str) -> Described:
        """Return a schedule.

        Raises:
            ScheduleNotFound: there is none.
            CannotDecrypt: this client lacks the key with which it was made.
        """
        with explained(self._client):
            found, action = await self._described(name)
            memo = await found.memo_value(_MEMO, type_hint=_Memo)
            kind = _INPUTS[action.workflow]
            [request] = await self._client.data_converter.decode(action.args, [kind])
        policy, state, info = found.schedule.policy, found.schedule.state, found.info
        return Described(
            name=name,
            cron=tuple(memo.cron),
            timezone=memo.timezone,
            of_batches=action.workflow == SCHEDULED_BATCH_WORKFLOW,
            paused=state.paused,
            note=state.note,
            next=_in_zone(info.next_action_times, memo.timezone),
            recent=_starts(name, action.workflow, info.recent_actions, memo.timezone),
            overlap=next(word for word, each in OVERLAPS.items() if each == policy.overlap),
            # Temporal fills its default in.
            catchup_window=policy.catchup_window or MAX_CATCHUP,
            skipped=info.num_actions_skipped_overlap,
            missed=info.num_actions_missed_catchup_window,
            request=request,
        )

    async def list(self) -> AsyncIterator[Known]:
        """Yield the schedules of Runlane's in this namespace. A new one may come seconds late."""
        with explained(self._client):
            async for each in await self._client.list_schedules():
                action = None if each.schedule is None else each.schedule.action
                if (
                    isinstance(action, ScheduleListActionStartWorkflow)
                    and action.workflow in _INPUTS
                ):
                    yield await _listed(each, action.workflow)

    async def pause(self, name: str, reason: str) -> Described:
        """Let the clock start nothing; a trigger still does.

        Raises:
            ScheduleNotFound: there is none.
        """
        with explained(self._client):
            await self._described(name)
            handle = self._client.get_schedule_handle(name)
            await handle.pause(note=reason, rpc_timeout=_TIMEOUT)
        return await self.find(name)

    async def resume(self, name: str) -> Described:
        """Let the clock start again. What it missed meanwhile isn't made up for.

        Raises:
            ScheduleNotFound: there is none.
        """
        with explained(self._client):
            await self._described(name)
            handle = self._client.get_schedule_handle(name)
            await handle.unpause(note="", rpc_timeout=_TIMEOUT)
        return await self.find(name)

    async def trigger(self, name: str) -> Triggered:
        """Start a run, or a batch, now, as the schedule would: its overlap counts.

        Raises:
            ScheduleNotFound: there is none.
            TemporalUnreachable: nobody knows whether it was triggered; look before trying again.
        """
        with explained(self._client):
            found, action = await self._described(name)
            before = found.info
            handle = self._client.get_schedule_handle(name)
            await handle.trigger(rpc_timeout=_TIMEOUT)
            until = time.monotonic() + _SEEN_WITHIN
            while time.monotonic() < until:
                info = (await self._described(name))[0].info
                if new := _new(before, info):
                    [start] = _starts(name, action.workflow, new[:1], "UTC")
                    return Triggered(start=start, begun=await self._begun(start, until))
                if info.num_actions_skipped_overlap > before.num_actions_skipped_overlap:
                    return Triggered(skipped=True)
                await asyncio.sleep(_LOOK_SECONDS)
        return Triggered()

    async def delete(self, name: str) -> None:
        """Delete a schedule. Runs and batches that it has started go on.

        Raises:
            ScheduleNotFound: there is none.
        """
        with explained(self._client):
            await self._described(name)
            await self._client.get_schedule_handle(name).delete(rpc_timeout=_TIMEOUT)

    async def _described(
        self, name: str
    ) -> tuple[ScheduleDescription, ScheduleActionStartWorkflow]:
        """Return what Temporal says of a schedule of ours; of others' nothing is done."""
        check_name(name)
        try:
            found = await self._client.get_schedule_handle(name).describe(rpc_timeout=_TIMEOUT)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND or is_namespace_missing(error):
                raise
            raise _absent(name) from None
        action = found.schedule.action
        if isinstance(action, ScheduleActionStartWorkflow) and action.workflow in _INPUTS:
            return found, action
        raise _absent(name)

    async def _begun(self, start: Start, until: float) -> bool:
        its_id = start.run_id or batch_id("", start.batch or "")
        handle = self._client.get_workflow_handle(its_id)
        while True:
            try:
                await handle.describe(rpc_timeout=_TIMEOUT)
            except RPCError as error:
                if error.status is not RPCStatusCode.NOT_FOUND or is_namespace_missing(error):
                    raise
                if time.monotonic() > until:
                    return False
                await asyncio.sleep(_LOOK_SECONDS)
            else:
                return True

    async def _compare(self, name: str, digest: str) -> None:
        try:
            found, _ = await self._described(name)
            memo = await found.memo_value(_MEMO, type_hint=_Memo)
            same = memo.digest == digest
        except ScheduleNotFound:
            # Somebody else's, of the same name.
            same = False
        if not same:
            text = f"There is another schedule {name!r}. Delete it first, or take another name."
            raise Refused(text, param="NAME", code="schedule_exists")


async def _listed(found: ScheduleListDescription, workflow: str) -> Known:
    cron, timezone = tuple[str, ...](), "UTC"
    try:
        memo = await found.memo_value(_MEMO, type_hint=_Memo)
        cron, timezone = tuple(memo.cron), memo.timezone
    except CannotDecrypt:
        # One such schedule must not keep the list from being read.
        pass
    state = None if found.schedule is None else found.schedule.state
    info = found.info
    return Known(
        name=found.id,
        cron=cron,
        timezone=timezone,
        of_batches=workflow == SCHEDULED_BATCH_WORKFLOW,
        paused=state is not None and state.paused,
        note=None if state is None else state.note,
        next=() if info is None else _in_zone(info.next_action_times, timezone),
        recent=() if info is None else _starts(found.id, workflow, info.recent_actions, timezone),
    )


def _in_zone(times: Sequence[datetime], timezone: str) -> tuple[datetime, ...]:
    return tuple(each.astimezone(zone(timezone)) for each in times)


def _starts(
    name: str, workflow: str, actions: Sequence[ScheduleActionResult], timezone: str
) -> tuple[Start, ...]:
    return tuple(_start(name, workflow, each, timezone) for each in actions)


def _start(name: str, workflow: str, each: ScheduleActionResult, timezone: str) -> Start:
    assert isinstance(each.action, ScheduleActionExecutionStartWorkflow)
    at, its_id = each.scheduled_at.astimezone(zone(timezone)), each.action.workflow_id
    if workflow == SCHEDULED_BATCH_WORKFLOW:
        return Start(batch=scheduled_batch_name(its_id), scheduled_at=at)
    return Start(run_id=scheduled_run_id(name, its_id), scheduled_at=at)


def _new(before: ScheduleInfo, now: ScheduleInfo) -> list[ScheduleActionResult]:
    earliest = datetime.min.replace(tzinfo=UTC)
    last = max((each.started_at for each in before.recent_actions), default=earliest)
    return [each for each in now.recent_actions if each.started_at > last]


def _absent(name: str) -> ScheduleNotFound:
    return ScheduleNotFound(
        f"There is no schedule {name!r}. See  runlane schedule list", param="NAME"
    )
