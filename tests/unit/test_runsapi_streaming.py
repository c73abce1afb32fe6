"""Streams: events typed as they come, and the helper that follows a run."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from runsapi import (
    APIConnectionError,
    APIResponseError,
    AssistantEventHandler,
    ErrorEvent,
    EventStream,
    FunctionToolCall,
    Message,
    MessageDelta,
    RunCreateParamsStreaming,
    RunStep,
    TextDelta,
    TextValue,
    ThreadCreated,
    ThreadMessageDelta,
    ThreadMessageEvent,
    ThreadRunEvent,
    ThreadRunStepDelta,
    ThreadRunStepEvent,
    ToolCall,
    ToolCallDelta,
    UnknownEvent,
)
from runsapi.sse import EventDecoder
from tests.wire import Wire, run

MESSAGE = {"id": "msg_1", "role": "assistant", "status": "in_progress", "content": []}
STEP = {
    "id": "step_1",
    "type": "tool_calls",
    "status": "in_progress",
    "step_details": {"type": "tool_calls", "tool_calls": []},
}


def frame(event: str, data: Any) -> bytes:
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return f"event: {event}\ndata: {text}\n\n".encode()


DONE = frame("done", "[DONE]")


def text_delta(value: str, index: int = 0) -> bytes:
    content = [{"index": index, "type": "text", "text": {"value": value}}]
    return frame("thread.message.delta", {"id": "msg_1", "delta": {"content": content}})


def call_delta(index: int = 0, **call: Any) -> bytes:
    calls = [{"index": index, "type": "function", **call}]
    details = {"type": "tool_calls", "tool_calls": calls}
    return frame("thread.run.step.delta", {"id": "step_1", "delta": {"step_details": details}})


ANSWERED = [
    frame("thread.run.created", run()),
    frame("thread.run.in_progress", run(status="in_progress")),
    frame("thread.message.created", MESSAGE),
    text_delta("Grü"),
    frame("thread.message.in_progress", MESSAGE),
    text_delta("ß dich"),
    text_delta("!", index=1),
    frame(
        "thread.message.completed",
        {
            **MESSAGE,
            "status": "completed",
            "content": [
                {"type": "text", "text": {"value": "Grüß dich", "annotations": []}},
                {"type": "text", "text": {"value": "!", "annotations": []}},
            ],
        },
    ),
    frame("thread.run.completed", run(status="completed")),
    DONE,
]

ASKED = [
    frame("thread.run.created", run()),
    frame("thread.run.step.created", STEP),
    call_delta(id="call_1", function={"name": "add", "arguments": "", "output": None}),
    call_delta(function={"arguments": '{"a":'}),
    call_delta(function={"arguments": "1}"}),
    call_delta(1, id="call_2", function={"name": "sub", "arguments": "{}"}),
    frame("thread.run.requires_action", run(status="requires_action")),
    DONE,
]


class Chunks(httpx.AsyncByteStream):
    """A body that comes in the pieces it is given in; an exception among them is raised."""

    def __init__(self, *chunks: bytes | Exception) -> None:
        self.chunks = chunks
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self.chunks:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk

    async def aclose(self) -> None:
        self.closed = True


def streaming(*chunks: bytes | Exception) -> Wire:
    headers = {"content-type": "text/event-stream"}
    return Wire(lambda _: httpx.Response(200, headers=headers, stream=Chunks(*chunks)))


async def opened(*chunks: bytes | Exception) -> EventStream:
    return await streaming(*chunks).upstream().runs.create("t", assistant_id="a", stream=True)


class Heard(AssistantEventHandler):
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.words: list[str] = []

    async def on_message_created(self, message: Message) -> None:
        self.words.append(f"message {message.id}")

    async def on_message_delta(self, delta: MessageDelta, snapshot: Message) -> None:
        self.words.append(f"message so far {snapshot.text}")

    async def on_message_done(self, message: Message) -> None:
        self.words.append(f"message done {message.text}")

    async def on_text_created(self, text: TextValue) -> None:
        self.words.append(f"text {text.value}")

    async def on_text_delta(self, delta: TextDelta, snapshot: TextValue) -> None:
        self.words.append(f"text +{delta.value} = {snapshot.value}")

    async def on_text_done(self, text: TextValue) -> None:
        self.words.append(f"text done {text.value}")

    async def on_run_step_created(self, run_step: RunStep) -> None:
        self.words.append(f"step {run_step.id}")

    async def on_tool_call_created(self, tool_call: ToolCall) -> None:
        self.words.append(f"call {tool_call.id}")

    async def on_tool_call_delta(self, delta: ToolCallDelta, snapshot: ToolCall) -> None:
        assert isinstance(snapshot, FunctionToolCall)
        self.words.append(f"call so far {snapshot.function.arguments}")

    async def on_tool_call_done(self, tool_call: ToolCall) -> None:
        assert isinstance(tool_call, FunctionToolCall)
        function = tool_call.function
        self.words.append(f"call done {function.name}({function.arguments})")

    async def on_exception(self, exception: Exception) -> None:
        self.words.append(f"broke {type(exception).__name__}")

    async def on_end(self) -> None:
        self.words.append("end")


async def test_events_are_typed() -> None:
    """Every event of the protocol has its type; the end marker is no event."""
    error = {"message": "late", "code": "server_error"}
    stream = await opened(
        frame("thread.created", {"id": "t", "created_at": 1}),
        *ANSWERED[:4],
        *ASKED[1:3],
        frame("error", {"error": error}),
        DONE,
        frame("thread.run.completed", run(status="completed")),
    )
    assert [
        ThreadCreated,
        ThreadRunEvent,
        ThreadRunEvent,
        ThreadMessageEvent,
        ThreadMessageDelta,
        ThreadRunStepEvent,
        ThreadRunStepDelta,
        ErrorEvent,
    ] == [type(event) async for event in stream]
    assert stream.done


@pytest.mark.parametrize(
    ("sent", "data"),
    [
        (frame("thread.run.paused", {"a": 1}), {"a": 1}),
        (frame("thread.run.completed", "oops"), "oops"),
        (frame("thread.run.completed", {"no": "run"}), {"no": "run"}),
        (frame("thread.message.delta", [1]), [1]),
    ],
)
async def test_unknown_and_unreadable_events_are_kept(sent: bytes, data: Any) -> None:
    """Nothing that stands in a stream breaks it or is swallowed."""
    events = [event async for event in await opened(sent, DONE)]
    assert [(UnknownEvent, data)] == [(type(event), event.data) for event in events]


async def test_a_create_that_streams_says_so_in_body_and_accept() -> None:
    """`stream` is true in the body, and the parameters are all there, with their query."""
    wire = streaming(DONE)
    await wire.upstream().runs.create(
        "t", RunCreateParamsStreaming(assistant_id="a", stream=True, model=None)
    )
    assert {"assistant_id": "a", "stream": True, "model": None} == wire.body()
    assert "text/event-stream" == wire.last.headers["accept"]


async def test_a_submit_that_streams() -> None:
    """`submit_tool_outputs` with `stream=True` yields the run's events."""
    wire = streaming(*ANSWERED)
    outputs = [{"tool_call_id": "c", "output": "1"}]
    stream = await wire.upstream().runs.submit_tool_outputs(
        "run_1", thread_id="t", tool_outputs=outputs, stream=True
    )
    assert "thread.run.completed" == [event.event async for event in stream][-1]
    assert {"tool_outputs": outputs, "stream": True} == wire.body()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n", b"\r"])
