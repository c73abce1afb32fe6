"""Streams of the API, read by the official SDK and by a plain client."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import pytest
import pytest_asyncio
from openai import AssistantEventHandler, AsyncAssistantEventHandler, OpenAI
from openai.types.beta import AssistantStreamEvent, FunctionToolParam
from openai.types.beta.threads import Text

from runlane.api import readers, streams
from runlane.api.access import Principal, Role
from tests.api import Api, serving
from tests.lab import Lab

pytestmark = [
    pytest.mark.filterwarnings("ignore:The Assistants API is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:deprecated$:DeprecationWarning"),
]

TOOL: FunctionToolParam = {
    "type": "function",
    "function": {"name": "lookup_order", "parameters": {"type": "object"}},
}
ASKING = {"queued": 0.05, "in_progress": 0.05, "calls": [{"name": "lookup_order"}]}
SAYING = {"queued": 0.05, "in_progress": 0.05, "says": "Order: {outputs}."}

BEGUN = ["thread.run.created", "thread.run.queued", "thread.run.in_progress"]
STEP = ["thread.run.step.created", "thread.run.step.in_progress"]
ASKED = [*BEGUN, *STEP, "thread.run.step.delta", "thread.run.requires_action"]
WRITTEN = [
    *STEP,
    "thread.message.created",
    "thread.message.in_progress",
    "thread.message.delta",
    "thread.message.completed",
    "thread.run.step.completed",
]
ANSWERED = [
    "thread.run.step.completed",
    "thread.run.queued",
    "thread.run.in_progress",
    *WRITTEN,
    "thread.run.completed",
]


@pytest_asyncio.fixture
async def api(lab: Lab) -> AsyncIterator[Api]:
    async with serving(lab) as served:
        yield served


class Sent(NamedTuple):
    """An event as it came."""

    id: str | None
    name: str
    data: Any


class AsyncRecorder(AsyncAssistantEventHandler):
    """Keeps what the SDK's handler is told."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.texts: list[str] = []

    async def on_event(self, event: AssistantStreamEvent) -> None:
        self.names.append(event.event)

    async def on_text_done(self, text: Text) -> None:
        self.texts.append(text.value)


class Recorder(AssistantEventHandler):
    """The same, for the SDK that blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def on_event(self, event: AssistantStreamEvent) -> None:
        self.names.append(event.event)


async def events_of(api: Api, path: str, *, last: str | None = None, **body: Any) -> list[Sent]:
    """Read a stream to its end: of a run, or of a POST where there is a body."""
    headers = {} if last is None else {"last-event-id": last}
    method = "POST" if body else "GET"
    request = api.http().stream(method, path, headers=headers, json=body or None)
    async with request as response:
        assert 200 == response.status_code, await response.aread()
        assert "text/event-stream" in response.headers["content-type"]
        text = (await response.aread()).decode()
    return parsed(text)


def parsed(text: str) -> list[Sent]:
    """Return the events of a stream that ended well."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(
            line.split(": ", 1) for line in block.splitlines() if line[:1] not in ("", ":")
        )
        if fields:
            data = fields["data"]
            found.append(
                Sent(
                    fields.get("id"),
                    fields["event"],
                    data if data == "[DONE]" else json.loads(data),
                )
            )
    assert ("done", "[DONE]") == found[-1][1:], found[-1]
    return found[:-1]


async def test_a_run_is_streamed_to_the_sdk_in_the_seeds_order(api: Api, lab: Lab) -> None:
    """`runs.stream` ends at the calls, `submit_tool_outputs_stream` goes on to the end."""
    await lab.scenario(rounds=[ASKING, SAYING])
    runs = api.sdk().beta.threads.runs
    asked = AsyncRecorder()
    async with runs.stream(
        thread_id=lab.thread_id, assistant_id=lab.assistant_id, tools=[TOOL], event_handler=asked
    ) as stream:
        run = await stream.get_final_run()
    assert ("requires_action", ASKED) == (run.status, asked.names)
    assert run.required_action is not None
    [call] = run.required_action.submit_tool_outputs.tool_calls

    told = AsyncRecorder()
    async with runs.submit_tool_outputs_stream(
        run_id=run.id,
        thread_id=lab.thread_id,
        tool_outputs=[{"tool_call_id": call.id, "output": "shipped"}],
        event_handler=told,
    ) as stream:
        done = await stream.get_final_run()
        [message] = await stream.get_final_messages()
    assert ("completed", ANSWERED) == (done.status, told.names)
    assert ["Order: shipped."] == told.texts
    assert {run.id} == {done.id, message.run_id}
    assert done.usage is not None


