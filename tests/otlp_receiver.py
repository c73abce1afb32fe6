"""A collector that takes traces over HTTP, as OpenTelemetry's exporters send them."""

import gzip
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True)
class ReceivedSpan:
    """One span as it came in."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]
    seconds: float
    service: str
    raw: str
    """All of it, as text."""


class OtlpReceiver:
    """Listens on a free port of loopback."""

    def __init__(self) -> None:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                receiver.take(ExportTraceServiceRequest.FromString(body))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.spans: list[ReceivedSpan] = []
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def of_run(self, run_id: str) -> list[ReceivedSpan]:
        """Return the spans that say they are about the run."""
        return [span for span in self.spans if span.attributes.get("runlane.run_id") == run_id]

    def take(self, request: ExportTraceServiceRequest) -> None:
        """Keep what an exporter sent."""
        for resource in request.resource_spans:
            of_process = _attributes(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.spans += [
                    ReceivedSpan(
                        name=span.name,
                        trace_id=span.trace_id.hex(),
                        span_id=span.span_id.hex(),
                        parent_id=span.parent_span_id.hex(),
                        attributes=_attributes(span.attributes),
                        seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                        service=of_process["service.name"],
                        raw=str(span),
                    )
                    for span in scope.spans
                ]

    def close(self) -> None:
        """Take no more."""
        self._server.shutdown()
        self._server.server_close()


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


@pytest.fixture
def otlp() -> Iterator[OtlpReceiver]:
    """A collector of this test's own."""
    receiver = OtlpReceiver()
    yield receiver
    receiver.close()
