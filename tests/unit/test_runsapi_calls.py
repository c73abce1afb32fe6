"""What each call puts on the wire, and what it makes of the answer."""

import warnings
from typing import Any

import httpx
import pytest

from runsapi import (
    APIResponseError,
    APIStatusError,
    InvalidParameter,
    Run,
    RunCreateParams,
    RunListParams,
    RunStatus,
    RunStepInclude,
    StaticKey,
    ToolOutput,
)
from tests.wire import Wire, run

INCLUDE: RunStepInclude = "step_details.tool_calls[*].file_search.results[*].content"
STEP = {"id": "step_1", "type": "tool_calls", "step_details": {"type": "tool_calls"}}


async def test_create_sends_include_in_the_query_and_the_rest_in_the_body() -> None:
    """`include` is the query's `include[]`; null stays null; nothing else is added."""
    wire = Wire(run())
    created = await wire.upstream().runs.create(
        "thread_1", assistant_id="asst_1", instructions=None, include=[INCLUDE]
    )
    assert "POST /v1/threads/thread_1/runs" == wire.line()
    assert [("include[]", INCLUDE)] == wire.query()
    assert {"assistant_id": "asst_1", "instructions": None} == wire.body()
    assert (Run, "run_1") == (type(created), created.id)


async def test_create_takes_a_model_or_keywords_but_not_both() -> None:
    """A model and keywords for the same call are refused, because their order would be a guess."""
    wire = Wire(run())
    runs = wire.upstream().runs
    await runs.create("thread_1", RunCreateParams(assistant_id="asst_1", model=None))
    assert {"assistant_id": "asst_1", "model": None} == wire.body()
    with pytest.raises(InvalidParameter, match="model"):
        await runs.create("thread_1", RunCreateParams(assistant_id="asst_1"), model="x")
    assert 1 == len(wire.requests)


async def test_nothing_is_sent_when_a_parameter_is_bad() -> None:
    """A refused parameter never reaches the wire, whichever call it belongs to."""
    wire = Wire()
    runs = wire.upstream().runs
    outputs = [{"tool_call_id": "a", "output": "x" * 512_000}]
    with pytest.raises(InvalidParameter, match="temperature must be between 0 and 2, got 3"):
        await runs.create("thread_1", assistant_id="asst_1", temperature=3)
    with pytest.raises(InvalidParameter, match="512000"):
        await runs.submit_tool_outputs("run_1", thread_id="thread_1", tool_outputs=outputs)
    with pytest.raises(InvalidParameter, match="limit"):
        await runs.list("thread_1", limit=1000)
    with pytest.raises(InvalidParameter, match="UTF-8"):
        await runs.create("thread_1", assistant_id="asst_1", instructions="\ud800")
    with pytest.raises(InvalidParameter, match="timeout"):
        await runs.retrieve("run_1", thread_id="thread_1", timeout=0)
    assert [] == wire.requests


@pytest.mark.parametrize(
    ("thread_id", "sent"),
    [("../x", "..%2Fx"), ("a b?c#d", "a%20b%3Fc%23d"), ("%2e%2e", "%252e%252e"), ("ü", "%C3%BC")],
)
async def test_an_id_stays_one_segment_of_the_path(thread_id: str, sent: str) -> None:
    """Whatever stands in an id, it can't lead to another path."""
    wire = Wire(run())
    await wire.upstream().runs.retrieve("run_1", thread_id=thread_id)
    assert f"GET /v1/threads/{sent}/runs/run_1" == wire.line()


ODD_IDS = ["../../x", "a/b", "a\\b", "a?b", "a#b", "%2e%2e", "..", "a\nb", "a b", "ü", "x" * 256]


@pytest.mark.parametrize("run_id", [*ODD_IDS, ""])
async def test_a_servers_id_that_could_lead_elsewhere_is_not_taken(run_id: str) -> None:
    """What is asked for by such an id later would be something else; lists hold it neither."""
    with pytest.raises(APIResponseError, match=r"can't stand in a path|is no Run"):
        await Wire(run(id=run_id)).upstream().runs.create("t", assistant_id="a")
    page = {"object": "list", "data": [run(), run(id=run_id)]}
    with pytest.raises(APIResponseError, match=r"can't stand in a path|is no ListObject"):
        await Wire(page).upstream().runs.list("t")