async def test_the_sdk_that_blocks_reads_the_same(api: Api, lab: Lab) -> None:
    """Its handler gets the same events, and its text deltas the text."""
    await lab.scenario(rounds=[SAYING | {"says": "All is well."}])
    told = Recorder()
    texts: list[str] = []

    def read() -> None:
        with (
            OpenAI(base_url=api.url, api_key="any", max_retries=0) as sdk,
            sdk.beta.threads.runs.stream(
                thread_id=lab.thread_id, assistant_id=lab.assistant_id, event_handler=told
            ) as stream,
        ):
            texts.extend(stream.text_deltas)

    await asyncio.to_thread(read)
    assert [*BEGUN, *WRITTEN, "thread.run.completed"] == told.names
    assert "All is well." == "".join(texts)


async def test_a_stream_is_taken_up_after_any_event(api: Api, lab: Lab) -> None:
    """What follows an event's id is the same by every stream, and none comes twice."""
    await lab.scenario(rounds=[ASKING, SAYING])
    path = f"/threads/{lab.thread_id}/runs"
    first = await events_of(api, path, assistant_id=lab.assistant_id, stream=True)
    run_id = first[0].data["id"]
    [call] = first[-1].data["required_action"]["submit_tool_outputs"]["tool_calls"]
    outputs = [{"tool_call_id": call["id"], "output": "ok"}]
    submit = f"{path}/{run_id}/submit_tool_outputs"
    second = await events_of(api, submit, tool_outputs=outputs, stream=True)

    every = await events_of(api, f"{path}/{run_id}/events")
    assert [each.id for each in every] == [each.id for each in (*first, *second)]
    assert len(every) == len({each.id for each in every})
    for index, event in enumerate(every):
        rest = await events_of(api, f"{path}/{run_id}/events", last=event.id)
        assert every[index + 1 :] == rest
    # An unknown id: from the beginning of what the request is about.
    assert every == await events_of(api, f"{path}/{run_id}/events", last="nothing")
    again = await events_of(api, submit, last="nothing", tool_outputs=outputs, stream=True)
    assert every[len(first) :] == again


async def test_a_stream_that_waits_ends_where_the_caller_is_asked(api: Api, lab: Lab) -> None:
    """Following a run that waits ends there, and goes on after the answer was given elsewhere."""
    await lab.scenario(rounds=[ASKING, SAYING])
    run = await lab.start()
    await run.until_status("requires_action")
    path = f"/threads/{lab.thread_id}/runs/{run.id}/events"
    seen = await events_of(api, path)
    assert ASKED == [each.name for each in seen]
    assert [] == await events_of(api, path, last=seen[-1].id)
    await run.answer_all()
    rest = await events_of(api, path, last=seen[-1].id)
    assert ANSWERED == [each.name for each in rest]


async def test_a_recreated_upstream_run_shows_one_run(api: Api, lab: Lab) -> None:
    """It expires while its caller is asked; another one asks the same, and the caller sees one."""
    await lab.scenario(rounds=[ASKING, SAYING])
    run = await lab.start()
    path = f"/threads/{lab.thread_id}/runs/{run.id}"
    first = await events_of(api, f"{path}/events")
    await lab.force(str((await run.view()).runlane.upstream_run_id), "expired")
    await run.until(lambda view: view.runlane.parked)
    [call] = first[-1].data["required_action"]["submit_tool_outputs"]["tool_calls"]
    outputs = [{"tool_call_id": call["id"], "output": "ok"}]
    second = await events_of(api, f"{path}/submit_tool_outputs", tool_outputs=outputs, stream=True)

    names = [each.name for each in (*first, *second)]
    assert (1, 1) == (names.count("thread.run.created"), names.count("thread.run.requires_action"))
    assert (2, "thread.run.completed") == ((await run.view()).runlane.attempt, names[-1])
    shown = [each.data for each in (*first, *second) if "delta" not in each.data]
    of_run = [each["id"] if each["object"] == "thread.run" else each["run_id"] for each in shown]
    assert {run.id} == set(of_run)
    every = await events_of(api, f"{path}/events")
    assert [each.id for each in every] == [each.id for each in (*first, *second)]


