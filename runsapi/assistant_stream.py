"""The streaming helper: handlers, snapshots, and what is left when the stream has ended."""

from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any, Self

from runsapi.errors import APIResponseError, APITimeoutError
from runsapi.events import (
    AssistantStreamEvent,
    ThreadMessageDelta,
    ThreadMessageEvent,
    ThreadRunEvent,
    ThreadRunStepDelta,
    ThreadRunStepEvent,
)
from runsapi.messages import (
    ImageFile,
    ImageFileContentBlock,
    Message,
    MessageContent,
    MessageDelta,
    TextContentBlock,
    TextDelta,
    TextDeltaBlock,
    TextValue,
)
from runsapi.models import TERMINAL, Run, RunStatus
from runsapi.steps import RunStep, RunStepDelta, ToolCall, ToolCallDelta, ToolCallDeltaObject
from runsapi.streaming import EventStream

# Said once or said again, never continued: the rest of a delta's text is appended.
_REPLACED = frozenset({"id", "index", "type", "object", "role", "file_id", "message_id", "status"})


class AssistantEventHandler:
    """Override what you want to hear of; every method does nothing by itself.

    A snapshot is the whole so far, the delta included.
    """

    async def on_event(self, event: AssistantStreamEvent) -> None:
        """Any event, before the method for its kind."""

    async def on_run_step_created(self, run_step: RunStep) -> None:
        """A step began."""

    async def on_run_step_delta(self, delta: RunStepDelta, snapshot: RunStep) -> None:
        """A step has more to it."""

    async def on_run_step_done(self, run_step: RunStep) -> None:
        """A step ended, well or not."""

    async def on_tool_call_created(self, tool_call: ToolCall) -> None:
        """The model began to call a tool."""

    async def on_tool_call_delta(self, delta: ToolCallDelta, snapshot: ToolCall) -> None:
        """A tool call has more to it."""

    async def on_tool_call_done(self, tool_call: ToolCall) -> None:
        """A tool call is written out: what follows it has begun, or its step or run has stopped."""

    async def on_message_created(self, message: Message) -> None:
        """The model began a message."""

    async def on_message_delta(self, delta: MessageDelta, snapshot: Message) -> None:
        """A message has more to it."""

    async def on_message_done(self, message: Message) -> None:
        """A message ended, complete or not."""

    async def on_text_created(self, text: TextValue) -> None:
        """A text part began."""

    async def on_text_delta(self, delta: TextDelta, snapshot: TextValue) -> None:
        """A text part has more to it."""

    async def on_text_done(self, text: TextValue) -> None:
        """A text part ended."""

    async def on_image_file_done(self, image_file: ImageFile) -> None:
        """An image part ended."""

    async def on_timeout(self) -> None:
        """Nothing came in time; ``on_exception`` follows."""

    async def on_exception(self, exception: Exception) -> None:
        """The stream broke. The exception is raised to whoever reads the stream, too."""

    async def on_end(self) -> None:
        """The stream ended, however."""