@pytest.mark.parametrize("answer", [{}, run(), {"data": None}, {"data": {}}])
async def test_what_is_no_list_is_not_an_empty_one(answer: dict[str, Any]) -> None:
    """Whoever looks for a run in vain creates another one."""
    with pytest.raises(APIResponseError, match="data"):
        await Wire(answer).upstream().runs.list("t")


@pytest.mark.parametrize("run_id", ["", ".", "..", "x" * 256])
async def test_an_id_that_is_no_segment_is_refused(run_id: str) -> None:
    """An empty id would call another endpoint, and dots would be resolved on the way."""
    wire = Wire()
    with pytest.raises(InvalidParameter) as caught:
        await wire.upstream().runs.cancel(run_id, thread_id="thread_1")
    assert "run_id" == caught.value.param
    assert [] == wire.requests


async def test_update_tells_null_from_absent() -> None:
    """`metadata=None` sends null, no metadata sends an empty object."""
    wire = Wire(run())
    runs = wire.upstream().runs
    await runs.update("run_1", thread_id="thread_1", metadata=None)
    assert {"metadata": None} == wire.body()
    await runs.update("run_1", thread_id="thread_1")
    assert {} == wire.body()
    await runs.update("run_1", thread_id="thread_1", metadata={"a": "b"})
    assert {"metadata": {"a": "b"}} == wire.body()
    assert "POST /v1/threads/thread_1/runs/run_1" == wire.line()


async def test_cancel_has_no_body() -> None:
    """Cancel is a POST without a body and without a content type."""
    wire = Wire(run(status="cancelling"))
    cancelled = await wire.upstream().runs.cancel("run_1", thread_id="thread_1")
    assert "POST /v1/threads/thread_1/runs/run_1/cancel" == wire.line()
    assert b"" == wire.last.content
    assert "content-type" not in wire.last.headers
    assert RunStatus.CANCELLING == cancelled.status


async def test_submit_sends_the_outputs_as_given() -> None:
    """Outputs may be models or mappings; `stream` is sent only where it was given."""
    wire = Wire(run())
    await wire.upstream().runs.submit_tool_outputs(
        "run_1",
        thread_id="thread_1",
        tool_outputs=[ToolOutput(tool_call_id="a", output="1"), {"tool_call_id": "b"}],
    )
    assert "POST /v1/threads/thread_1/runs/run_1/submit_tool_outputs" == wire.line()
    outputs = [{"tool_call_id": "a", "output": "1"}, {"tool_call_id": "b"}]
    assert {"tool_outputs": outputs} == wire.body()


async def test_steps_take_include() -> None:
    """Both calls of steps send `include[]`; the list takes the page's parameters too."""
    wire = Wire(STEP, {"data": [STEP], "has_more": False})
    steps = wire.upstream().runs.steps
    await steps.retrieve("step_1", thread_id="t", run_id="r", include=[INCLUDE])
    assert "GET /v1/threads/t/runs/r/steps/step_1" == wire.line()
    assert [("include[]", INCLUDE)] == wire.query()
    page = await steps.list("r", thread_id="t", include=[INCLUDE], order="asc", limit=3)
    assert "GET /v1/threads/t/runs/r/steps" == wire.line()
    assert {("include[]", INCLUDE), ("order", "asc"), ("limit", "3")} == set(wire.query())
    assert ["step_1"] == [step.id for step in page.data]


async def test_list_sends_before_and_order_and_follows_the_cursor() -> None:
    """The next page begins after the last object, with every other parameter as before."""
    wire = Wire(
        {"data": [run(id="a"), run(id="b")], "has_more": True},
        {"data": [run(id="c")], "has_more": False},
    )
    listed = wire.upstream().runs.list("t", before="z", order="asc", limit=2)
    assert ["a", "b", "c"] == [item.id async for item in listed]
    assert {"before": "z", "order": "asc", "limit": "2"} == dict(wire.query(0))
    assert {"before": "z", "order": "asc", "limit": "2", "after": "b"} == dict(wire.query(1))


