"""One trace a run: from the client's create over every activity and request to its end.

Made by temporalio's `TracingInterceptor`, not by its newer `OpenTelemetryPlugin`: that one is
experimental, takes over the whole process's tracer provider, which is not ours inside of somebody's
program, and shows a run's spans only when the run has ended, maybe weeks later. What this one lacks
is the length of a workflow's span, so the run's own span is added here, at its end.

The trace context travels in headers of events that are there anyway, continue-as-new included.
Arguments and outputs are in no span.
"""

import atexit
import logging
import os
import threading
import time
from typing import Any

import httpx
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor, RequestInfo
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import Span, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from temporalio import workflow
from temporalio.client import OutboundInterceptor, QueryWorkflowInput
from temporalio.contrib.opentelemetry import (
    TracingInterceptor,
    TracingWorkflowInboundInterceptor,
)
from temporalio.worker import (
    ActivityInboundInterceptor,
    ExecuteActivityInput,
    ExecuteWorkflowInput,
    WorkflowInterceptorClassInput,
)

from activities.contract import Created
from runlane.monitoring.subject import subject, subject_of
from runsapi import operation_of
from workflows.contract import RunView

FLUSH_WITHIN = 2.0
"""Seconds that the end of a process waits for its last spans to be sent."""

_SILENT_SECONDS = 600.0
_RUN_ENDED = "__runlane_run_ended"
_WORKFLOW_ID = "temporalWorkflowID"
_RUN_ID = "runlane.run_id"
_HIDE_HEADERS = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS"
_HIDDEN_HEADERS = "authorization,api-key,cookie,set-cookie"
_EXPORT_LOGGERS = (
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.otlp.common.http",
    "opentelemetry.sdk._shared_internal",
)


class Tracing:
    """Traces of this process, sent to where the standard variables say."""

    def __init__(self) -> None:
        """Join the program's own tracer provider, where it has one; else make one of ours."""
        found = trace.get_tracer_provider()
        self._own: TracerProvider | None = None
        if isinstance(found, TracerProvider):
            self._provider = found
        else:
            self._provider = self._own = _provider()
        self.interceptor = RunTracing(self._provider.get_tracer("runlane"))
        self._is_over = threading.Event()
        self._has_flushed = threading.Event()
        if self._own is not None:
            # Begun now: Python starts no thread while it ends.
            threading.Thread(target=self._flush_in_the_end, daemon=True).start()
            atexit.register(self.flush)

    def trace_http(self) -> None:
        """Make spans of the requests that httpx sends from here on."""
        hidden = os.environ.get(_HIDE_HEADERS, "")
        os.environ[_HIDE_HEADERS] = ",".join(filter(None, (hidden, _HIDDEN_HEADERS)))
        HTTPXClientInstrumentor().instrument(
            tracer_provider=self._provider, async_request_hook=_name_request
        )

    def flush(self) -> None:
        """Send what hasn't been sent, for `FLUSH_WITHIN` at most."""
        if self._own is not None:
            self._is_over.set()
            self._has_flushed.wait(FLUSH_WITHIN)

    def _flush_in_the_end(self) -> None:
        self._is_over.wait()
        if self._own is not None:
            self._own.shutdown()
        self._has_flushed.set()