class AssistantStream:
    """A run followed by its events. The request is sent by ``async with`` or by the first read.

    Args:
        open_stream: Sends the request.
        handler: Hears of everything while the stream is read.

    Attributes:
        handler: The same.
        current_event: The event being handled, or the last one.
        current_run: The run as last seen.
        current_run_step_snapshot: The step that is going on.
        current_message_snapshot: The message last begun.
    """

    def __init__(
        self,
        open_stream: Callable[[], Awaitable[EventStream]],
        handler: AssistantEventHandler | None = None,
    ) -> None:
        self.handler = handler or AssistantEventHandler()
        self.current_event: AssistantStreamEvent | None = None
        self.current_run: Run | None = None
        self.current_run_step_snapshot: RunStep | None = None
        self.current_message_snapshot: Message | None = None
        self._open = open_stream
        self._stream: EventStream | None = None
        self._events = self._iterate()
        self._messages: dict[str, Message] = {}
        self._steps: dict[str, RunStep] = {}
        self._part: tuple[str, int] | None = None
        self._call: tuple[str, int] | None = None

    async def __aenter__(self) -> Self:
        await self._start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> AsyncIterator[AssistantStreamEvent]:
        return self._events

    async def __anext__(self) -> AssistantStreamEvent:
        return await anext(self._events)

    async def aclose(self) -> None:
        """Let go of the connection. The run goes on."""
        if self._stream is not None:
            await self._stream.aclose()

    async def until_done(self) -> None:
        """Read the stream to its end."""
        async for _ in self._events:
            pass

    async def text_deltas(self) -> AsyncIterator[str]:
        """The text of the messages, as it comes."""
        async for event in self._events:
            if isinstance(event, ThreadMessageDelta):
                for part in event.data.delta.content or []:
                    if isinstance(part, TextDeltaBlock) and part.text and part.text.value:
                        yield part.text.value

    async def get_final_run(self) -> Run:
        """The run as the stream left it: ended, or waiting for tool outputs.

        Raises:
            APIResponseError: The stream ended before the run did. ``current_run`` is the run as
                last seen; retrieve or poll it.
        """
        await self.until_done()
        run = self.current_run
        if run is None or (run.status not in TERMINAL and run.status != RunStatus.REQUIRES_ACTION):
            raise APIResponseError("The stream ended before the run did: retrieve or poll the run.")
        return run

    async def get_final_run_steps(self) -> list[RunStep]:
        """The steps the stream brought, as it left them."""
        await self.until_done()
        return list(self._steps.values())

    async def get_final_messages(self) -> list[Message]:
        """The messages the stream brought, as it left them."""
        await self.until_done()
        return list(self._messages.values())

    async def _start(self) -> EventStream:
        if self._stream is None:
            self._stream = await self._open()
        return self._stream

    async def _iterate(self) -> AsyncIterator[AssistantStreamEvent]:
        try:
            async for event in await self._start():
                self.current_event = event
                await self.handler.on_event(event)
                await self._take(event)
                yield event
        except Exception as error:
            if isinstance(error, APITimeoutError):
                await self.handler.on_timeout()
            await self.handler.on_exception(error)
            raise
        finally:
            await self.handler.on_end()
            await self.aclose()

    async def _take(self, event: AssistantStreamEvent) -> None:
        match event:
            case ThreadRunEvent(data=run):
                self.current_run = run
                if run.status in TERMINAL or run.status == RunStatus.REQUIRES_ACTION:
                    await self._end_call()
            case ThreadMessageEvent(data=message):
                await self._message(event.event.rpartition(".")[2], message)
            case ThreadMessageDelta(data=data):
                await self._message_delta(data.id, data.delta)
            case ThreadRunStepEvent(data=step):
                await self._step(event.event.rpartition(".")[2], step)
            case ThreadRunStepDelta(data=data):
                await self._step_delta(data.id, data.delta)
            case _:
                pass

    async def _message(self, what: str, message: Message) -> None:
        begun = message.id in self._messages
        # A late `in_progress` repeats the empty message: what has come since must stay.
        if not begun or what in ("completed", "incomplete"):
            self._messages[message.id] = message
            self.current_message_snapshot = message
        if what == "created":
            await self.handler.on_message_created(message)
        elif what in ("completed", "incomplete"):
            await self._end_part()
            await self.handler.on_message_done(message)

    async def _message_delta(self, id: str, delta: MessageDelta) -> None:
        before = self._messages.get(id) or Message(id=id)
        known = len(before.content)
        snapshot = Message.model_validate(_grown(before, delta))
        self._messages[id] = self.current_message_snapshot = snapshot
        for part in delta.content or []:
            whole: MessageContent | None = _at(snapshot.content, part.index)
            text = whole.text if isinstance(whole, TextContentBlock) else None
            if self._part != (id, part.index):
                await self._end_part()
                self._part = (id, part.index)
                if part.index >= known and text is not None:
                    await self.handler.on_text_created(text)
            if isinstance(part, TextDeltaBlock) and part.text and text is not None:
                await self.handler.on_text_delta(part.text, text)
        await self.handler.on_message_delta(delta, snapshot)

    async def _end_part(self) -> None:
        if self._part is None:
            return
        (message_id, index), self._part = self._part, None
        part: MessageContent | None = _at(self._messages[message_id].content, index)
        if isinstance(part, TextContentBlock):
            await self.handler.on_text_done(part.text)
        elif isinstance(part, ImageFileContentBlock):
            await self.handler.on_image_file_done(part.image_file)

    async def _step(self, what: str, step: RunStep) -> None:
        begun = step.id in self._steps
        ended = what not in ("created", "in_progress")
        if not begun or ended:
            self._steps[step.id] = step
        if what == "created":
            await self.handler.on_run_step_created(step)
        self.current_run_step_snapshot = None if ended else self._steps[step.id]
        if ended:
            await self._end_call()
            await self.handler.on_run_step_done(step)

    async def _step_delta(self, id: str, delta: RunStepDelta) -> None:
        before = self._steps.get(id) or RunStep(id=id)
        snapshot = RunStep.model_validate(_grown(before, delta))
        self._steps[id] = self.current_run_step_snapshot = snapshot
        if isinstance(delta.step_details, ToolCallDeltaObject):
            for part in delta.step_details.tool_calls or []:
                call: ToolCall | None = _at(snapshot.tool_calls, part.index)
                if call is None:
                    continue
                if self._call == (id, part.index):
                    await self.handler.on_tool_call_delta(part, call)
                    continue
                await self._end_call()
                self._call = (id, part.index)
                await self.handler.on_tool_call_created(call)
        await self.handler.on_run_step_delta(delta, snapshot)

    async def _end_call(self) -> None:
        if self._call is None:
            return
        (step_id, index), self._call = self._call, None
        call: ToolCall | None = _at(self._steps[step_id].tool_calls, index)
        if call is not None:
            await self.handler.on_tool_call_done(call)


def _at(parts: list[Any], index: int) -> Any:
    return parts[index] if 0 <= index < len(parts) else None


def _grown(whole: Message | RunStep, delta: MessageDelta | RunStepDelta) -> dict[str, Any]:
    fields: dict[str, Any] = whole.model_dump(exclude_unset=True)
    _grow(fields, delta.model_dump(exclude_unset=True))
    return fields


def _grow(whole: dict[str, Any], delta: dict[str, Any]) -> None:
    for key, more in delta.items():
        had = whole.get(key)
        if more is None:
            continue
        if isinstance(more, dict):
            whole[key] = had if isinstance(had, dict) else {}
            _grow(whole[key], more)
        elif isinstance(more, list):
            whole[key] = had if isinstance(had, list) else []
            for entry in more:
                _place(whole[key], entry)
        elif isinstance(more, str) and isinstance(had, str) and key not in _REPLACED:
            whole[key] = had + more
        else:
            whole[key] = more


def _place(parts: list[Any], entry: Any) -> None:
    index = entry.get("index") if isinstance(entry, dict) else None
    if not isinstance(index, int):
        parts.append(entry)
        return
    if not 0 <= index < len(parts):
        parts.append({})
        index = -1
    _grow(parts[index], entry)