def test_the_pieces_do_not_matter(size: int, newline: bytes) -> None:
    """However the bytes are cut, within a letter or a line's end, the events are the same."""
    sent = b": hello\n\n" + b"".join(ANSWERED) + b"data: two\ndata: lines\nid: 7\n\nevent: cut"
    sent = b"\xef\xbb\xbf" + sent.replace(b"\n", newline)
    whole, pieces = EventDecoder(), EventDecoder()
    expected = [*whole.feed(sent), *whole.end()]
    assert ("message", "two\nlines") == expected[-1]
    assert 1 + len(ANSWERED) == len(expected)
    events = [
        event
        for start in range(0, len(sent), size)
        for event in pieces.feed(sent[start : start + size])
    ]
    assert expected == [*events, *pieces.end()]


async def test_a_stream_that_breaks_off() -> None:
    """A lost connection is an error that says nothing of the run; a plain end is no error."""
    stream = await opened(ANSWERED[0], httpx.ReadError("secret"))
    assert isinstance(await anext(stream), ThreadRunEvent)
    with pytest.raises(APIConnectionError, match="ReadError") as caught:
        await anext(stream)
    assert "secret" not in str(caught.value)
    ended = await opened(ANSWERED[0])
    assert ["thread.run.created"] == [event.event async for event in ended]
    assert not ended.done


async def test_a_server_that_does_not_stream_still_tells_of_its_run() -> None:
    """Plain JSON in answer to `stream=True` becomes one event: the run isn't lost."""
    wire = Wire(run(status="completed"))
    stream = await wire.upstream().runs.create("t", assistant_id="a", stream=True)
    [event] = [event async for event in stream]
    assert isinstance(event, ThreadRunEvent)
    assert ("thread.run.completed", "run_1") == (event.event, event.data.id)