@pytest.mark.parametrize("ends", ["failed", "incomplete", "expired", "cancelled"])
async def test_a_stream_ends_however_the_run_ends(api: Api, lab: Lab, ends: str) -> None:
    """Each way to end is the last event, and no id is told twice."""
    await lab.scenario(rounds=[SAYING | {"says": None, "ends": ends}])
    runs = api.sdk().beta.threads.runs
    told = AsyncRecorder()
    async with runs.stream(
        thread_id=lab.thread_id,
        assistant_id=lab.assistant_id,
        event_handler=told,
        extra_body={"metadata": {"case": ends}},
    ) as stream:
        await stream.until_done()
    assert [*BEGUN, f"thread.run.{ends}"] == [
        n for n in told.names if n[:15] != "thread.message." and ".step." not in n
    ]


async def test_a_cancelled_run_says_so(api: Api, lab: Lab) -> None:
    """`cancelling`, the step's end and `cancelled`, in the stream of whoever follows."""
    await lab.scenario(rounds=[SAYING | {"in_progress": 60.0}])
    path = f"/threads/{lab.thread_id}/runs"
    run = await api.sdk().beta.threads.runs.create(
        thread_id=lab.thread_id, assistant_id=lab.assistant_id
    )
    following = asyncio.create_task(events_of(api, f"{path}/{run.id}/events"))
    while (
        "in_progress"
        != (await api.sdk().beta.threads.runs.retrieve(run.id, thread_id=lab.thread_id)).status
    ):
        await asyncio.sleep(0.05)
    await api.sdk().beta.threads.runs.cancel(run.id, thread_id=lab.thread_id)
    names = [each.name for each in await following]
    assert [*BEGUN, "thread.run.cancelling", "thread.run.cancelled"] == names


async def test_the_first_event_comes_at_once(
    api: Api, lab: Lab, record_property: Callable[[str, object], None]
) -> None:
    """Well below 300 ms after the POST, however slow the upstream is."""
    fault = await lab.fault("runs.create", "hold_before")
    client = api.http()
    await client.get(f"/threads/{lab.thread_id}/runs")
    began = time.monotonic()
    body = {"assistant_id": lab.assistant_id, "stream": True}
    request = client.stream("POST", f"/threads/{lab.thread_id}/runs", json=body)
    async with request as response:
        lines = response.aiter_lines()
        assert "id: run.created" == await anext(lines)
        took = time.monotonic() - began
    record_property("first_event_ms", round(took * 1000))
    await lab.release(fault)
    assert took < 0.3
    assert response.headers["cache-control"] in ("no-cache", "no-store")
    assert "no" == response.headers["x-accel-buffering"]


async def test_a_listener_that_leaves_takes_nothing_along(api: Api, lab: Lab) -> None:
    """The run goes on; the reader ends with its last listener."""
    await lab.scenario(rounds=[SAYING])
    body = {"assistant_id": lab.assistant_id, "stream": True}
    request = api.http().stream("POST", f"/threads/{lab.thread_id}/runs", json=body)
    async with request as response:
        run_id = json.loads([line async for line in _lines(response, 3)][-1][len("data: ") :])["id"]
        assert 1 == len(api.services.readers)
    while len(api.services.readers):
        await asyncio.sleep(0.02)
    done = await api.services.runlane.runs.poll(run_id)
    assert "completed" == done.status


async def test_one_that_does_not_read_holds_nobody_up(api: Api, lab: Lab) -> None:
    """Its connection is full of a message of megabytes; another one gets all of it meanwhile."""
    text = "word " * 1_000_000
    await lab.scenario(rounds=[SAYING | {"says": text}], word_seconds=0)
    path = f"/threads/{lab.thread_id}/runs"
    body = {"assistant_id": lab.assistant_id, "stream": True}
    async with api.http().stream("POST", path, json=body) as stuck:
        run_id = json.loads([line async for line in _lines(stuck, 3)][-1][len("data: ") :])["id"]
        every = await events_of(api, f"{path}/{run_id}/events")
        assert "thread.run.completed" == every[-1].name
        [delta] = [each for each in every if each.name == "thread.message.delta"]
        assert text == delta.data["delta"]["content"][0]["text"]["value"]


