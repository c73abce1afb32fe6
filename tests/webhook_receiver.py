"""Somebody who gets webhooks: a real HTTP server in a thread, which does as it is told."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from standardwebhooks import Webhook

SECRET = "whsec_" + "QUJD" * 10

HANG = 0
"""Instead of a status: take the request, and say nothing until `WebhookReceiver.stop_hanging`."""


class Got(NamedTuple):
    """A request, as it came in."""

    id: str
    at: float
    """By `time.monotonic`."""
    headers: dict[str, str]
    body: str
    status: int
    """How it was answered."""

    def verified(self, secret: str = SECRET) -> dict[str, Any]:
        """Return what it says, once its signature is found to be right."""
        found: dict[str, Any] = Webhook(secret).verify(self.body, self.headers)
        return found


class WebhookReceiver:
    """The server as tests see it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.status = 204
        """What it answers from now on."""
        self.headers: dict[str, str] = {}
        self.got: list[Got] = []
        self._may_answer = threading.Event()

    def taken(self) -> list[dict[str, Any]]:
        """Return what it took, in order: verified, and each with its id."""
        return [got.verified() | {"id": got.id} for got in self.got if 200 <= got.status < 300]

    def stop_hanging(self) -> None:
        """Let go whoever waits."""
        self._may_answer.set()

    def take(self, handler: BaseHTTPRequestHandler) -> None:
        """Handle one request."""
        body = handler.rfile.read(int(handler.headers["Content-Length"])).decode()
        headers = {name.lower(): value for name, value in handler.headers.items()}
        status = self.status
        self.got.append(Got(headers["webhook-id"], time.monotonic(), headers, body, status))
        if status == HANG:
            self._may_answer.wait()
            return
        handler.send_response(status)
        for name, value in self.headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()


@contextmanager
def webhook_receiver() -> Iterator[WebhookReceiver]:
    """Run one on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            receiver.take(self)

        def log_message(self, *_args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver = WebhookReceiver(f"http://127.0.0.1:{server.server_port}/approvals?key=4711")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.stop_hanging()
        server.shutdown()
        server.server_close()
        thread.join()