async def test_the_helper_keeps_snapshots_and_tells_its_handler() -> None:
    """Texts grow part by part, a late `in_progress` takes nothing back, every end is told."""
    heard = Heard()
    async with (
        streaming(*ANSWERED)
        .upstream()
        .runs.stream("t", assistant_id="a", event_handler=heard) as stream
    ):
        assert 9 == len([event async for event in stream])
    assert [
        "message msg_1",
        "text Grü",
        "text +Grü = Grü",
        "message so far Grü",
        "text +ß dich = Grüß dich",
        "message so far Grüß dich",
        "text done Grüß dich",
        "text !",
        "text +! = !",
        "message so far Grüß dich!",
        "text done !",
        "message done Grüß dich!",
        "end",
    ] == heard.words
    assert "completed" == (await stream.get_final_run()).status
    assert ["Grüß dich!"] == [message.text for message in await stream.get_final_messages()]


async def test_the_helper_collects_tool_calls() -> None:
    """Calls grow from their deltas, and a stream ends at `requires_action` with a final run."""
    heard = Heard()
    runs = streaming(*ASKED).upstream().runs
    stream = runs.stream("t", assistant_id="a", event_handler=heard)
    assert "requires_action" == (await stream.get_final_run()).status
    assert [
        "step step_1",
        "call call_1",
        'call so far {"a":',
        'call so far {"a":1}',
        'call done add({"a":1})',
        "call call_2",
        "call done sub({})",
        "end",
    ] == heard.words
    [step] = await stream.get_final_run_steps()
    assert ["call_1", "call_2"] == [call.id for call in step.tool_calls]


@pytest.mark.parametrize("status", ["completed", "incomplete", "failed", "cancelled", "expired"])
async def test_every_end_is_a_final_run(status: str) -> None:
    """`incomplete` is an end like the others."""
    frames = [ANSWERED[0], frame(f"thread.run.{status}", run(status=status)), DONE]
    stream = streaming(*frames).upstream().runs.stream("t", assistant_id="a")
    assert status == (await stream.get_final_run()).status


async def test_a_stream_that_ends_early_has_no_final_run() -> None:
    """The run as last seen is at hand, and is not passed off as final."""
    stream = streaming(*ANSWERED[:2]).upstream().runs.stream("t", assistant_id="a")
    with pytest.raises(APIResponseError, match="retrieve or poll"):
        await stream.get_final_run()
    assert stream.current_run is not None
    assert "in_progress" == stream.current_run.status


async def test_text_deltas() -> None:
    """The text alone, as it comes."""
    stream = streaming(*ANSWERED).upstream().runs.stream("t", assistant_id="a")
    assert ["Grü", "ß dich", "!"] == [text async for text in stream.text_deltas()]


async def test_a_delta_without_its_beginning_is_no_crash() -> None:
    """A stream joined late still gives what it brings."""
    stream = (
        streaming(text_delta("late"), ASKED[2], DONE).upstream().runs.stream("t", assistant_id="a")
    )
    assert ["late"] == [message.text for message in await stream.get_final_messages()]


async def test_the_handler_hears_of_a_break() -> None:
    """Whoever handles events and whoever reads them both learn that the stream broke."""
    heard = Heard()
    broken = streaming(ANSWERED[0], httpx.ReadTimeout("late"))
    stream = broken.upstream().runs.stream("t", assistant_id="a", event_handler=heard)
    with pytest.raises(APIConnectionError):
        await stream.until_done()
    assert ["broke APITimeoutError", "end"] == heard.words


@pytest.mark.parametrize(("handler", "custom"), [(None, "false"), (Heard(), "true")])
async def test_the_helpers_headers(handler: Heard | None, custom: str) -> None:
    """The helper sends the SDKs' own headers, also when it submits outputs."""
    wire = streaming(*ANSWERED)
    runs = wire.upstream().runs
    await runs.stream("t", assistant_id="a", event_handler=handler).until_done()
    await runs.submit_tool_outputs_stream(
        "run_1", thread_id="t", tool_outputs=[{"tool_call_id": "c"}], event_handler=handler
    ).until_done()
    assert [("stream", custom)] * 2 == [
        (
            request.headers["X-Stainless-Helper-Method"],
            request.headers["X-Stainless-Custom-Event-Handler"],
        )
        for request in wire.requests
    ]
    assert [True, True] == [wire.body(number)["stream"] for number in (0, 1)]


async def test_leaving_a_stream_lets_go_of_its_connection() -> None:
    """Whoever breaks off doesn't keep the connection, and no cancel is sent."""
    body = Chunks(*ANSWERED)
    headers = {"content-type": "text/event-stream"}
    wire = Wire(httpx.Response(200, headers=headers, stream=body))
    async with wire.upstream().runs.stream("t", assistant_id="a") as stream:
        await anext(stream)
    await asyncio.sleep(0)
    assert body.closed
    assert 1 == len(wire.requests)