async def _lines(response: Any, count: int) -> AsyncIterator[str]:
    lines = response.aiter_lines()
    for _ in range(count):
        yield await anext(lines)


async def test_an_upstream_that_is_away_is_waited_for(
    api: Api, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is kept by comments meanwhile, and everything is told in the end."""
    monkeypatch.setattr(streams, "HEARTBEAT_SECONDS", 0.1)
    await lab.scenario(rounds=[SAYING])
    fault = await lab.fault("steps.list", "server_error", times=0)
    run = await lab.start()
    request = api.http().stream("GET", f"/threads/{lab.thread_id}/runs/{run.id}/events")
    async with request as response:
        lines = response.aiter_lines()
        text = ""
        while text.count(": waiting") < 3:
            text += await anext(lines) + "\n"
        await asyncio.to_thread(lab.simulator.remove_fault, fault)
        async for line in lines:
            text += line + "\n"
    told = [event.name for event in parsed(text)]
    assert [*BEGUN, *WRITTEN, "thread.run.completed"] == told


async def test_an_upstream_that_stays_away_ends_the_stream_and_not_the_run(
    api: Api, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An `error` event in the protocol's shape, after which the stream can be taken up again."""
    monkeypatch.setattr(readers, "OUTAGE_SECONDS", 0.5)
    await lab.scenario(rounds=[SAYING])
    fault = await lab.fault("steps.list", "server_error", times=0)
    path = f"/threads/{lab.thread_id}/runs"
    body = {"assistant_id": lab.assistant_id, "stream": True}
    async with api.http().stream("POST", path, json=body) as response:
        text = (await response.aread()).decode()
    *blocks, last = text.strip().split("\n\n")
    name, data = last.splitlines()
    assert "event: error" == name
    error = json.loads(data.removeprefix("data: "))
    assert ("unreachable_error", {"message", "type", "param", "code"}) == (
        error["type"],
        set(error),
    )
    assert lab.simulator.url not in text
    await asyncio.to_thread(lab.simulator.remove_fault, fault)
    first = parsed("\n\n".join([*blocks, "event: done\ndata: [DONE]"]))
    run_id = first[0].data["id"]
    rest = await events_of(api, f"{path}/{run_id}/events", last=first[-1].id)
    names = [event.name for event in (*first, *rest)]
    assert [*BEGUN, *WRITTEN, "thread.run.completed"] == names


async def test_steps_that_the_upstream_has_forgotten_are_left_out(api: Api, lab: Lab) -> None:
    """The run itself is told all the same."""
    await lab.scenario(rounds=[ASKING, SAYING])
    fault = await lab.fault("steps.list", "not_found", times=0)
    run = await lab.start()
    path = f"/threads/{lab.thread_id}/runs/{run.id}/events"
    asked = await events_of(api, path)
    assert [*BEGUN, "thread.run.requires_action"] == [event.name for event in asked]
    [call] = asked[-1].data["required_action"]["submit_tool_outputs"]["tool_calls"]
    await run.submit((call["id"], "ok"))
    rest = await events_of(api, path, last=asked[-1].id)
    await asyncio.to_thread(lab.simulator.remove_fault, fault)
    assert [*BEGUN[1:], "thread.run.completed"] == [event.name for event in rest]


async def test_a_stream_of_anothers_run_is_not_there(lab: Lab) -> None:
    """As the run itself is not."""
    run = await lab.start()
    asking = Principal(person="eve", role=Role.OPERATOR, token="eves")
    async with serving(lab, local=asking) as served:
        answer = await served.http().get(f"/threads/{lab.thread_id}/runs/{run.id}/events")
    assert 404 == answer.status_code


async def test_many_listeners_share_one_reader(api: Api, lab: Lab) -> None:
    """Fifty streams of one run ask the upstream no oftener than one, and all hear the same."""
    await lab.scenario(rounds=[SAYING | {"in_progress": 2.0}])
    run = await lab.start()
    path = f"/threads/{lab.thread_id}/runs/{run.id}/events"
    told = await asyncio.gather(*(events_of(api, path) for _ in range(50)))
    assert "thread.run.completed" == told[0][-1].name
    (same,) = {tuple(event.id for event in each) for each in told}
    assert len(same) == len(set(same))
    assert await lab.received("steps.list") <= 10
