"""Finding the upstream run that an earlier create of ours brought about, by its stamp."""

import asyncio
import contextlib
import re
import time
from collections.abc import Mapping
from datetime import timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from temporalio import activity
from temporalio.exceptions import ApplicationError

from activities import failures
from activities.contract import ATTEMPT_STAMP, RUN_ID_STAMP, CreateInput, Upstream
from runsapi import APIStatusError, CursorPage, Run, Runs, RunsAPIError, active_run_id

_CLOCK_SLACK = 120.0
"""Seconds by which the upstream's clock and Temporal's may differ when a stamped run's age is
compared with ours."""
_RUN_ID = re.compile(r"run_[A-Za-z0-9_-]{1,60}")
"""What is repeated of somebody else's stamp: nothing else could be the id of a run of Runlane's."""
_MAX_PAGES = 50
"""Of a hundred runs each: a server that pages for ever must not hold a create for ever."""
_PROMPT = 10.0
"""Seconds within which a run's first create is made."""
_LISTS_NOTHING = (400, 404, 405, 422, 501)
_SETTLE_EVERY = 1.0
_BUSY_LONGEST = 30.0


REACHED = "upstream"
"""In a create's heartbeats: the service that an earlier attempt may have reached."""


def upstream_reached(progress: Mapping[str, Any]) -> Upstream | None:
    """Return the service on which an earlier attempt may have created the run."""
    reached = progress.get(REACHED)
    return None if reached is None else Upstream.model_validate(reached)


def may_repeat(input: CreateInput) -> bool:
    """Tell whether an earlier attempt may have been accepted, one before a Reset included."""
    info = activity.info()
    return info.attempt > 1 or input.execution not in ("", info.workflow_run_id)


def may_be_forgotten(input: CreateInput) -> bool:
    """Tell whether Temporal, set back to a copy of its database, may have forgotten this create.

    What it does again it does late: between the copy and its return more time has passed than a
    run's first create ever waits for a worker that has a slot.
    """
    info = activity.info()
    late = input.age + (info.started_time - info.scheduled_time).total_seconds()
    return input.attempt > 1 or input.older_by > 0 or late > _PROMPT


async def settle(runs: Runs, input: CreateInput) -> Run | None:
    """Look for the stamp until it is there or no request of ours can still be on its way."""
    give_up = time.monotonic() + input.settle_for
    while True:
        found = await find(runs, input)
        if found is not None:
            return found
        if time.monotonic() >= give_up:
            return None
        await asyncio.sleep(min(_SETTLE_EVERY, input.settle_for))


async def find(runs: Runs, input: CreateInput, *, as_precaution: bool = False) -> Run | None:
    """Find the upstream run with our stamp among the thread's runs, back to our own start.

    As a precaution, nothing is found either where the upstream doesn't list a thread's runs: the
    create that follows tells whether it was the thread that is wrong.
    """
    try:
        response = await runs.with_response.list(input.thread_id, limit=100, order="desc")
        oldest = _oldest(input, response.headers)
        page: CursorPage[Run] = response.data
        for _ in range(_MAX_PAGES):
            for run in page.data:
                if _is_ours(run, input, response.headers):
                    return run
            if not page.has_next_page() or only_older_follow(page.data, oldest):
                return None
            page = await page.get_next_page()
    except RunsAPIError as error:
        status = error.status_code if isinstance(error, APIStatusError) else None
        if status == 404 and input.find_only:
            # No such thread, so no run of ours on it.
            return None
        if as_precaution and status in _LISTS_NOTHING:
            return None
        failures.raise_for_upstream(error, creating=_is_first(input))
    return None


async def find_after_refusal(runs: Runs, input: CreateInput, error: RunsAPIError) -> Run:
    """Find the upstream run because of which a create was refused, if it is ours.

    Raises:
        ApplicationError: It is somebody else's, or the refusal has another reason.
    """
    holder = active_run_id(error)
    if holder is None:
        failures.raise_for_upstream(error, creating=_is_first(input))
    whose = "which is not ours"
    # The run that holds the thread may be the one that a lost answer of ours created.
    with contextlib.suppress(RunsAPIError):
        response = await runs.with_response.retrieve(holder, thread_id=input.thread_id)
        run: Run = response.data
        if _is_ours(run, input, response.headers):
            return run
        other = (run.metadata or {}).get(RUN_ID_STAMP)
        if other is not None and other != input.run_id and _RUN_ID.fullmatch(other):
            whose = f"which belongs to {other}; that has to end first"
    found = await find(runs, input)
    if found is not None:
        return found
    attempt = activity.info().attempt
    raise ApplicationError(
        f"Thread {input.thread_id} is taken by run {holder}, {whose}",
        holder,
        type=failures.THREAD_BUSY,
        next_retry_delay=timedelta(seconds=min(1.3**attempt, _BUSY_LONGEST)),
    ) from None


def _is_first(input: CreateInput) -> bool:
    """Tell whether nothing would be lost if this create failed for good.

    A later attempt has answers to keep, and nothing to find has nothing to refuse.
    """
    return input.attempt == 1 and not input.find_only


def _is_ours(run: Run, input: CreateInput, headers: Mapping[str, str]) -> bool:
    if not _stamped(run, input) or is_older(run, _oldest(input, headers)):
        return False
    # Older than our run, yet by its key: Temporal may have been set back to a copy from before
    # it, or somebody else uses the same key for something else on the same thread.
    ours = not is_older(run, _oldest(input.model_copy(update={"older_by": 0.0}), headers))
    return ours or run.assistant_id == input.params.get("assistant_id")


def _stamped(run: Run, input: CreateInput) -> bool:
    stamps = run.metadata or {}
    return stamps.get(RUN_ID_STAMP) == input.run_id and stamps.get(ATTEMPT_STAMP) == str(
        input.attempt
    )


def is_older(run: Run, oldest: float) -> bool:
    """Tell whether a run was created before that time, in unix seconds by the upstream's clock."""
    # 0 is what is read where the upstream tells no time, or none that can be read.
    return 0 < run.created_at < oldest


def only_older_follow(runs: list[Run], oldest: float) -> bool:
    """Tell whether no page after this one can hold a run that isn't older."""
    # Not every upstream heeds the order that is asked for.
    newest_first = bool(runs) and runs[0].created_at >= runs[-1].created_at
    return newest_first and is_older(runs[-1], oldest)


def _oldest(input: CreateInput, headers: Mapping[str, str]) -> float:
    """Return when our run began, by the upstream's clock, with the clocks' slack."""
    info = activity.info()
    # The age is that of the first try; by now the upstream may have been away for hours.
    retrying = info.current_attempt_scheduled_time - info.scheduled_time
    age = input.age + retrying.total_seconds() + input.older_by
    return _upstream_now(headers) - age - _CLOCK_SLACK


def _upstream_now(headers: Mapping[str, str]) -> float:
    """Return the upstream's clock in unix seconds, or Temporal's where it doesn't tell.

    Never this machine's: a clock set wrong would make of our own run one that is too old.
    """
    try:
        return parsedate_to_datetime(headers["date"]).timestamp()
    except (KeyError, ValueError):
        return activity.info().started_time.timestamp()
