"""A lane keeps to its share of its batch's requests and tokens a minute."""

import asyncio

from activities.paces import Pace


async def test_requests_come_at_the_lanes_share_of_the_rate() -> None:
    """2,400 a minute over two lanes: one every 50 ms, so eleven take half a second."""
    pace = Pace(rpm=2400, tpm=None, lanes=2)
    clock = asyncio.get_running_loop().time
    began = clock()
    await asyncio.gather(*(pace.turn() for _ in range(11)))
    assert 0.5 <= round(clock() - began, 2) < 1.5


async def test_tokens_hold_new_items_back_once_they_are_used_up() -> None:
    """They are counted when runs end; each lane has its share."""
    pace = Pace(rpm=None, tpm=1000, lanes=2)
    pace.use(499)
    before = pace.spent
    pace.use(1)
    assert (False, True) == (before, pace.spent)


async def test_without_limits_nothing_waits() -> None:
    """However much is asked for and used."""
    pace = Pace(rpm=None, tpm=None, lanes=1)
    pace.use(10**9)
    await asyncio.wait_for(asyncio.gather(*(pace.turn() for _ in range(1000))), 1.0)
    assert not pace.spent
