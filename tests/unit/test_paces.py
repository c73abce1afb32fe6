"""Lanes keep to their batch's requests and tokens a minute together, whoever of them has work."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest

from activities.paces import MINUTE, SLACK, Pace, Tokens
from ledger import Ledger
from tests.lines import BATCH

ON_ITS_WAY = 0.25
"""Seconds that the database's answer may take, by which a turn is told later than it is; the slack
has room for it. Two lanes with the same turns would be seconds off."""


def paced(ledger: Ledger, rpm: float | None) -> Pace:
    """Return the pace of one more lane."""
    return Pace(ledger.batch_paces, BATCH, rpm=rpm, held=lambda: 0.0)


async def turns(pace: Pace, count: int) -> list[float]:
    """Ask for so many at once."""
    return list(await asyncio.gather(*(pace.turn() for _ in range(count))))


async def test_no_two_lanes_have_the_same_turn(ledger: Ledger) -> None:
    """1,220 a minute are twenty a second: of three lanes that ask at once each has turns of its
    own, none comes sooner after any other than so many turns take, and all together come at nearly
    the rate.
    """
    rpm = 1220.0
    began = time.monotonic()
    of = await asyncio.gather(*(turns(paced(ledger, rpm), 20) for _ in range(3)))
    took = time.monotonic() - began
    interval = (MINUTE + SLACK) / rpm
    ordered = sorted(turn for each in of for turn in each)
    late = [turn - number * interval for number, turn in enumerate(ordered)]

    assert max(one - min(late[number:]) for number, one in enumerate(late)) < ON_ITS_WAY
    assert 60 == len(late)
    assert 59 / 20 <= round(took, 2) < 2 * 60 / 20


async def test_one_lane_alone_has_all_turns(ledger: Ledger) -> None:
    """Another one that has no work takes none from it."""
    paced(ledger, 1220.0)
    began = time.monotonic()
    await turns(paced(ledger, 1220.0), 41)
    assert 2.0 <= round(time.monotonic() - began, 2) < 3.0


async def test_a_lane_that_is_gone_takes_its_share_alone(ledger: Ledger) -> None:
    """Half a second's turns of the whole batch, and no more, are lost with it."""
    gone = paced(ledger, 1220.0)
    asking = asyncio.create_task(turns(gone, 1000))
    await asyncio.sleep(0.2)
    gone.end(RuntimeError("gone"))
    first = await paced(ledger, 1220.0).turn()
    with pytest.raises(RuntimeError, match="gone"):
        await asking
    assert first - time.monotonic() < 0.6


async def test_turns_under_a_hold_are_not_used(ledger: Ledger) -> None:
    """What the upstream was to get while it wants to be left alone doesn't come all at once."""
    until = time.monotonic() + 0.6
    pace = Pace(
        ledger.batch_paces, BATCH, rpm=1220.0, held=lambda: max(until - time.monotonic(), 0.0)
    )
    got = await turns(pace, 10)
    assert min(got) >= until
    assert max(got) - min(got) >= 9 * 0.05 - ON_ITS_WAY


async def test_a_clock_that_was_set_back_holds_nobody_up(ledger: Ledger) -> None:
    """Turns stand two minutes and two hundred gaps ahead at the most."""
    await ledger.batch_paces.take(BATCH, 1, interval=1.0, lead=1e6)
    [turn] = await ledger.batch_paces.take(BATCH, 1, interval=1.0)
    assert 320 >= turn - time.monotonic()


async def test_without_limits_nothing_waits_and_nobody_is_asked(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much is asked for: not one transaction."""
    monkeypatch.delattr(ledger.batch_paces, "_database")
    pace = paced(ledger, None)
    assert 1000 == len(await asyncio.wait_for(turns(pace, 1000), 1.0))
    assert pace.is_fresh(0.0)


async def test_tokens_of_the_last_minute_are_known_at_once() -> None:
    """By a lane that has just begun, too: what ended within the minute counts, and falls out of it
    again after a minute.
    """
    now = datetime.now(UTC)
    ended = [(now - timedelta(seconds=59.5), 100), (now - timedelta(seconds=10), 50)]
    tokens = Tokens(1000.0, 1150, ended)
    before = tokens.up_to
    tokens.look(1200)
    still = tokens.up_to
    await asyncio.sleep(0.6)
    after = tokens.up_to

    assert (2000.0, 2000.0, 2100.0) == (before, still, after)
