"""A server of somebody else's, in a process of its own: what it answers stands in the path."""

from __future__ import annotations

import gzip
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import httpx

_START_SECONDS = 30.0


class ToolServer:
    """The server as tests see it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def received(self) -> list[dict[str, Any]]:
        """Return what it got so far: method, path, query, headers in lower case, body."""
        got: list[dict[str, Any]] = httpx.get(f"{self.url}/_received", trust_env=False).json()
        return got


@contextmanager
def tool_server() -> Iterator[ToolServer]:
    """Run the server; it ends with its standard input, so that nothing is left behind."""
    process = subprocess.Popen(
        (sys.executable, "-m", "tests.tool_server"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"the server ended with {process.wait(_START_SECONDS)}"
        yield ToolServer(line.strip())
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(_START_SECONDS)
        assert process.stdout is not None
        process.stdout.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    got: list[dict[str, Any]] = []  # noqa: RUF012 - one server a process

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        if parts.path == "/_received":
            self._send(json.dumps(self.got).encode())
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.got.append(
            {
                "method": self.command,
                "path": parts.path,
                "query": parts.query,
                "headers": headers,
                "body": body,
            }
        )
        getattr(self, f"_{parts.path.split('/')[1]}")()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815 - so the base class wants it

    def _send(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def _text(self) -> None:
        self._send("größe".encode())

    def _punycode(self) -> None:
        text = b"a" * 20_000 + b"-" + b"bcd" * 6_000
        self._send(text, Content_Type="text/plain; charset=punycode")

    def _latin(self) -> None:
        self._send("größe".encode("latin-1"), Content_Type="text/plain; charset=latin-1")

    def _binary(self) -> None:
        self._send(b"\xff\xfe\xfd")

    def _nothing(self) -> None:
        self._send(b"", 204)

    def _status(self) -> None:
        self._send(b"the order of 4711-secret", int(self.path.rsplit("/", 1)[1]))

    def _redirect(self) -> None:
        self._send(b"", 307, Location="/text")

    def _cookie(self) -> None:
        self._send(b"ok", Set_Cookie="session=1; Path=/")

    def _packed(self) -> None:
        self._send(gzip.compress(b"0" * 10_000_000), Content_Encoding="gzip")

    def _endless(self) -> None:
        # Without a length, and without an end.
        self.send_response(200)
        self.end_headers()
        while True:
            self.wfile.write(b"x" * 65_536)

    def _slow(self) -> None:
        # A byte now and then, so that no time between two of them is long.
        self.send_response(200)
        self.end_headers()
        while True:
            self.wfile.write(b".")
            time.sleep(0.02)

    def _lost(self) -> None:
        self.connection.shutdown(socket.SHUT_RDWR)

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            self.close_connection = True

    def log_message(self, *_args: object) -> None:
        pass


def _serve() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"http://127.0.0.1:{server.server_port}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    _serve()
