"""What a newcomer mistypes: the API says what is wrong, in Runlane's own words."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from tests.api import Api, serving
from tests.lab import Lab

JSON = {"content-type": "application/json"}


@pytest_asyncio.fixture
async def api(lab: Lab) -> AsyncIterator[Api]:
    async with serving(lab) as served:
        yield served


async def test_a_body_that_is_no_json_is_told_by_its_place(api: Api) -> None:
    """Characters count from 1; no field is at fault, and nothing of the body is repeated."""
    bodies = ('{"assistant_id": hush}', "{hush}", '{"a": "hush')
    answers = [
        await api.http().post("/threads/thread_x/runs", content=each, headers=JSON)
        for each in bodies
    ]

    assert [400] * 3 == [each.status_code for each in answers]
    errors = [each.json()["error"] for each in answers]
    assert [None] * 3 == [each["param"] for each in errors]
    assert [
        "The body is no JSON: Expecting value, at character 18.",
        "The body is no JSON: Expecting property name enclosed in double quotes, at character 2.",
        "The body is no JSON: Unterminated string starting at, at character 7.",
    ] == [each["message"] for each in errors]


@pytest.mark.parametrize(
    ("path", "body", "param", "message"),
    [
        (
            "/threads/thread_x/runs",
            {"assistant_id": "asst_1", "runlane": {"deadlne": 5}},
            "runlane.deadlne",
            "runlane.deadlne is no option here.",
        ),
        ("/stops", {"all": True}, "reason", "reason is missing."),
        ("/stops", {"all": "yes", "reason": "x"}, "all", "all must be a valid boolean."),
        ("/stops", [], None, "The body must be an object."),
        (
            "/tokens",
            {"name": "n", "person": "p", "role": "boss"},
            "role",
            "role must be 'reader', 'operator', 'approver' or 'admin'.",
        ),
    ],
)
async def test_a_field_that_can_not_be_used_is_told_plainly(
    api: Api, path: str, body: Any, param: str | None, message: str
) -> None:
    """As a sentence about the field."""
    answer = await api.http().post(path, json=body)

    error = answer.json()["error"]
    assert (400, param, message) == (answer.status_code, error["param"], error["message"])


async def test_a_method_that_a_url_does_not_take_is_told_which_it_takes(api: Api) -> None:
    """All of them, of whichever route, in the text and in `Allow`."""
    found = [
        await api.http().request(method, path)
        for method, path in (("DELETE", "/tokens"), ("DELETE", "/threads/t/runs/r"))
    ]

    assert [405, 405] == [each.status_code for each in found]
    assert ["GET, POST", "GET, POST"] == [each.headers["allow"] for each in found]
    assert [
        "/v1/tokens takes GET and POST, not DELETE.",
        "/v1/threads/t/runs/r takes GET and POST, not DELETE.",
    ] == [each.json()["error"]["message"] for each in found]
