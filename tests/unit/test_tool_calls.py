"""A tool is called, and there is an answer whatever happens in it."""

import asyncio
import functools
import threading
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import pytest

import runlane
from runlane import Registry, ToolContext
from runlane.errors import InvalidRequest, InvalidTool, ToolNotFound
from runlane.tools import threads
from runlane.tools.answer import MAX_OUTPUT_BYTES, AnswerKind, ToolAnswer
from runlane.tools.threads import NoThread

SECRET = "4711-secret"
_owner: ContextVar[str] = ContextVar("_owner")


def context(reporter: Callable[[str], None] = lambda progress: None) -> ToolContext:
    """Return the context of a call."""
    return ToolContext(
        run_id="run_1", call_id="call_1", idempotency_key="k1", approver="ann", reporter=reporter
    )


async def called(function: Callable[..., Any], arguments: str = "{}", **options: Any) -> ToolAnswer:
    """Declare a function and call it as the tool `work`."""
    declared = runlane.tool(name="work", description="Work.", **options)(function)
    return await Registry.of(declared).invoke("work", arguments, context())


@dataclass
class Order:
    """What a tool may return."""

    id: str
    paid: bool


@pytest.mark.parametrize(
    ("value", "output"),
    [
        ("shipped", "shipped"),
        ("", ""),
        ("größe", "größe"),
        (None, "null"),
        (True, "true"),
        ({"a": [1, 2.5]}, '{"a":[1,2.5]}'),
        ({"a": float("nan")}, '{"a":null}'),
        ([Order("A-1", paid=True)], '[{"id":"A-1","paid":true}]'),
    ],
)
async def test_what_is_returned_is_the_answer(value: object, output: str) -> None:
    """Text as it is, anything else as JSON, from a sync and from an async function."""

    async def later() -> object:
        return value

    expected = ToolAnswer(output, AnswerKind.RETURNED)
    assert expected == await called(lambda: value)
    assert expected == await called(later)


async def test_a_tool_knows_its_call() -> None:
    """Run, call, approver and key are the call's, and arguments are validated ones."""

    @runlane.tool
    def sync(count: int, ctx: ToolContext) -> list[object]:
        """Say."""
        return [count, ctx.run_id, ctx.call_id, ctx.approver, ctx.idempotency_key]

    @runlane.tool(name="later")
    async def later(ctx: ToolContext, count: int = 3) -> list[object]:
        """Say."""
        return [count, ctx.run_id, ctx.call_id, ctx.approver, ctx.idempotency_key]

    registry = Registry.of(sync, later)
    first = await registry.invoke("sync", '{"count": 3}', context())
    second = await registry.invoke("later", "{}", context())

    assert '[3,"run_1","call_1","ann","k1"]' == first.output == second.output


async def test_progress_arrives_in_the_loop_from_any_thread() -> None:
    """What is reported is handed on where asyncio may be used."""
    heard: list[tuple[str, str]] = []

    def hear(progress: str) -> None:
        asyncio.get_running_loop()
        heard.append((progress, threading.current_thread().name))

    @runlane.tool
    def sync(ctx: ToolContext) -> None:
        """Say."""
        ctx.report("half")

    @runlane.tool(name="later")
    async def later(ctx: ToolContext) -> None:
        """Say."""
        ctx.report("done")

    registry = Registry.of(sync, later)
    for name in ("sync", "later"):
        assert AnswerKind.RETURNED == (await registry.invoke(name, "{}", context(hear))).kind

    assert [(text, threading.current_thread().name) for text in ("half", "done")] == heard


