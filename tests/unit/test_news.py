"""What `up` says of the ledger in its terminal: what is new, once."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from ledger import Ledger
from ledger.approval import Approval, ApprovalKey
from ledger.stops import Scope, Stop
from runlane.news import News
from tests.ledgers import open_in

DIGEST = "sha256:" + "0" * 64


@pytest_asyncio.fixture
async def here(tmp_path: Path) -> AsyncIterator[Ledger]:
    """A ledger in SQLite."""
    async with await open_in(tmp_path) as ledger:
        yield ledger


def waiting(call_id: str, tool: str = "refund", *, since: datetime | None = None) -> Approval:
    """Return a call that waits for people."""
    return Approval(
        key=ApprovalKey(run_id="run_1", attempt=1, round=1, call_id=call_id),
        tool=tool,
        arguments_digest=DIGEST,
        since=since or datetime.now(UTC),
    )


async def test_a_call_that_waits_is_told_once_with_its_command(here: Ledger) -> None:
    """A new one by name; many at once by their number; none a second time."""
    said: list[str] = []
    news = News(here, said.append)
    await here.approvals.record("run_1", [waiting("call_1")])
    await news.look()
    await news.look()
    assert ["refund waits for a decision:  runlane approval show call_1"] == said

    await here.approvals.record("run_1", [waiting(f"call_{n}") for n in range(2, 7)])
    await news.look()
    await here.approvals.close("run_1", outcome="submitted")
    await news.look()
    assert ["5 more calls wait for people:  runlane approval list"] == said[1:]


@pytest.mark.parametrize(("count", "told"), [(1, "1 call waits"), (2, "2 calls wait")])
async def test_those_of_the_time_before_are_counted(here: Ledger, count: int, told: str) -> None:
    """`up` begins with how many wait, and doesn't take them for new."""
    old = datetime.now(UTC) - timedelta(days=1)
    calls = [waiting(f"call_{n}", since=old) for n in range(count)]
    await here.approvals.record("run_1", calls)
    said: list[str] = []
    news = News(here, said.append)

    await news.begin()
    await news.look()

    assert [f"{told} for people:  runlane approval list"] == said


async def test_a_name_can_not_repaint_the_terminal(here: Ledger) -> None:
    """An upstream makes up a call's id, and a person the reason of a stop."""
    said: list[str] = []
    await here.approvals.record("run_1", [waiting("call\x1b[2J")])
    await News(here, said.append).look()

    assert "\x1b" not in "".join(said)
    assert 1 == len(said)


async def test_stops_come_and_go(here: Ledger) -> None:
    """Who stopped what, why and since when; and that it goes on."""
    said: list[str] = []
    news = News(here, said.append)
    since = datetime(2026, 11, 23, 12, tzinfo=UTC)
    await here.stops.stop(
        Stop(scope=Scope.TOOL, target="refund", by="ann", reason="two at once", since=since)
    )
    await news.look()
    await news.look()
    await here.stops.resume(Scope.TOOL, "refund")
    await news.look()

    stopped, resumed = said
    assert stopped.startswith("Stopped: tool refund, by ann since 2026-11-2")
    assert stopped.endswith(": two at once")
    assert "Resumed: tool refund" == resumed
