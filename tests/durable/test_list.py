"""Lists out of Temporal's Visibility: order, pages, filters, and what they cost."""

import asyncio
import secrets
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from temporalio.client import Client
from temporalio.common import SearchAttributePair, TypedSearchAttributes

from runlane import Runlane, search_attributes
from runlane.errors import RunNotFound
from runlane.listing import ListQuery, RunPage, fetch_page
from runlane.settings import EncryptionKey, Settings
from runlane.temporal import connect
from tests.lab import eventually
from workflows.contract import PENDING_MEMO, REQUEST_MEMO, WORKFLOW, PendingCall, RequestMemo
from workflows.shown import created_attribute

KEY = bytes(range(32))


async def _start(
    client: Client,
    thread_id: str,
    run_id: str,
    created_at: float,
    *,
    status: str = "queued",
    pending: Sequence[PendingCall] = (),
) -> str:
    """Start a run that no worker will ever drive."""
    memo = RequestMemo(digest="sha256:0", created_at=created_at, metadata={"n": run_id})
    await client.start_workflow(
        WORKFLOW,
        id=run_id,
        task_queue=f"nobody-{thread_id[-6:]}",
        memo={REQUEST_MEMO: memo, PENDING_MEMO: list(pending)},
        search_attributes=TypedSearchAttributes(
            [
                SearchAttributePair(search_attributes.STATUS, status),
                SearchAttributePair(search_attributes.THREAD, thread_id),
                SearchAttributePair(search_attributes.ASSISTANT, "asst_1"),
                SearchAttributePair(search_attributes.CREATED, created_attribute(created_at)),
            ]
        ),
    )
    return run_id


async def _runs(client: Client, thread_id: str, times: Sequence[float]) -> list[str]:
    """Start a run for each time and return their ids, the newest first, ties by id."""
    prefix = f"run_{secrets.token_hex(4)}"
    numbered = [(at, f"{prefix}_{number:04d}") for number, at in enumerate(times)]
    for begin in range(0, len(numbered), 50):
        some = numbered[begin : begin + 50]
        await asyncio.gather(*(_start(client, thread_id, name, at) for at, name in some))
    listed = Runlane(client, Settings())

    async def count() -> int:
        query = f"{search_attributes.THREAD.name} = '{thread_id}'"
        return (await listed.temporal.count_workflows(query)).count

    await eventually(count, lambda found: found == len(times), within=timedelta(seconds=20))
    return [name for _, name in sorted(numbered, reverse=True)]


def _thread() -> str:
    return f"thread_{secrets.token_hex(6)}"


async def _pages(client: Client, **query: Any) -> list[list[str]]:
    """Return the ids of page after page."""
    page = await fetch_page(client, ListQuery(**query))
    pages = [[run.id for run in page.data]]
    while page.has_next_page():
        page = await page.get_next_page()
        pages.append([run.id for run in page.data])
    return pages


@pytest.mark.parametrize("spread", [0.0, 0.0004, 0.001, 3600.0])
async def test_pages_lose_and_repeat_nothing(client: Client, spread: float) -> None:
    """Whether runs were created at once, in the same millisecond, or over days."""
    thread_id, now = _thread(), round(time.time(), 3)
    ids = await _runs(client, thread_id, [round(now - n * spread, 3) for n in range(23)])

    down = await _pages(client, thread_id=thread_id, limit=5)
    up = await _pages(client, thread_id=thread_id, limit=5, order="asc")

    assert ids == [name for page in down for name in page]
    assert ids[::-1] == [name for page in up for name in page]
    assert [5, 5, 5, 5, 3] == [len(page) for page in down]


async def test_before_is_the_page_that_precedes(client: Client) -> None:
    """The runs nearest to the cursor, in the list's own order; `after` and `before` bound."""
    thread_id, now = _thread(), time.time()
    ids = await _runs(client, thread_id, [now - n for n in range(12)])

    async def page(**query: Any) -> tuple[list[str], bool]:
        found = await fetch_page(client, ListQuery(thread_id=thread_id, **query))
        return [run.id for run in found.data], found.has_more

    assert (ids[3:6], True) == await page(before=ids[6], limit=3)
    assert (ids[:2], False) == await page(before=ids[2], limit=3)
    assert (ids[3:7], False) == await page(after=ids[2], before=ids[7], limit=10)
    assert (ids[11:8:-1], True) == await page(order="asc", limit=3)
    assert (ids[:], False) == await page(limit=12)


async def test_runs_that_end_stay_where_they_are(client: Client) -> None:
    """Temporal orders by the time of closing; a list by creation doesn't move."""
    thread_id, now = _thread(), time.time()
    ids = await _runs(client, thread_id, [now - n for n in range(10)])

    first = await fetch_page(client, ListQuery(thread_id=thread_id, limit=4))
    for name in (ids[1], ids[5], ids[9]):
        await client.get_workflow_handle(name).terminate()
    rest = await first.get_next_page()
    last = await rest.get_next_page()

    assert ids == [run.id for page in (first, rest, last) for run in page.data]


@pytest.mark.slow
async def test_a_page_costs_about_a_page(client: Client) -> None:
    """Ten of five hundred runs are found by counting; most rows are never fetched."""
    thread_id, now = _thread(), time.time()
    # A burst, then minutes of runs a second apart.
    times = [now - n * 0.001 for n in range(300)] + [now - 10 - n for n in range(200)]
    ids = await _runs(client, thread_id, times)
    counting = _CountingClient(client)

    for cursor in (None, ids[150], ids[290], ids[400]):
        counting.rows = counting.counts = 0
        query = ListQuery(thread_id=thread_id, limit=10, after=cursor)
        page = await fetch_page(counting, query)  # type: ignore[arg-type]

        begin = 0 if cursor is None else ids.index(cursor) + 1
        assert ids[begin : begin + 10] == [run.id for run in page.data]
        assert counting.rows <= 200
        assert counting.counts <= 40