@pytest.mark.parametrize("is_async", [False, True])
async def test_progress_that_arrives_nowhere_stops_no_tool(
    is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """What was to be done is done, whoever hears of it."""

    def deaf(progress: str) -> None:
        raise ValueError(progress)

    def work(ctx: ToolContext) -> str:
        ctx.report(SECRET)
        return "done"

    async def later(ctx: ToolContext) -> str:
        return work(ctx)

    declared = runlane.tool(name="work", description="Work.")(later if is_async else work)
    answer = await Registry.of(declared).invoke("work", "{}", context(deaf))

    assert ToolAnswer("done", AnswerKind.RETURNED) == answer
    assert "Progress was not reported" in caplog.text
    assert SECRET not in caplog.text


async def test_a_sync_tool_holds_nobody_up() -> None:
    """While a hundred of them wait, the loop goes on, and so do asyncio's own threads."""
    release = threading.Event()

    @runlane.tool
    def wait() -> str:
        """Wait."""
        return "waited" if release.wait(60) else "left"

    registry = Registry.of(wait)
    calls = [asyncio.create_task(registry.invoke("wait", "", context())) for _ in range(100)]
    try:
        await asyncio.sleep(0.1)
        # Names of hosts are looked up in asyncio's own threads.
        assert await asyncio.wait_for(asyncio.to_thread(lambda: True), 30)
        assert not any(call.done() for call in calls)
    finally:
        release.set()
    assert {"waited"} == {answer.output for answer in await asyncio.gather(*calls)}


async def test_a_sync_tool_sees_the_context_variables_of_its_caller() -> None:
    """Traces and logs know in a thread which run they belong to."""
    _owner.set("run_7")

    def owner() -> str:
        return _owner.get()

    assert "run_7" == (await called(owner)).output


class _Declined(Exception):
    pass


class _Panic(BaseException):
    """What an extension written in Rust raises."""


def _stop() -> None:
    raise StopIteration(SECRET)


def _panic() -> None:
    raise _Panic(SECRET)


def _exit() -> None:
    raise SystemExit(SECRET)


def _decline() -> None:
    raise _Declined(SECRET)


def _unwritable() -> object:
    return object()


def _half() -> str:
    return "\ud83d"


def _book() -> str:
    return "x" * (MAX_OUTPUT_BYTES + 1)


@pytest.mark.parametrize(
    ("function", "error"),
    [
        (_decline, "_Declined"),
        (_exit, "SystemExit"),
        (_panic, "_Panic"),
        # As Python names it once it has left a coroutine.
        (_stop, "RuntimeError"),
        (_unwritable, "PydanticSerializationError"),
        (_half, "UnicodeEncodeError"),
        (_book, "its output is over 511,999 bytes"),
    ],
)
@pytest.mark.parametrize("is_async", [False, True])
async def test_an_error_is_an_answer(
    function: Callable[[], Any], error: str, is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The model gets the class, the log where it was raised, and nobody what it says."""

    async def later() -> Any:
        return function()

    answer = await asyncio.wait_for(called(later if is_async else function), 30)

    assert ToolAnswer(f"The tool work failed: {error}.", AnswerKind.FAILED, error) == answer
    [record] = [record for record in caplog.records if record.name == "runlane.tools.answer"]
    assert ("run_1", "call_1") == (record.__dict__["run_id"], record.__dict__["call_id"])
    assert "invoke" in record.getMessage()
    assert SECRET not in caplog.text
    assert None is record.exc_info


async def test_invalid_arguments_are_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    """The tool doesn't run, the model may mend them, and the log knows nothing of them."""
    ran = []

    def work(count: int) -> None:
        ran.append(count)

    answer = await called(work, f'{{"count": "{SECRET}"}}')

    assert AnswerKind.INVALID_ARGUMENTS == answer.kind
    assert "- count: Input should be a valid integer" in answer.output
    assert [] == ran
    assert SECRET not in answer.output + caplog.text


async def test_a_tool_that_hangs_is_given_up() -> None:
    """After its timeout the model is told that nobody knows, sync or async."""
    release = threading.Event()

    async def later() -> None:
        await asyncio.sleep(3600)

    async def stubborn() -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            raise ValueError(SECRET) from None

    def wait() -> None:
        release.wait(60)

    try:
        for function in (later, stubborn, wait):
            answer = await asyncio.wait_for(called(function, timeout=0.05), 30)

            assert (AnswerKind.TIMED_OUT, "TimeoutError") == (answer.kind, answer.error)
            assert "Whether it took effect is not known." in answer.output
    finally:
        release.set()


async def test_a_tools_own_timeout_is_its_failure() -> None:
    """Only ours means that nobody waited."""

    async def later() -> None:
        async with asyncio.timeout(0):
            await asyncio.sleep(3600)

    assert AnswerKind.FAILED == (await called(later)).kind


async def test_a_call_can_be_cancelled() -> None:
    """Whoever gives a call up is not told that the tool failed."""
    began = asyncio.Event()

    async def later() -> None:
        began.set()
        await asyncio.sleep(3600)

    call = asyncio.create_task(called(later))
    await asyncio.wait_for(began.wait(), 30)
    call.cancel()

    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(call, 30)


async def test_a_cancellation_inside_a_tool_is_its_failure() -> None:
    """A task of the tool's own that was cancelled doesn't look as if the call had been."""

    async def later() -> None:
        raise asyncio.CancelledError

    assert AnswerKind.FAILED == (await called(later)).kind


async def test_a_sync_wrapper_around_an_async_function_is_awaited() -> None:
    """As a decorator often makes one."""

    async def later(count: int) -> int:
        return count + 1

    @functools.wraps(later)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return later(*args, **kwargs)

    assert "2" == (await called(wrapper, '{"count": 1}')).output


async def test_a_process_full_of_hanging_tools_runs_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that hangs keeps its thread, also once nobody waits for it; others have their own."""
    monkeypatch.setattr(threads, "_running", threading.BoundedSemaphore(3))
    release = threading.Event()
    ran: list[int] = []

    @runlane.tool(timeout=0.05)
    def hang() -> None:
        """Hang."""
        release.wait(60)

    @runlane.tool(timeout=60)
    def work() -> None:
        """Work."""
        ran.append(1)

    registry = Registry.of(hang, work)
    for _ in range(2):
        assert AnswerKind.TIMED_OUT == (await registry.invoke("hang", "", context())).kind
    assert AnswerKind.RETURNED == (await registry.invoke("work", "", context())).kind
    await registry.invoke("hang", "", context())
    with pytest.raises(NoThread):
        await registry.invoke("work", "", context())
    release.set()
    for thread in [each for each in threading.enumerate() if each.name == "tool"]:
        await asyncio.to_thread(thread.join, 60)

    assert AnswerKind.RETURNED == (await registry.invoke("work", "", context())).kind
    assert [1, 1] == ran


def ping() -> str:
    """Answer."""
    return "pong"


def test_two_tools_of_one_name_are_refused() -> None:
    """Both are named by where they stand; the same one twice is one."""
    one = runlane.tool(name="a", description="A.")(lambda: 1)
    two = runlane.tool(name="a", description="A.")(lambda: 2)

    assert 1 == len(Registry.of(one, one))
    with pytest.raises(InvalidTool, match=r"Two tools are called a: .*<lambda> and .*<lambda>"):
        Registry.of(one, two)


def test_a_decorator_above_the_declaration_is_not_left_out_in_silence() -> None:
    """It would copy the declaration, and what it adds would never run."""

    @runlane.tool
    def inner() -> str:
        """Answer."""
        return "inner"

    wrapped = functools.wraps(inner)(lambda: "outer")

    with pytest.raises(InvalidTool, match=r"Tool inner: put @runlane\.tool above its other"):
        Registry.of(wrapped)


async def test_what_is_no_tool_is_refused() -> None:
    """A function without the decorator, and a name that nobody registered."""
    with pytest.raises(InvalidTool, match=r"put @runlane\.tool above it"):
        Registry.of(ping)
    with pytest.raises(ToolNotFound, match="No tool is called 'pong'; registered are: none"):
        await Registry().invoke("pong", "{}", context())


def test_schemas_are_added_to_those_given() -> None:
    """After the caller's own, by name; the caller's mapping stays as it was."""
    b = runlane.tool(name="b", description="B.")(ping)
    a = runlane.tool(name="a", description="A.")(lambda: 1)
    registry = Registry.of(b, a)
    given = {"assistant_id": "x", "tools": [{"type": "code_interpreter"}]}

    added = registry.added_to(given)

    assert "x" == added["assistant_id"]
    assert ["code_interpreter", "a", "b"] == [
        tool["function"]["name"] if "function" in tool else tool["type"] for tool in added["tools"]
    ]
    assert 1 == len(given["tools"])
    assert registry.definitions() == registry.added_to({})["tools"]


def test_schemas_that_can_not_be_added_are_refused() -> None:
    """A name twice, too many for the protocol, none at all: said before anything is sent."""
    many = [runlane.tool(name=f"t{n}", description="T.")(lambda: 1) for n in range(20)]
    mine = {"type": "function", "function": {"name": "t3"}}

    with pytest.raises(InvalidRequest, match="The tool t3 is given in tools, and registered too"):
        Registry.of(*many).added_to({"tools": [mine]})
    with pytest.raises(InvalidRequest, match=r"at most 20 tools; these are 21, 20 of them"):
        Registry.of(*many).added_to({"tools": [{"type": "code_interpreter"}]})
    with pytest.raises(InvalidRequest, match="No tool is registered"):
        Registry().added_to({})
