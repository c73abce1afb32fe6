"""The text of messages in streams of the API, while the upstream writes it."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import pytest_asyncio
from openai import AsyncAssistantEventHandler
from openai.types.beta.threads import Text, TextDelta
from temporalio.client import Client

from tests.api import Api, serving
from tests.lab import Lab
from tests.simulator_process import SimulatorProcess

pytestmark = [
    pytest.mark.filterwarnings("ignore:The Assistants API is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:deprecated$:DeprecationWarning"),
]

WORDS = " ".join(f"word{number}" for number in range(30))
SLOW = {"queued": 0.05, "in_progress": 0.05, "says": WORDS, "words_per_second": 6.0}
"""Five seconds of text."""
ASKING = {"queued": 0.05, "in_progress": 0.05, "calls": [{"name": "lookup_order"}]}
DELTA = "thread.message.delta"


@pytest_asyncio.fixture
async def api(lab: Lab) -> AsyncIterator[Api]:
    async with serving(lab) as served:
        yield served


class Heard(AsyncAssistantEventHandler):
    """Keeps what the SDK's handler is told of texts, and when."""

    def __init__(self) -> None:
        super().__init__()
        self.deltas: list[str] = []
        self.times: list[float] = []
        self.snapshot = ""
        self.done: list[str] = []

    async def on_text_delta(self, delta: TextDelta, snapshot: Text) -> None:
        self.deltas.append(delta.value or "")
        self.times.append(time.monotonic())
        self.snapshot = snapshot.value

    async def on_text_done(self, text: Text) -> None:
        self.done.append(text.value)


class Listening:
    """A stream read by a plain client; what came so far, with ids."""

    def __init__(self, client: httpx.AsyncClient, path: str, **request: Any) -> None:
        self.events: list[tuple[str | None, str, Any]] = []
        self._task = asyncio.create_task(self._read(client, path, request))

    async def _read(self, client: httpx.AsyncClient, path: str, request: dict[str, Any]) -> None:
        method = "POST" if "json" in request else "GET"
        async with client.stream(method, path, **request) as response:
            assert 200 == response.status_code, await response.aread()
            fields: dict[str, str] = {}
            async for line in response.aiter_lines():
                name, _, value = line.partition(": ")
                if name:
                    fields[name] = value
                elif fields.get("event") == "done":
                    return
                elif "event" in fields:
                    data = json.loads(fields["data"])
                    self.events.append((fields.get("id"), fields["event"], data))
                    fields = {}
        raise AssertionError("the stream broke off")

    async def until(self, condition: Callable[["Listening"], bool]) -> None:
        """Wait until what came fulfils the condition."""
        async with asyncio.timeout(30):
            while not condition(self):
                assert not self._task.done(), self.names
                await asyncio.sleep(0.02)

    async def end(self) -> None:
        """Wait for the stream's end."""
        await asyncio.wait_for(self._task, 60)

    @property
    def names(self) -> list[str]:
        return [name for _, name, _ in self.events]

    @property
    def run_id(self) -> str:
        return str(self.events[0][2]["id"])

    @property
    def texts(self) -> list[tuple[bool, str]]:
        """Each delta: whether it has an id, and its text."""
        return [
            (event_id is not None, data["delta"]["content"][0]["text"]["value"])
            for event_id, name, data in self.events
            if name == DELTA
        ]

    @property
    def text(self) -> str:
        return "".join(text for _, text in self.texts)


def create(api: Api, lab: Lab) -> Listening:
    """Create a run and listen to it."""
    body = {"assistant_id": lab.assistant_id, "stream": True}
    return Listening(api.http(), f"/threads/{lab.thread_id}/runs", json=body)


async def test_the_sdk_hears_text_while_it_is_written(
    api: Api, lab: Lab, record_property: Callable[[str, object], None]
) -> None:
    """The first of it comes seconds before the run's end, and nothing of it twice."""
    await lab.scenario(rounds=[SLOW])
    heard = Heard()
    began = time.monotonic()
    async with api.sdk().beta.threads.runs.stream(
        thread_id=lab.thread_id, assistant_id=lab.assistant_id, event_handler=heard
    ) as stream:
        run = await stream.get_final_run()
        [message] = await stream.get_final_messages()
    ended = time.monotonic()
    record_property("first_text_s", round(heard.times[0] - began, 2))
    record_property("run_s", round(ended - began, 2))
    assert "completed" == run.status
    assert message.content[0].type == "text"
    assert WORDS == message.content[0].text.value == heard.snapshot == "".join(heard.deltas)
    assert [WORDS] == heard.done
    assert len(heard.deltas) >= 3
    assert ended - heard.times[0] > 2.0
    assert 1 == await lab.accepted("runs.create")