class _CountingClient:
    """Passes everything on, and counts what lists ask of Visibility."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.rows = 0
        self.counts = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def count_workflows(self, query: str) -> Any:
        self.counts += 1
        return await self._client.count_workflows(query)

    async def list_workflows(self, query: str, **options: Any) -> Any:
        async for row in self._client.list_workflows(query, **options):
            self.rows += 1
            yield row


@pytest.mark.parametrize("odd", ["it's", "a' OR '1'='1", "50% off; *", "grün 😀"])
async def test_odd_thread_ids_find_their_own_runs_only(client: Client, odd: str) -> None:
    """A quote in an id is part of the id."""
    thread_id = f"{odd}-{secrets.token_hex(4)}"
    run_id = await _start(client, thread_id, f"run_{secrets.token_hex(6)}", time.time())

    async def listed() -> list[str]:
        page = await fetch_page(client, ListQuery(thread_id=thread_id))
        return [run.id for run in page.data]

    assert [run_id] == await eventually(listed, bool, within=timedelta(seconds=10))


async def test_a_listed_run_holds_what_temporal_knows(client: Client) -> None:
    """Waiting calls with shortened arguments, metadata and thread, and no worker asked."""
    thread_id = _thread()
    call = PendingCall(
        tool_call_id="call_1", name="lookup", arguments='{"a": 1}', arguments_digest="sha256:0"
    )
    run_id = f"run_{secrets.token_hex(6)}"
    await _start(client, thread_id, run_id, time.time(), status="requires_action", pending=[call])
    runs = Runlane(client, Settings()).runs

    async def listed() -> list[Any]:
        return list((await runs.list(thread_id, status="requires_action")).views)

    (view,) = await eventually(listed, bool, within=timedelta(seconds=10))

    assert (run_id, thread_id, {"n": run_id}) == (
        view.run.id,
        view.run.thread_id,
        view.run.metadata,
    )
    assert ["call_1"] == [open_call.id for open_call in view.run.tool_calls]
    assert view.runlane.known_at is not None


async def test_what_temporal_ended_is_listed_as_failed(client: Client) -> None:
    """A terminated run kept the status it had; a list by status doesn't believe it."""
    thread_id = _thread()
    (run_id,) = await _runs(client, thread_id, [time.time()])
    await client.get_workflow_handle(run_id).terminate()
    runs = Runlane(client, Settings()).runs

    async def with_status(status: str) -> list[str]:
        return [run.id async for run in runs.list(thread_id, status=status)]

    assert [run_id] == await eventually(
        lambda: with_status("failed"), bool, within=timedelta(seconds=10)
    )
    assert [] == await with_status("queued")
    (run,) = (await runs.list(thread_id)).data
    assert "failed" == run.status


async def test_a_cursor_that_is_no_run_is_told(client: Client) -> None:
    """A page after nothing would be a guess."""
    with pytest.raises(RunNotFound, match="after") as error:
        await Runlane(client, Settings()).runs.list(after="run_none")

    assert "after" == error.value.param


async def test_a_cursor_that_no_run_can_have_is_told_at_once(client: Client) -> None:
    """Visibility breaks on a NUL, which Temporal's client takes for an outage and asks again."""
    began_at = time.monotonic()
    with pytest.raises(RunNotFound, match="after"):
        await Runlane(client, Settings()).runs.list(after="run_\0")

    assert 5 > time.monotonic() - began_at


async def test_iterating_goes_through_all_pages(client: Client) -> None:
    """`async for` over a list reads on where a page ends."""
    thread_id, now = _thread(), time.time()
    ids = await _runs(client, thread_id, [now - n for n in range(7)])
    runs = Runlane(client, Settings()).runs

    assert ids == [run.id async for run in runs.list(thread_id, limit=3)]


async def test_a_run_under_another_key_hides_no_other(client: Client, data_dir: Path) -> None:
    """It is listed with what is in the clear, and with the key that is missing."""
    thread_id, now = _thread(), time.time()
    (ours,) = await _runs(client, thread_id, [now])
    stranger = await connect(
        Settings(data_dir=data_dir / "elsewhere", encryption_keys=(EncryptionKey("odd", KEY),)),
        environ={"TEMPORAL_ADDRESS": client.service_client.config.target_host},
    )
    call = PendingCall(tool_call_id="call_1", name="ask", arguments="{}", arguments_digest="-")
    theirs = f"run_{secrets.token_hex(8)}"
    await _start(stranger, thread_id, theirs, now - 9, status="requires_action", pending=[call])
    runs = Runlane(client, Settings()).runs

    async def page() -> RunPage:
        return await runs.list(thread_id)

    listed = await eventually(page, lambda page: len(page.data) == 2)
    known, unknown = listed.views

    assert [ours, theirs] == [run.id for run in listed.data]
    assert known.run.metadata == {"n": ours}
    assert known.runlane.unreadable is None
    assert "requires_action" == unknown.run.status
    assert thread_id == unknown.run.thread_id
    assert int(now - 9) == unknown.run.created_at
    assert {} == unknown.run.metadata
    assert unknown.runlane.unreadable is not None
    assert "odd" == unknown.runlane.unreadable.key_id
    assert "'odd'" in unknown.runlane.unreadable.message