async def test_a_page_has_its_next_page() -> None:
    """An awaited list is its first page, which knows the one after it."""
    wire = Wire(
        {"data": [run(id="a")], "has_more": True, "first_id": "a", "last_id": "a"},
        {"data": [run(id="b")], "has_more": False},
    )
    first = await wire.upstream().runs.list("t", RunListParams(limit=1))
    assert (True, True, "a", "a") == (
        first.has_more,
        first.has_next_page(),
        first.first_id,
        first.last_id,
    )
    second = await first.get_next_page()
    assert ["b"] == [item.id for item in second.data]
    assert not second.has_next_page()
    with pytest.raises(RuntimeError, match="no page after"):
        await second.get_next_page()


async def test_a_page_without_has_more_goes_on_until_one_is_empty() -> None:
    """Nothing is lost where the server doesn't say whether there is more."""
    wire = Wire({"data": [run(id="a")]}, {"data": [run(id="b")]}, {"data": []})
    assert ["a", "b"] == [item.id async for item in wire.upstream().runs.list("t")]
    assert 3 == len(wire.requests)


async def test_a_server_that_ignores_the_cursor_is_not_asked_for_ever() -> None:
    """The same page again ends the list, and no run is listed twice."""
    wire = Wire({"data": [run(id="a"), run(id="b")], "has_more": True})
    assert ["a", "b"] == [item.id async for item in wire.upstream().runs.list("t")]
    assert 2 == len(wire.requests)


async def test_a_server_whose_pages_go_round_is_not_asked_for_ever() -> None:
    """A page that brings nothing new ends the list, whatever its cursor says."""
    pages = [{"data": [run(id=name)], "has_more": True} for name in "abab"]
    wire = Wire(*pages, {"data": [], "has_more": False})
    assert ["a", "b"] == [item.id async for item in wire.upstream().runs.list("t")]
    assert 3 == len(wire.requests)


async def test_a_callers_header_beats_ours_and_none_leaves_it_out() -> None:
    """The caller's headers replace `OpenAI-Beta` and the key, whatever their case."""
    wire = Wire(run())
    runs = wire.upstream(credentials=StaticKey("sk-1")).runs
    await runs.retrieve("run_1", thread_id="t")
    assert ("assistants=v2", "Bearer sk-1") == (
        wire.last.headers["OpenAI-Beta"],
        wire.last.headers["Authorization"],
    )
    mine: dict[str, str | None] = {
        "openai-beta": "assistants=v1",
        "authorization": None,
        "X-A": "b",
    }
    await runs.retrieve("run_1", thread_id="t", extra_headers=mine)
    assert ["assistants=v1"] == wire.last.headers.get_list("OpenAI-Beta")
    assert "Authorization" not in wire.last.headers
    assert "b" == wire.last.headers["X-A"]


async def test_extra_query_and_timeout_are_per_call() -> None:
    """A call's query beats the base URL's, and its timeout beats the client's."""
    wire = Wire(run())
    runs = wire.upstream("http://upstream/v1?api-version=1&x=1", timeout=7).runs
    await runs.retrieve("run_1", thread_id="t", extra_query={"x": "2", "y": ["3", "4"]}, timeout=3)
    assert [("api-version", "1"), ("x", "2"), ("y", "3"), ("y", "4")] == wire.query()
    assert 3 == wire.last.extensions["timeout"]["read"]
    await runs.retrieve("run_1", thread_id="t")
    assert 7 == wire.last.extensions["timeout"]["read"]


async def test_response_headers_can_be_had() -> None:
    """Every call has a form whose answer holds headers and status."""
    wire = Wire(httpx.Response(200, json=run(), headers={"X-Request-Id": "req_1"}))
    runs = wire.upstream().runs.with_response
    answer = await runs.retrieve("run_1", thread_id="t")
    assert ("req_1", 200, "run_1") == (
        answer.headers["x-request-id"],
        answer.status_code,
        answer.data.id,
    )