async def test_text_after_an_answer_is_heard_too(api: Api, lab: Lab) -> None:
    """`submit_tool_outputs` streams upstream as the create did; the outputs are taken once."""
    await lab.scenario(rounds=[ASKING, SLOW | {"says": WORDS + " {outputs}"}])
    first = create(api, lab)
    await first.end()
    [call] = first.events[-1][2]["required_action"]["submit_tool_outputs"]["tool_calls"]
    body = {"tool_outputs": [{"tool_call_id": call["id"], "output": "ok"}], "stream": True}
    path = f"/threads/{lab.thread_id}/runs/{first.run_id}/submit_tool_outputs"
    second = Listening(api.http(), path, json=body)
    await second.until(lambda each: bool(each.texts))
    assert "thread.message.completed" not in second.names
    await second.end()
    assert f"{WORDS} ok" == second.text
    assert (1, 1) == (
        await lab.accepted("runs.create"),
        await lab.accepted("runs.submit_tool_outputs"),
    )


async def test_whoever_joins_late_hears_all_of_it_once(api: Api, lab: Lab) -> None:
    """Of three listeners each gets the whole text, wherever it has begun to listen."""
    await lab.scenario(rounds=[SLOW])
    early = create(api, lab)
    await early.until(lambda each: len(each.texts) >= 2)
    events = f"/threads/{lab.thread_id}/runs/{early.run_id}/events"
    late = Listening(api.http(), events)
    last = next(each for each, name, _ in early.events if name == "thread.message.in_progress")
    resumed = Listening(api.http(), events, headers={"last-event-id": str(last)})
    await resumed.until(lambda each: bool(each.texts))
    assert early.text.startswith(resumed.texts[0][1])
    for each in (early, late, resumed):
        await each.end()
        assert WORDS == each.text
        # Its text isn't the whole of what takes up a place.
        places = [place for place, _, _ in each.events if place is not None]
        assert len(set(places)) == len(places)
        assert [name for name in each.names if name != DELTA].count("thread.message.completed") == 1
    assert {False} == {has_id for has_id, _ in early.texts[:2]}
    after = Listening(api.http(), events)
    await after.end()
    assert [(True, WORDS)] == after.texts


async def test_no_text_streams_where_nobody_asked_for_it(api: Api, lab: Lab) -> None:
    """A run that was created without `stream` asks its upstream for no stream."""
    await lab.scenario(rounds=[SLOW | {"words_per_second": 15.0}])
    run = await lab.start()
    listening = Listening(api.http(), f"/threads/{lab.thread_id}/runs/{run.id}/events")
    await listening.end()
    assert [(True, WORDS)] == listening.texts
    requests = await asyncio.to_thread(lambda: lab.simulator.requests(thread_id=lab.thread_id))
    [made] = [each for each in requests["data"] if each["operation"] == "runs.create"]
    assert "stream" not in made["body"]


async def test_a_stream_that_breaks_in_the_middle_loses_no_text(api: Api, lab: Lab) -> None:
    """What came before is told as it came, the rest with the whole."""
    await lab.scenario(rounds=[SLOW])
    await lab.fault("runs.create", "cut_stream", events=17)
    listening = create(api, lab)
    await listening.end()
    assert WORDS == listening.text
    assert ("thread.run.completed", 1) == (
        listening.names[-1],
        await lab.accepted("runs.create"),
    )
    live = "".join(text for has_id, text in listening.texts if not has_id)
    assert "word0" == live.split(" ")[0]
    assert "word29" not in live


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("cut_stream", {"events": 0}),
        ("stream_error", {"events": 0}),
        ("lost_answer", {}),
        ("garbage", {}),
    ],
)
async def test_a_stream_that_shows_no_run_is_a_lost_answer(
    api: Api, lab: Lab, kind: str, fields: dict[str, Any]
) -> None:
    """The run that it made is found by its stamp: one create upstream."""
    await lab.scenario(rounds=[SLOW | {"words_per_second": 15.0}])
    await lab.fault("runs.create", kind, **fields)
    listening = create(api, lab)
    await listening.end()
    assert (WORDS, "thread.run.completed") == (listening.text, listening.names[-1])
    assert 1 == await lab.accepted("runs.create")


@pytest.mark.parametrize(
    ("kind", "fields"), [("cut_stream", {"events": 0}), ("lost_answer", {}), ("garbage", {})]
)
async def test_a_submits_stream_that_shows_no_run_is_a_lost_answer(
    api: Api, lab: Lab, kind: str, fields: dict[str, Any]
) -> None:
    """The run tells what became of the outputs: they are taken once."""
    await lab.scenario(rounds=[ASKING, SLOW | {"says": "Got {outputs}.", "words_per_second": 9.0}])
    first = create(api, lab)
    await first.end()
    await lab.fault("runs.submit_tool_outputs", kind, **fields)
    [call] = first.events[-1][2]["required_action"]["submit_tool_outputs"]["tool_calls"]
    body = {"tool_outputs": [{"tool_call_id": call["id"], "output": "ok"}], "stream": True}
    path = f"/threads/{lab.thread_id}/runs/{first.run_id}/submit_tool_outputs"
    second = Listening(api.http(), path, json=body)
    await second.end()
    assert ("Got ok.", "thread.run.completed") == (second.text, second.names[-1])
    assert 1 == await lab.accepted("runs.submit_tool_outputs")


