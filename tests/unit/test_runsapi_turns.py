"""Who may send when: limits of one connection over all that use it."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

import runsapi.turns
from runsapi import (
    APIConnectionError,
    APIStatusError,
    Assistants,
    HeldBackError,
    InvalidParameter,
    Turns,
)
from tests.wire import RUN

LIMITED = {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}


class Upstream:
    """Answers when it is let; notes what came, in which order and how much at once."""

    def __init__(self) -> None:
        self.came: list[str] = []
        self.times: list[float] = []
        self.under_way = 0
        self.most = 0
        self.seconds = 0.0
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.instead: Callable[[str], httpx.Response | None] = lambda _: None

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        name = f"{request.method} {request.url.path.split('/')[-1]}"
        self.came.append(name)
        self.times.append(time.monotonic())
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.go_on.wait()
            await asyncio.sleep(self.seconds)
        finally:
            self.under_way -= 1
        return self.instead(name) or httpx.Response(200, json=RUN)

    def client(self, **options: Any) -> Assistants:
        http = httpx.AsyncClient(transport=httpx.MockTransport(self))
        return Assistants("http://upstream/v1", http_client=http, **options)

    async def busy(self, count: int) -> None:
        """Wait until so many requests are under way."""
        async with asyncio.timeout(10):
            while self.under_way < count:
                await asyncio.sleep(0.001)


@pytest.fixture
async def upstream() -> Upstream:
    return Upstream()


def poll(client: Assistants, run_id: str = "poll") -> "asyncio.Task[Any]":
    return asyncio.create_task(client.runs.retrieve(run_id, thread_id="t", background=True))


def effect(client: Assistants, **options: Any) -> "asyncio.Task[Any]":
    return asyncio.create_task(client.runs.cancel("r", thread_id="t", **options))


async def told(client: Assistants, count: int) -> None:
    """Wait until so many requests wait for their turn."""
    async with asyncio.timeout(10):
        while client.turns.waiting < count:
            await asyncio.sleep(0)


async def test_never_more_at_once(upstream: Upstream) -> None:
    """The cap holds for all requests together, whatever they ask for."""
    client = upstream.client(max_concurrency=3)
    upstream.seconds = 0.01

    await asyncio.gather(*(poll(client) for _ in range(10)), *(effect(client) for _ in range(10)))

    assert upstream.most == 3
    assert len(upstream.came) == 20
    assert (client.turns.waiting, client.turns.under_way) == (0, 0)


async def test_polls_leave_room_for_an_effect(upstream: Upstream) -> None:
    """However many polls hang, an effect goes at once: a quarter of the places isn't theirs."""
    client = upstream.client(max_concurrency=4)
    upstream.go_on.clear()
    polls = [poll(client) for _ in range(500)]
    await upstream.busy(3)
    await told(client, 497)

    cancel = effect(client)
    await upstream.busy(4)

    assert upstream.came == ["GET poll"] * 3 + ["POST cancel"]
    upstream.go_on.set()
    await asyncio.gather(cancel, *polls)


async def test_effects_go_first_and_polls_don_t_stand_still(upstream: Upstream) -> None:
    """Of all that wait the effects go first, though every eighth turn is a poll's."""
    client = upstream.client(max_concurrency=1)
    upstream.go_on.clear()
    first = effect(client)
    await upstream.busy(1)
    polls = [poll(client) for _ in range(5)]
    await told(client, 5)
    effects = [effect(client) for _ in range(16)]
    await told(client, 21)

    upstream.go_on.set()
    await asyncio.gather(first, *polls, *effects)

    assert upstream.came[1:8] == ["POST cancel"] * 7
    assert upstream.came[8] == "GET poll"
    assert upstream.came[9:17] == ["POST cancel"] * 8


async def test_no_more_a_second(upstream: Upstream) -> None:
    """The rate holds over any second, and what waits goes as soon as it may."""
    client = upstream.client(rps=50)

    await asyncio.gather(*(poll(client) for _ in range(26)))

    # 25 gaps of 20 ms, less the 50 ms that may be caught up.
    assert upstream.times[-1] - upstream.times[0] >= 0.44


