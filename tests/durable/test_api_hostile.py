"""What no client in its right mind sends: the API says no, and nothing worse happens."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.api import Api, serving
from tests.lab import Lab

HALF = "\ud800"
"""Half of a surrogate pair: JSON can write it, UTF-8 can't."""
TOOL = {"type": "function", "function": {"name": "ask", "parameters": {"type": "object"}}}
APPROVAL = "/approvals/run_x/call_1"


@pytest_asyncio.fixture
async def api(lab: Lab) -> AsyncIterator[Api]:
    async with serving(lab) as served:
        yield served


def nested(levels: int) -> list[Any]:
    """Return lists in lists."""
    return json.loads("[" * levels + "]" * levels)  # type: ignore[no-any-return]  # it is one


def bodies(odd: Any) -> dict[str, dict[str, Any]]:
    """Return bodies that hold something odd, by where they are sent."""
    create = {"assistant_id": "asst_1"}
    return {
        "/threads/thread_x/runs": {**create, "tools": [{"odd": odd}]},
        "/threads/runs": {**create, "thread": {"tool_resources": odd}},
        "/threads": {"tool_resources": {"odd": odd}},
        "/threads/thread_x/messages": {"role": "user", "content": "x", "odd": odd},
        "/assistants": {"model": "gpt-4o", "tools": [{"odd": odd}]},
        "/threads/thread_x/runs/run_x/submit_tool_outputs": {"tool_outputs": [], "odd": odd},
        f"{APPROVAL}/approve": {"arguments": {"odd": odd}},
        "/tokens": {"name": "n", "person": "p", "role": "reader", "odd": odd},
        "/stops": {"all": True, "reason": "x", "odd": odd},
    }


async def refusal(answer: httpx.Response) -> tuple[int, str]:
    """Return an answer's status and the text of its error."""
    error = answer.json()["error"]
    assert {"message", "type", "param", "code"} == set(error)
    return answer.status_code, error["message"]


@pytest.mark.parametrize("levels", [150, 400, 900])
async def test_what_is_nested_too_deep_is_refused(api: Api, levels: int) -> None:
    """Wherever it is sent: what writes it on would break on it, or whoever reads it."""
    for path, body in bodies(nested(levels)).items():
        status, text = await refusal(await api.http().post(path, json=body))
        assert (400, "deeper than 100 levels" in text) == (status, True), (path, text)


@pytest.mark.parametrize("brackets", ["[", '{"a":'])
async def test_a_hundred_thousand_brackets_are_refused(api: Api, brackets: str) -> None:
    """They don't even parse."""
    for path in bodies(None):
        answer = await api.http().post(
            path, content=brackets * 100_000, headers={"content-type": "application/json"}
        )
        assert 400 == (await refusal(answer))[0], path


@pytest.mark.parametrize("odd", [HALF, {HALF: "x"}, [{"a": [HALF]}]])
async def test_half_a_surrogate_pair_is_refused(api: Api, odd: Any) -> None:
    """As a value and as a key: it is no text, and can be written nowhere."""
    for path, body in bodies(odd).items():
        answer = await api.http().post(
            path, content=json.dumps(body), headers={"content-type": "application/json"}
        )
        status, text = await refusal(answer)
        assert (400, "surrogate" in text) == (status, True), (path, text)


async def test_metadata_of_a_run_is_text(api: Api, lab: Lab) -> None:
    """A run that lives isn't told what can't be written."""
    made = await api.http().post(
        f"/threads/{lab.thread_id}/runs", json={"assistant_id": lab.assistant_id, "tools": [TOOL]}
    )
    answer = await api.http().post(
        f"/threads/{lab.thread_id}/runs/{made.json()['id']}",
        content=json.dumps({"metadata": {HALF: HALF}}),
        headers={"content-type": "application/json"},
    )
    assert 400 == (await refusal(answer))[0]


async def test_ids_that_nobody_has_are_not_there(api: Api, lab: Lab) -> None:
    """A NUL, dots, slashes and the like: not found, at once; Visibility would break on a NUL."""
    http = api.http()
    run = (
        await http.post(f"/threads/{lab.thread_id}/runs", json={"assistant_id": lab.assistant_id})
    ).json()
    for odd in ("%00", "a%00b", "%2e%2e", "a%0ab", "a%3fb"):
        answers = [
            await http.delete(f"/threads/{odd}"),
            await http.post(f"/threads/{odd}/messages", json={"role": "user", "content": "x"}),
            await http.get(f"/threads/{lab.thread_id}/runs/{run['id']}/steps/{odd}"),
            await http.get(f"/threads/{lab.thread_id}/runs/{odd}"),
            await http.get(f"/threads/{lab.thread_id}/runs?after={odd}"),
            await http.get(f"/approvals/{odd}/call_1"),
        ]
        assert {404} == {each.status_code for each in answers}, [each.text for each in answers]
        for each in answers:
            await refusal(each)
            assert each.elapsed.total_seconds() < 5


async def test_a_time_that_no_calendar_has_is_refused(api: Api) -> None:
    """In UTC it would be past the last year."""
    for odd in ("9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59"):
        answer = await api.http().get("/audit", params={"since": odd})
        status, text = await refusal(answer)
        assert (400, "since must lie between the years 1 and 9999.") == (status, text)