async def test_an_upstream_that_refuses_to_stream_is_asked_without(api: Api, lab: Lab) -> None:
    """It says that it is for `stream`: the run is created all the same, once."""
    await lab.scenario(rounds=[SLOW | {"words_per_second": 30.0}])
    refusal = {"error": {"message": "No streams here.", "param": "stream", "type": "x"}}
    await lab.fault("runs.create", "status", status=400, body=refusal)
    listening = create(api, lab)
    await listening.end()
    assert (WORDS, "thread.run.completed") == (listening.text, listening.names[-1])
    assert (1, 2) == (await lab.accepted("runs.create"), await lab.received("runs.create"))


class Plain(httpx.AsyncHTTPTransport):
    """An upstream that answers with JSON although it is asked to stream."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        content = await request.aread()
        body = json.loads(content) if content else {}
        if body.pop("stream", None):
            headers = {k: v for k, v in request.headers.items() if k != "content-length"}
            request = httpx.Request(request.method, request.url, headers=headers, json=body)
        return await super().handle_async_request(request)


class Altering(httpx.AsyncHTTPTransport):
    """An upstream whose stream says another word than its message in the end."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        return httpx.Response(
            response.status_code, headers=response.headers, stream=_Altered(response.stream)
        )


class _Altered(httpx.AsyncByteStream):
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            yield chunk.replace(b'" word3"', b'" changed"')

    async def aclose(self) -> None:
        await self._stream.aclose()


async def test_an_upstream_that_answers_with_json_is_no_lost_answer(
    client: Client, simulator: SimulatorProcess
) -> None:
    """The run is taken from it, for the create and for the submit; each is sent once."""
    lab = Lab(client, simulator)
    await lab.scenario(rounds=[ASKING, SLOW | {"words_per_second": 15.0}])
    http = httpx.AsyncClient(transport=Plain())
    async with http, lab.worker(http_client=http), serving(lab) as api:
        first = create(api, lab)
        await first.end()
        [call] = first.events[-1][2]["required_action"]["submit_tool_outputs"]["tool_calls"]
        body = {"tool_outputs": [{"tool_call_id": call["id"], "output": "ok"}], "stream": True}
        path = f"/threads/{lab.thread_id}/runs/{first.run_id}/submit_tool_outputs"
        second = Listening(api.http(), path, json=body)
        await second.end()
    assert [(True, WORDS)] == second.texts
    assert "thread.run.completed" == second.names[-1]
    for operation in ("runs.create", "runs.submit_tool_outputs"):
        assert (1, 1) == (await lab.accepted(operation), await lab.received(operation))


async def test_text_that_was_told_otherwise_is_not_gone_on_with(
    client: Client, simulator: SimulatorProcess
) -> None:
    """The completed message stands, in the SDK too; nothing is added to another beginning."""
    lab = Lab(client, simulator)
    await lab.scenario(rounds=[SLOW])
    http = httpx.AsyncClient(transport=Altering())
    heard = Heard()
    async with http, lab.worker(http_client=http), serving(lab) as api:
        async with api.sdk().beta.threads.runs.stream(
            thread_id=lab.thread_id, assistant_id=lab.assistant_id, event_handler=heard
        ) as stream:
            run = await stream.get_final_run()
            [message] = await stream.get_final_messages()
        events = f"/threads/{lab.thread_id}/runs/{run.id}/events"
        after = Listening(api.http(), events)
        await after.end()
        second = create(api, lab)
        await second.end()
    streamed = WORDS.replace("word3 ", "changed ")
    for told in ("".join(heard.deltas), second.text):
        assert " changed" in told
        assert streamed.startswith(told)
    assert {False} == {has_id for has_id, _ in second.texts}
    [completed] = [data for _, name, data in second.events if name == "thread.message.completed"]
    assert WORDS == completed["content"][0]["text"]["value"]
    assert message.content[0].type == "text"
    assert (WORDS, "completed") == (message.content[0].text.value, run.status)
    assert [(True, WORDS)] == after.texts


async def test_text_costs_no_event_and_is_in_no_log(
    api: Api, lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    """Heartbeats leave no event, and not even a log that holds everything holds the text."""
    caplog.set_level(logging.DEBUG)
    await lab.scenario(rounds=[SLOW])
    listening = create(api, lab)
    await listening.end()
    streamed = await lab.client.get_workflow_handle(listening.run_id).fetch_history()
    assert len(listening.texts) >= 3
    assert "<text>" in caplog.text
    assert "word7" not in caplog.text
    run = await lab.start()
    await run.result()
    plain = await run.handle.fetch_history()
    assert [event.event_type for event in plain.events] == [
        event.event_type for event in streamed.events
    ]
