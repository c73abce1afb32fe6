"""What may happen to a run, as scripts: hypothesis writes them, `tests.plays` has them played."""

from dataclasses import dataclass
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from worker import MAX_CACHED_WORKFLOWS

CALLS = (
    {"name": "look_up", "arguments": '{"order": 1, "part": 2}'},
    {"name": "look_up", "arguments": '{"part": 2, "order": 1}'},
    {"name": "look_up", "arguments": '{"order": 2}'},
    {"name": "refund", "arguments": '{"order": 1, "part": 2}'},
)
"""The first two are the same call, written otherwise."""

Rounds = tuple[tuple[int, ...], ...]
"""Indexes into `CALLS`: what is asked for, round by round."""


@dataclass(frozen=True)
class Deed:
    """One thing that happens to a run, from outside or upstream."""

    kind: str
    pick: int
    """Which of several: calls, faults, ends."""
    how: str
    """How answers are delivered."""


@dataclass(frozen=True)
class Script:
    """All that happens to one run."""

    rounds: Rounds
    reworded: Rounds | None
    """What the second upstream run asks for instead."""
    polls: int
    """How often a leg is looked at before it is over."""
    cache: int
    """How many runs the worker keeps; any number evicts, as many runs are at play."""
    create_lost: bool
    """Whether the first create is answered by nothing."""
    opening: Deed | None
    """Happens before the other deeds."""
    deeds: tuple[Deed, ...]
    ending: str


_rounds: st.SearchStrategy[Rounds] = st.lists(
    st.lists(st.sampled_from([0, 1, 0, 1, 2, 3]), min_size=1, max_size=3).map(tuple),
    min_size=1,
    max_size=3,
).map(tuple)
_deeds = st.builds(
    Deed,
    kind=st.sampled_from(
        ["answer"] * 4
        + ["all", "again", "expire", "hold"] * 2
        + [
            "early",
            "late",
            "unknown",
            "lose",
            "fail",
            "release",
            "nudge",
            "label",
            "overtake",
            "finish",
        ]
    ),
    pick=st.integers(0, 3),
    how=st.sampled_from(["update", "signal", "twice", "rivals", "mixed"]),
)
_scripts = st.builds(
    Script,
    rounds=_rounds,
    reworded=st.none() | _rounds,
    polls=st.integers(0, 2),
    cache=st.sampled_from([MAX_CACHED_WORKFLOWS] * 2 + [2, 0]),
    create_lost=st.booleans(),
    # What the de-duplication is there for must come often.
    opening=st.sampled_from([None, None, Deed("lose", 1, "update"), Deed("late", 0, "update")]),
    deeds=st.lists(_deeds, max_size=8).map(tuple),
    ending=st.sampled_from(["answered"] * 6 + ["cancelled", "cancelled by Temporal", "abandoned"]),
)


def write_scripts(number: int, examples: int) -> list[Script]:
    """Return the scripts that belong to a seed.

    They are written first and played afterwards, many at once; so nothing is shrunk, which would
    take minutes. What fails is played again by its seed.
    """
    written: list[Script] = []

    @seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        # Writing is all that hypothesis sees here, and it takes a second or two.
        suppress_health_check=list(HealthCheck),
    )
    @given(_scripts)
    def write(script: Script) -> None:
        written.append(script)

    write()
    return written


def asking(rounds: Rounds) -> list[dict[str, Any]]:
    return [{"calls": [CALLS[index] for index in calls]} for calls in rounds]
