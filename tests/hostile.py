"""An upstream that wishes us ill: a whole server, of which some threads answer anything at all."""

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

Attack = Callable[[asyncio.StreamWriter], Awaitable[None]]
"""What is written instead of an answer."""

_OK = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
_BOMB = gzip.compress(b" " * 100_000_000)
_DEEP = {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}


class HostileUpstream:
    """One round of tools on each thread; `attacks` says which thread answers how, and to what.

    Attributes:
        url: The base URL of its API.
        attacks: By thread: what is attacked, and how. `leg` is every look at the run; `create` and
            `submit` are that request, which takes effect all the same, and whatever follows it.
        requests: Method, path and the key that came, in order.
        creates, submits: By thread, how many took effect.
    """

    def __init__(self) -> None:
        self.url = ""
        self.attacks: dict[str, tuple[str, Attack]] = {}
        self.requests: list[tuple[str, str, str]] = []
        self.creates: dict[str, int] = {}
        self.submits: dict[str, int] = {}
        self._runs: dict[str, dict[str, Any]] = {}
        self._connections: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["HostileUpstream"]:
        """Listen on a free port of loopback."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        try:
            yield self
        finally:
            server.close()
            for task in list(self._connections):
                task.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                while await self._exchange(reader, writer):
                    pass
        finally:
            self._connections.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        method, path, _ = head.split(" ", 2)
        headers = dict(
            line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line
        )
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        self.requests.append((method, path, headers.get("authorization", "")))
        parts = path.partition("?")[0].split("/")[2:]
        thread_id = parts[1]
        kind, answer = self._effect(method, thread_id, parts[3:], json.loads(body or "{}"))
        attacked, attack = self.attacks.get(thread_id, ("", None))
        done = {"create": self.creates, "submit": self.submits}.get(attacked, {})
        if attack is not None and (attacked == kind or done.get(thread_id)):
            await attack(writer)
            return False
        text = json.dumps(answer).encode()
        writer.write(f"{_OK}Content-Length: {len(text)}\r\n\r\n".encode() + text)
        await writer.drain()
        return True

    def _effect(
        self, method: str, thread_id: str, rest: list[str], body: dict[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        run = self._runs.get(thread_id, {})
        if method == "POST" and not rest:
            self.creates[thread_id] = self.creates.get(thread_id, 0) + 1
            run = {"id": f"run_{thread_id}", "status": "queued", "metadata": body["metadata"]}
            run["created_at"] = int(time.time())
            self._runs[thread_id] = run
            return "create", run
        if rest and rest[-1] == "submit_tool_outputs":
            self.submits[thread_id] = self.submits.get(thread_id, 0) + 1
            run |= {"status": "completed", "required_action": None}
            return "submit", run
        if not rest or rest[-1] == "steps":
            runs = [run] if run and not rest else []
            return "list", {"object": "list", "data": runs, "has_more": False}
        if rest[-1] == "cancel":
            run["status"] = "cancelled"
        elif run["status"] == "queued":
            call = {"id": "call_1", "type": "function", "function": {"name": "f"}}
            action = {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": [call]}}
            run |= {"status": "requires_action", "required_action": action}
        return "leg", run


def says(text: bytes, *headers: str, status: str = "200 OK") -> Attack:
    """Answer with that body, whatever its headers say of it."""

    async def attack(writer: asyncio.StreamWriter) -> None:
        lines = "".join(f"{header}\r\n" for header in headers)
        writer.write(f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + text)
        await writer.drain()

    return attack


def endlessly(start: bytes, more: bytes, pause: float = 0.0) -> Attack:
    """Answer without an end."""

    async def attack(writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while True:
            writer.write(more)
            await writer.drain()
            await asyncio.sleep(pause)

    return attack


def redirect(url: str) -> Attack:
    """Send whoever asks, and its key, to somebody else."""
    return says(b"", f"Location: {url}", "Content-Length: 0", status="307 Temporary Redirect")


def _nested_run() -> bytes:
    deep = b'{"a":' * 300 + b"1" + b"}" * 300
    text = json.dumps({"id": "run_1", "status": "queued", **_DEEP}).encode()
    return text.replace(b'"parameters": {}', b'"parameters": ' + deep)


ATTACKS: dict[str, tuple[Attack, str]] = {
    "trickle": (endlessly(f"{_OK}\r\n".encode(), b" ", 0.05), "in time"),
    "flood": (endlessly(f"{_OK}\r\n".encode(), b" " * 65_536), "larger than"),
    "hundred_mb": (
        endlessly(f"{_OK}Content-Length: 104857600\r\n\r\n".encode(), b"[" * 65_536),
        "larger than",
    ),
    "bomb": (says(_BOMB, "Content-Encoding: gzip"), "larger than"),
    "brotli": (says(b"x", "Content-Encoding: br"), "nobody asked for"),
    "nested": (says(b"[" * 100_000), "no JSON"),
    "nested_objects": (says(b'{"a":' * 100_000), "no JSON"),
    "nested_run": (says(_nested_run()), "no JSON"),
    "no_utf8": (says(b'{"id": "\xff\xfe", "status": "queued"}'), "no JSON"),
    "id_of_another_path": (
        says(b'{"id": "../../admin", "status": "queued"}'),
        "can't stand in a path",
    ),
    "no_id": (says(b'{"status": "queued"}'), "id (missing)"),
    "huge_header": (says(b"{}", "X-Big: " + "x" * 200_000), "No answer"),
    "huge_type": (says(b"x", "Content-Type: " + "x" * 50_000), "no JSON (xxx"),
    "huge_reason": (says(b"", "Content-Length: 0", status="503 " + "x" * 50_000), "503"),
    "endless_header": (endlessly(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 1_000), "No answer"),
    "endless_continue": (
        endlessly(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.01),
        "in time",
    ),
    "too_late": (
        says(b"{}", "Retry-After: 1e309", "Content-Length: 2", status="503 Wait"),
        "503",
    ),
    "status_600": (says(b"{}", "Content-Length: 2", status="600 Odd"), "600"),
    "no_content": (says(b"", status="204 No Content"), "no JSON"),
    "cut_off": (says(b'{"id": "run_1"', "Content-Length: 1000"), "No answer"),
    "cut_short": (says(b'{"id": "run_1", "status": "queued"}', "Content-Length: 9"), "no JSON"),
    "no_http": (says(b"", status="\r\n\r\nSSH-2.0-OpenSSH"), "No answer"),
}
"""How to answer, and words of what the run then says."""
