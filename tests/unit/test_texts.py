"""The text of messages while they are written: gathered from streams, told, put together again."""

import json
from typing import Any, cast

import pytest

from activities.texts import MAX_CHARACTERS, WINDOW_BYTES, Texts, Written
from runlane.api import event_data
from runlane.api.live_texts import LiveTexts
from runsapi import AssistantStreamEvent, EventStream
from runsapi.events import typed_event


class Stream:
    """The rest of a stream, as far as a reader needs one."""

    def __init__(self, *events: AssistantStreamEvent) -> None:
        self._events = list(events)
        self.is_closed = False

    def __aiter__(self) -> "Stream":
        return self

    async def __anext__(self) -> AssistantStreamEvent:
        if not self._events:
            raise StopAsyncIteration
        return self._events.pop(0)

    async def aclose(self) -> None:
        self.is_closed = True


def begun(message_id: str = "msg_1") -> AssistantStreamEvent:
    return typed_event("thread.message.in_progress", {"id": message_id, "content": []})


def delta(value: str, *, message_id: str = "msg_1", index: int = 0) -> AssistantStreamEvent:
    part = {"index": index, "type": "text", "text": {"value": value}}
    return typed_event("thread.message.delta", {"id": message_id, "delta": {"content": [part]}})


async def gathered(*events: AssistantStreamEvent) -> Written | None:
    """Return what is told last of a stream that holds these."""
    texts, stream = Texts(), Stream(*events)
    texts.follow("run_1", cast(EventStream, stream))
    told = [each async for each in texts.watch("run_1")]
    assert stream.is_closed
    return told[-1] if told else None


async def test_deltas_are_one_text() -> None:
    """Of the message that was begun last; a late repetition of its beginning takes nothing away."""
    told = await gathered(begun(), delta("Hel"), begun(), delta("lo."))
    assert Written("msg_1", 0, "Hello.") == told
    told = await gathered(begun(), delta("Old."), begun("msg_2"), delta("New.", message_id="msg_2"))
    assert Written("msg_2", 0, "New.") == told


@pytest.mark.parametrize(
    "odd",
    [
        delta("x" * (MAX_CHARACTERS + 1)),
        delta("half a pair: \ud83d"),
        delta("of another part", index=1),
        typed_event("thread.message.delta", {"id": 7}),
    ],
    ids=["too long", "no UTF-8", "another part", "unreadable"],
)
async def test_text_ends_where_something_would_be_missing(odd: AssistantStreamEvent) -> None:
    """What came before stands; nothing after it is told as if it went on from there."""
    told = await gathered(begun(), delta("Good."), odd, delta(" Bad."))
    assert Written("msg_1", 0, "Good.") == told


@pytest.mark.parametrize("text", ["a" * 100_000, "ä\n" * 50_000, "\x01" * 100_000])
async def test_what_is_told_at_a_time_is_bounded(text: str) -> None:
    """The end of a long text, with its place; below what would be stored as a file."""
    told = await gathered(begun(), delta(text))
    assert told is not None
    assert told.text
    assert text[told.offset :] == told.text
    assert len(json.dumps(told.as_json(), ensure_ascii=False).encode()) < WINDOW_BYTES + 200


async def test_nothing_is_told_of_a_run_without_a_stream() -> None:
    """Its poll waits for nothing."""
    assert [] == [each async for each in Texts().watch("run_1")]


@pytest.mark.parametrize(
    "value",
    [None, [], {"message_id": "m", "offset": -1, "text": ""}, {"message_id": "m", "text": "x"}],
)
def test_a_heartbeat_that_says_something_else_is_no_text(value: object) -> None:
    """Another version's, say."""
    assert Written.read(value) is None


def test_texts_are_put_together_without_gaps() -> None:
    """What overlaps goes on; after a gap or a contradiction what was known stands."""
    texts = LiveTexts()
    assert texts.take(Written("m", 0, "Hello"))
    assert not texts.take(Written("m", 0, "Hel"))
    assert texts.take(Written("m", 3, "lo, you"))
    assert "Hello, you" == texts.of("m")
    assert not texts.take(Written("m", 20, "late"))
    assert not texts.take(Written("m", 0, "Hello, you there"))
    assert ("Hello, you", 2) == (texts.of("m"), texts.grown)
    assert texts.take(Written("n", 0, "Hello"))
    assert not texts.take(Written("n", 0, "Another text"))
    assert "Hello" == texts.of("n")


def whole(*parts: dict[str, Any]) -> dict[str, Any]:
    return event_data.message_text({"id": "m", "content": list(parts)})


def text_part(value: str, *annotations: dict[str, Any]) -> dict[str, Any]:
    return {"type": "text", "text": {"value": value, "annotations": list(annotations)}}


def test_the_rest_is_what_was_not_told() -> None:
    """Nothing where all was told; annotations and other parts always."""
    image = {"type": "image_file", "image_file": {"file_id": "file_1"}}
    rest = event_data.message_rest(whole(text_part("Hello, you")), "Hello")
    assert rest is not None
    assert [{"index": 0, **text_part(", you")}] == rest["delta"]["content"]
    assert event_data.message_rest(whole(text_part("Hello")), "Hello") is None
    assert event_data.message_rest(whole(text_part("Hello")), "Hallo") is None
    assert event_data.message_rest(whole(image), "Hello") is None
    noted = event_data.message_rest(whole(text_part("Hello", {"type": "x"}), image), "Hello")
    assert noted is not None
    assert [
        {"index": 0, **text_part("", {"index": 0, "type": "x"})},
        {"index": 1, **image},
    ] == noted["delta"]["content"]