class RunTracing(TracingInterceptor):
    """temporalio's tracing, with the run's own words, and without its queries."""

    def __init__(self, tracer: trace.Tracer) -> None:
        """Trace by this tracer."""
        super().__init__(tracer)
        # Baggage is the caller's, may hold anything, and would stand in the history unencrypted.
        self.text_map_propagator = TraceContextTextMapPropagator()

    def intercept_client(self, next: OutboundInterceptor) -> OutboundInterceptor:
        """Trace what changes a run; whoever polls by queries would make a trace a second."""
        return _Untraced(super().intercept_client(next), next)

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        """Trace activities, and say what they are about."""
        return super().intercept_activity(_Described(next))

    def workflow_interceptor_class(
        self, input: WorkflowInterceptorClassInput
    ) -> type[TracingWorkflowInboundInterceptor]:
        """Trace workflows, and the run as a whole when it has ended."""
        super().workflow_interceptor_class(input)
        input.unsafe_extern_functions[_RUN_ENDED] = self._run_ended
        return _TracedRun

    def _run_ended(self, carrier: dict[str, str], began: float, view: RunView) -> None:
        run, runlane = view.run, view.runlane
        attributes: dict[str, str | int] = {
            _RUN_ID: run.id,
            "runlane.status": str(run.status),
            "runlane.attempt": runlane.attempt,
            "runlane.rounds": runlane.rounds,
            "runlane.thread_id": run.thread_id,
            "runlane.upstream": "" if runlane.upstream is None else runlane.upstream.url,
        }
        span = self.tracer.start_span(
            "Run",
            self.text_map_propagator.extract(carrier),
            SpanKind.INTERNAL,
            attributes,
            start_time=int(began * 1e9),
        )
        span.end()


class _Untraced(OutboundInterceptor):
    def __init__(self, traced: OutboundInterceptor, untraced: OutboundInterceptor) -> None:
        super().__init__(traced)
        self._untraced = untraced

    async def query_workflow(self, input: QueryWorkflowInput) -> Any:
        return await self._untraced.query_workflow(input)


class _Described(ActivityInboundInterceptor):
    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        about = subject_of(input)
        attributes = {
            _RUN_ID: about.run_id,
            "runlane.attempt": about.attempt,
            "runlane.try": about.tries,
            "runlane.thread_id": about.thread_id,
            "runlane.upstream": about.upstream,
        }
        known = {name: value for name, value in attributes.items() if value is not None}
        span = trace.get_current_span()
        span.set_attributes(known)
        result = await super().execute_activity(input)
        if isinstance(result, Created):
            # A first create is not told where it will take place.
            span.set_attribute("runlane.upstream", result.upstream.url)
        return result


class _TracedRun(TracingWorkflowInboundInterceptor):
    def __init__(self, next: Any) -> None:
        super().__init__(next)
        self.text_map_propagator = TraceContextTextMapPropagator()

    async def execute_workflow(self, input: ExecuteWorkflowInput) -> Any:
        result = await super().execute_workflow(input)
        header = workflow.info().headers.get(self.header_key)
        if header and not workflow.unsafe.is_replaying():
            carrier = self.payload_converter.from_payloads([header])[0]
            began = input.args[0].request.created_at
            workflow.extern_functions()[_RUN_ENDED](carrier, began, result)
        return result


class _RunIds(SpanProcessor):
    """Gives the SDK's spans our word for the run."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        run_id = (span.attributes or {}).get(_WORKFLOW_ID)
        if run_id is not None:
            span.set_attribute(_RUN_ID, run_id)


class _Seldom(logging.Filter):
    """Lets one complaint pass in a while: a collector that is down is complained of each second."""

    def __init__(self) -> None:
        super().__init__()
        self._silent_until = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno < logging.ERROR or time.monotonic() < self._silent_until:
            return False
        self._silent_until = time.monotonic() + _SILENT_SECONDS
        return True


def _provider() -> TracerProvider:
    seldom = _Seldom()
    for name in _EXPORT_LOGGERS:
        logging.getLogger(name).addFilter(seldom)
    resource = Resource.create()
    if str(resource.attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        resource = resource.merge(Resource({SERVICE_NAME: "runlane"}))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(_RunIds())
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


async def _name_request(span: trace.Span, request: RequestInfo) -> None:
    url = httpx.URL(str(request.url)).copy_with(query=None)
    path = url.path
    operation = operation_of(request.method.decode(), path[path.find("/threads") :])
    span.update_name(f"upstream {operation}")
    about = subject()
    # Under both of the names that the instrumentation may use.
    attributes = {"http.url": str(url), "url.full": str(url)}
    if about is not None:
        attributes[_RUN_ID] = about.run_id
    span.set_attributes(attributes)