@pytest.mark.parametrize(
    ("options", "headers", "query"),
    [
        ({}, {"authorization": "Bearer sk-1"}, {}),
        (
            {"auth": "api-key", "api_version": "2024-08"},
            {"api-key": "sk-1"},
            {"api-version": "2024-08"},
        ),
        ({"auth": "azure"}, {"authorization": "Bearer sk-1"}, {"api-version": "v1"}),
    ],
)
async def test_the_three_ways_to_sign_in(
    options: dict[str, Any], headers: dict[str, str], query: dict[str, str]
) -> None:
    """Plain bearer, Azure OpenAI's `api-key`, and Foundry's bearer with `api-version=v1`."""
    wire = Wire(run())
    base = "https://r.services.ai.azure.com/api/projects/p"
    upstream = wire.upstream(base, credentials=StaticKey("sk-1"), **options)
    await upstream.runs.retrieve("run_1", thread_id="t")
    assert "GET /api/projects/p/threads/t/runs/run_1" == wire.line()
    assert headers.items() <= dict(wire.last.headers).items()
    assert 1 == len({"authorization", "api-key"} & set(wire.last.headers))
    assert query == dict(wire.query())


async def test_the_url_shows_neither_user_nor_query() -> None:
    """User, password and query of the base URL are used and never shown."""
    wire = Wire(httpx.Response(404, json={"error": {"message": "gone"}}))
    upstream = wire.upstream("https://me:secret@host/v1/?sig=secret", name="mine")
    assert ("https://host/v1", "mine") == (upstream.url, upstream.name)
    assert "secret" not in repr(upstream)
    with pytest.raises(APIStatusError) as caught:
        await upstream.runs.retrieve("run_1", thread_id="t")
    assert "https://host/v1/threads/t/runs/run_1" == caught.value.url
    assert "secret" not in str(caught.value)
    assert httpx.BasicAuth("me", "secret")._auth_header == wire.last.headers["Authorization"]


@pytest.mark.parametrize("base_url", ["", "host/v1", "ftp://host", "http://", "http://h:port"])
def test_a_base_url_that_is_none_is_refused(base_url: str) -> None:
    """A mistyped address is an error at once, not at the first call."""
    with pytest.raises(InvalidParameter, match="base_url"):
        Wire().upstream(base_url)


@pytest.mark.parametrize("status", [400, 404, 408, 409, 429, 500, 503])
async def test_no_request_is_ever_repeated(status: int) -> None:
    """One call is one request, whatever the answer."""
    wire = Wire(httpx.Response(status, json={"error": {"message": "no"}}))
    with pytest.raises(APIStatusError) as caught:
        await wire.upstream().runs.create("t", assistant_id="a")
    assert (status, "no") == (caught.value.status_code, caught.value.message)
    assert 1 == len(wire.requests)


async def test_a_redirect_is_not_followed() -> None:
    """The key goes nowhere but to the upstream."""
    wire = Wire(httpx.Response(307, headers={"location": "https://elsewhere/v1"}), run())
    with pytest.raises(APIStatusError, match="redirect"):
        await wire.upstream(credentials=StaticKey("sk-1")).runs.retrieve("run_1", thread_id="t")
    assert 1 == len(wire.requests)


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(200, text="<html>ok</html>"),
        httpx.Response(200, content=b""),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={"message": "welcome", "api": "hush"}),
        httpx.Response(200, json=None),
    ],
)
async def test_an_answer_that_is_no_run_is_an_error_without_its_contents(
    answer: httpx.Response,
) -> None:
    """A gateway's page or another object is never taken for a run, nor shown."""
    wire = Wire(lambda _: answer)
    with pytest.raises(APIResponseError) as caught:
        await wire.upstream().runs.retrieve("run_1", thread_id="t")
    assert 200 == caught.value.status_code
    assert "hush" not in str(caught.value)


async def test_create_and_stream_warns_that_it_is_deprecated() -> None:
    """The old name works, and says that it is old where it is called."""
    runs = Wire().upstream().runs
    with pytest.warns(DeprecationWarning, match="use stream") as caught:
        runs.create_and_stream("t", assistant_id="a")
    assert __file__ == caught[0].filename
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        runs.stream("t", assistant_id="a")