async def test_an_effect_waits_for_one_gap_and_not_for_the_polls(upstream: Upstream) -> None:
    """With 500 polls before it, it has the next turn that comes."""
    client = upstream.client(rps=5)
    polls = [poll(client) for _ in range(500)]
    await told(client, 495)

    before = len(upstream.came)
    await effect(client)

    assert upstream.came[before:].index("POST cancel") <= 1
    for task in polls:
        task.cancel()
    await asyncio.gather(*polls, return_exceptions=True)
    assert (client.turns.waiting, client.turns.under_way) == (0, 0)


@pytest.mark.parametrize("headers", [{"retry-after": "0.5"}, {"retry-after-ms": "500"}])
async def test_one_429_lets_all_wait(upstream: Upstream, headers: dict[str, str]) -> None:
    """Whoever sends after it waits as long as the upstream asked the one to."""
    client = upstream.client()
    limits = [httpx.Response(429, headers=headers, json=LIMITED)]
    upstream.instead = lambda _: limits.pop() if limits else None
    with pytest.raises(APIStatusError):
        await poll(client)
    said_at = time.monotonic()

    await asyncio.gather(effect(client), poll(client))

    assert upstream.times[1] - said_at >= 0.49
    assert upstream.came[1] == "POST cancel"


async def test_a_429_without_a_time(
    upstream: Upstream, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The pause doubles with each, once for all that were sent before it, and shrinks again."""
    monkeypatch.setattr(runsapi.turns, "_FIRST_PAUSE", 0.05)
    client = upstream.client()
    upstream.go_on.clear()
    upstream.instead = lambda _: httpx.Response(429, json=LIMITED)
    tasks = [poll(client) for _ in range(20)]
    await upstream.busy(20)
    upstream.go_on.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    for _ in range(2):
        await asyncio.gather(poll(client), return_exceptions=True)
    upstream.instead = lambda _: None
    began = time.monotonic()
    await poll(client)
    assert upstream.times[-1] - began >= 0.15
    upstream.instead = lambda _: httpx.Response(429, json=LIMITED)
    for _ in range(2):
        await asyncio.gather(poll(client), return_exceptions=True)

    pauses = [vars(record)["seconds"] for record in caplog.records]
    assert pauses == [0.05, 0.1, 0.2, 0.2, 0.4]


async def test_what_another_process_was_told_lets_all_wait(upstream: Upstream) -> None:
    """As long as the longest time that was told; then requests go again."""
    client = upstream.client()
    began = time.monotonic()
    client.turns.hold(0.4)
    client.turns.hold(0.1)
    held = client.turns.held
    await asyncio.gather(poll(client), effect(client))

    assert 0.3 < held <= 0.4
    assert min(upstream.times) - began >= 0.39
    assert 0.0 == client.turns.held
    await client.aclose()


async def test_a_used_up_quota_is_no_rate_limit(upstream: Upstream) -> None:
    """It needs somebody to pay, and other requests may still be answered."""
    client = upstream.client()
    quota = {"error": {"message": "pay", "code": "insufficient_quota"}}
    refusals = [httpx.Response(429, headers={"retry-after": "60"}, json=quota)]
    upstream.instead = lambda _: refusals.pop() if refusals else None
    with pytest.raises(APIStatusError):
        await poll(client)

    async with asyncio.timeout(10):
        await effect(client)


async def test_after_a_pause_requests_come_slowly_at_first(upstream: Upstream) -> None:
    """All that waited, at once, would bring the next 429."""
    client = upstream.client()
    limits = [httpx.Response(429, headers={"retry-after": "0.2"}, json=LIMITED)]
    upstream.instead = lambda _: limits.pop() if limits else None
    await asyncio.gather(poll(client), return_exceptions=True)

    await asyncio.gather(*(poll(client) for _ in range(12)))

    # Ten a second at first, twice as many after a second.
    assert upstream.times[-1] - upstream.times[1] >= 0.5


async def test_a_pause_longer_than_one_waits_is_said_at_once(upstream: Upstream) -> None:
    """Nobody's slot is held for it: the error says how long, and that nothing was sent."""
    client = upstream.client()
    limits = [httpx.Response(429, headers={"retry-after": "7200"}, json=LIMITED)]
    upstream.instead = lambda _: limits.pop() if limits else None
    await asyncio.gather(poll(client), return_exceptions=True)

    with pytest.raises(HeldBackError, match="left alone") as caught:
        await effect(client)

    assert not caught.value.sent
    assert 3_500 < (caught.value.retry_after or 0) <= 3_600
    assert len(upstream.came) == 1


async def test_a_turn_that_does_not_come_in_time(upstream: Upstream) -> None:
    """Who gives up waiting says so, has sent nothing, and leaves no place taken."""
    turns = Turns(max_concurrency=1, longest_wait=0.1)
    async with turns.turn(background=False):
        with pytest.raises(HeldBackError) as caught:
            async with turns.turn(background=True):
                pytest.fail("two at once")

    assert not caught.value.sent
    assert caught.value.retry_after is None
    async with turns.turn(background=True):
        assert (turns.waiting, turns.under_way) == (0, 1)


async def test_what_waits_and_is_cancelled_was_not_sent(upstream: Upstream) -> None:
    """`on_send` is called for what leaves, and a cancelled place goes to the next."""
    client = upstream.client(max_concurrency=1)
    sent: list[str] = []
    upstream.go_on.clear()
    first = effect(client, on_send=lambda: sent.append("first"))
    await upstream.busy(1)
    given_up = effect(client, on_send=lambda: sent.append("given up"))
    last = effect(client, on_send=lambda: sent.append("last"))
    await told(client, 2)

    given_up.cancel()
    await asyncio.wait([given_up])
    upstream.go_on.set()
    await asyncio.gather(first, last)

    assert sent == ["first", "last"]
    assert len(upstream.came) == 2


async def test_a_turn_given_up_in_the_moment_it_comes_goes_to_the_next() -> None:
    """Cancelled between the grant and its use, it must not be lost for ever."""
    turns = Turns(max_concurrency=1)
    async with asyncio.timeout(10):
        async with turns.turn(background=False):
            waiting = asyncio.create_task(anext_turn(turns))
            while not turns.waiting:
                await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        await anext_turn(turns)
    assert waiting.cancelled()


async def anext_turn(turns: Turns) -> None:
    async with turns.turn(background=False):
        pass


async def test_waiting_is_not_counted_as_the_upstreams_time(upstream: Upstream) -> None:
    """A request that waited longer than the timeout is sent and answered all the same."""
    client = upstream.client(max_concurrency=1, timeout=1.5)
    upstream.seconds = 0.5

    await asyncio.gather(*(effect(client) for _ in range(4)))


async def test_a_late_answer_was_sent(upstream: Upstream) -> None:
    """The counterpart: once it has left, nobody knows what became of it."""
    client = upstream.client(timeout=0.1)
    upstream.seconds = 5

    with pytest.raises(APIConnectionError) as caught:
        await effect(client)

    assert caught.value.sent


@pytest.mark.parametrize("limits", [{"max_concurrency": 0}, {"rps": 0}, {"rps": float("nan")}])
def test_a_limit_that_is_none(limits: dict[str, Any]) -> None:
    """A limit of nothing would let nothing through."""
    with pytest.raises(InvalidParameter, match=next(iter(limits))):
        Turns(**limits)


async def test_who_has_waited_for_its_turn_may_still_say_no(upstream: Upstream) -> None:
    """It is asked when the turn has come, not before; nothing is sent then, and others go on."""
    upstream.go_on.clear()
    client = upstream.client(max_concurrency=1)
    asked: list[int] = []

    async def refuse() -> None:
        asked.append(len(upstream.came))
        raise PermissionError

    first = effect(client)
    await upstream.busy(1)
    refused, third = effect(client, before_send=refuse), effect(client)
    await told(client, 2)
    assert [] == asked
    upstream.go_on.set()

    with pytest.raises(PermissionError):
        await refused
    await asyncio.gather(first, third)

    assert [1] == asked
    assert 2 == len(upstream.came)
