"""Reading a run's messages from a list: its pages, its order, and what can't stand in a line."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from activities import item_messages
from activities.item_messages import Ask, Query

RUN, OURS = "run_upstream", "run_OURS"


async def read(ask: Ask) -> Any:
    """Return what an outcome would have, as JSON says it; nothing is waited for."""

    async def nap(_: float) -> None:
        return None

    said = await item_messages.patiently(
        ask, upstream_run_id=RUN, run_id=OURS, nap=nap, is_away=lambda *_: False
    )
    return json.loads(said)


def pages(*messages: Sequence[dict[str, Any]]) -> tuple[Ask, list[dict[str, str]]]:
    """Return what asks for these pages, one after the other, and the queries it was asked."""
    asked: list[dict[str, str]] = []

    async def ask(query: Query) -> Any:
        asked.append(dict(query))
        data = list(messages[len(asked) - 1])
        return {"object": "list", "data": data, "has_more": len(asked) < len(messages)}

    return ask, asked


def message(number: int, run_id: str | None = RUN) -> dict[str, Any]:
    """Return a message as the protocol has it, as far as it matters here."""
    return {"id": f"msg_{number}", "object": "thread.message", "run_id": run_id}


async def test_all_pages_are_read_oldest_first() -> None:
    """Each page is asked for behind the last message of the one before."""
    ask, asked = pages([message(1), message(2)], [message(3)])
    said = await read(ask)

    assert ["msg_1", "msg_2", "msg_3"] == [each["id"] for each in said]
    assert {OURS} == {each["run_id"] for each in said}
    assert [None, "msg_2"] == [query.get("after") for query in asked]
    assert {(RUN, "asc", "100")} == {
        (query["run_id"], query["order"], query["limit"]) for query in asked
    }


async def test_a_list_of_the_whole_thread_gives_the_runs_own_messages() -> None:
    """Some upstreams don't know the filter by run: what others wrote stays out of the line."""
    ask, _ = pages([message(1, None), message(2, "run_other"), message(3)])

    assert ["msg_3"] == [each["id"] for each in await read(ask)]


async def test_a_list_without_end_is_given_up() -> None:
    """A page that repeats itself ends the list; one that always brings more is too long."""
    number = 0

    async def repeats(_: Query) -> Any:
        return {"data": [message(1)], "has_more": True}

    async def endless(_: Query) -> Any:
        nonlocal number
        number += 1
        return {"data": [message(number)], "has_more": True}

    assert ["msg_1"] == [each["id"] for each in await read(repeats)]
    assert "too_many_messages" == (await read(endless))["error"]["code"]


@pytest.mark.parametrize(
    "page", [None, [], {"data": None}, {"data": [1]}, {"data": [{"object": "thread.message"}]}]
)
async def test_what_is_no_list_is_asked_for_again_and_given_up(
    page: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason is told in the place of the messages."""
    monkeypatch.setattr(item_messages, "TROUBLE_FOR", -1.0)

    async def ask(_: Query) -> Any:
        return page

    said = await read(ask)

    assert {"code", "message"} == set(said["error"])
    assert "can't be read" in said["error"]["message"]


async def test_what_no_json_can_hold_is_not_written() -> None:
    """A number that Python reads and JSON hasn't got would spoil the whole file."""
    ask, _ = pages([{**message(1), "metadata": {"score": float("inf")}}])

    assert "messages_unreadable" == (await read(ask))["error"]["code"]
