"""The parts by which a worker is watched, where a process would show them late or never."""

import asyncio
import io
import json
import logging
import re
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from temporalio.client import Client
from temporalio.exceptions import ApplicationError
from temporalio.runtime import Runtime, TelemetryConfig

from ledger import Ledger, Location
from ledger.stops import Scope, Stop
from runlane.api import watching
from runlane.monitoring import endpoint, logs, metrics, traces
from runlane.monitoring.endpoint import Endpoint
from runlane.monitoring.figures import RunFigures, _Figures
from runlane.monitoring.readiness import Readiness
from runlane.monitoring.sdk_metrics import SdkMetrics
from runlane.monitoring.spans import Tracing
from runlane.monitoring.stops import StopFigures
from runlane.settings import Address, LogFormat, SettingsError
from runsapi import (
    APIConnectionError,
    APIResponseError,
    APIStatusError,
    APITimeoutError,
    HeldBackError,
    RunsAPIError,
)

ROOT = Path(__file__).parents[2]
LOOPBACK = Address("127.0.0.1", 0)


def samples(registry: CollectorRegistry) -> dict[str, float]:
    """Return what a scrape shows, by name and label values."""
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in families
        for sample in family.samples
    }


async def test_an_event_loop_that_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """The endpoint says so, from its own thread, and shows metrics all the same."""
    monkeypatch.setattr(endpoint, "TURNS_WITHIN", 0.2)
    answers: dict[str, httpx.Response] = {}

    def ask(url: str) -> None:
        for path in ("/healthz", "/readyz", "/metrics"):
            answers[path] = httpx.get(url + path, timeout=30)

    served = Endpoint(LOOPBACK, metrics.REGISTRY, figures=[RunFigures()], readiness=Readiness())
    async with served:
        asking = asyncio.create_task(asyncio.to_thread(ask, served.url))
        await asyncio.sleep(0)
        deadline = time.monotonic() + 30
        while len(answers) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)  # what must not be done, and is
        await asking
        healthy = await asyncio.to_thread(httpx.get, served.url + "/healthz", timeout=30)

    assert 503 == answers["/healthz"].status_code
    assert "hasn't answered for 0.2 s" in answers["/healthz"].json()["reason"]
    assert 503 == answers["/readyz"].status_code
    assert "runlane_polls_total" in answers["/metrics"].text
    assert 200 == healthy.status_code


async def test_figures_that_can_not_be_fetched() -> None:
    """A scrape works, shows no figure that is not known, and counts the failure."""
    client = await Client.connect("127.0.0.1:9", lazy=True)
    figures = RunFigures(pace=0, patience=30)
    figures.use(client)
    registry = CollectorRegistry()
    registry.register(figures)

    await figures.refresh()

    assert {"runlane_visibility_errors_total": 1.0} == samples(registry)


async def test_figures_that_take_long() -> None:
    """Nobody who scrapes waits for them longer than said, and no second fetch is begun."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        figures = RunFigures(pace=0, patience=0.1)
        figures.use(await Client.connect(f"127.0.0.1:{port}", lazy=True))
        await figures.refresh()
        fetching = figures._fetching
        await figures.refresh()

        assert fetching is not None
        assert fetching is figures._fetching
        assert not fetching.done()
        fetching.cancel()
        await asyncio.wait([fetching])


async def test_not_ready_before_there_are_workers() -> None:
    """The endpoint is there before the worker has connected."""
    assert "not connected to Temporal yet" == await Readiness().problem()


def test_temporals_metrics_by_prometheus_conventions() -> None:
    """Counters end in _total, durations are seconds, and buckets add up."""
    sdk = SdkMetrics()
    runtime = Runtime(telemetry=TelemetryConfig(metrics=sdk.buffer, attach_service_name=False))
    registry = CollectorRegistry()
    registry.register(sdk)
    runtime.metric_meter.create_counter("things", "Things.").add(2, {"eager": True})
    lasting = runtime.metric_meter.create_histogram_float("lasting", "Time.", "s")
    for seconds in (0.004, 0.3, 1000.0):
        lasting.record(seconds)
    runtime.metric_meter.create_gauge("level", "Level.").set(7)
    sdk.drain()
    runtime.metric_meter.create_counter("things", "Things.").add(1, {"eager": True})

    found = samples(registry)

    assert 3 == found["things_total true"]
    assert 7 == found["level"]
    assert 1 == found["lasting_seconds_bucket 0.005"]
    assert 1 == found["lasting_seconds_bucket 0.25"]
    assert 2 == found["lasting_seconds_bucket 0.5"]
    assert 2 == found["lasting_seconds_bucket 300"]
    assert 3 == found["lasting_seconds_bucket +Inf"]
    assert 3 == found["lasting_seconds_count"]
    assert 1000.304 == pytest.approx(found["lasting_seconds_sum"])


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (HeldBackError("no turn"), "held_back"),
        (APITimeoutError("late"), "timeout"),
        (APIConnectionError("refused"), "connection"),
        (APIResponseError("no JSON", status_code=200, url=""), "unreadable"),
        (APIStatusError(401, "", headers={}, url=""), "credentials"),
        (APIStatusError(404, "", headers={}, url=""), "not_found"),
        (APIStatusError(429, "", headers={}, url=""), "rate_limited"),
        (APIStatusError(429, "", headers={}, url="", code="insufficient_quota"), "quota"),
        (APIStatusError(503, "", headers={}, url=""), "server_error"),
        (APIStatusError(400, "", headers={}, url=""), "refused"),
    ],
)
def test_an_errors_kind(error: RunsAPIError, kind: str) -> None:
    """Each error has one kind, and all kinds are shown from the start."""
    assert kind == metrics.error_kind(error)
    assert f"runlane_upstream_errors_total {kind} runs.create" in samples(metrics.REGISTRY)


def test_the_page_has_each_metric() -> None:
    """Name, type and labels as they are served; and each kind of error."""
    page = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
    told = set(re.findall(r"^\| `(runlane_\w+)` \| (\w+) \| (.*?) ?\|", page, re.MULTILINE))
    served = set()
    names = set()
    watching.REQUESTS.labels("none", "GET", "404")
    watching.SECONDS.labels("none", "GET")
    registries = (metrics.REGISTRY, watching.REGISTRY)
    own = [family for registry in registries for family in registry.collect()]
    for family in [*own, *_shown_figures()]:
        if family.name.startswith("runlane_"):
            labels = {name: None for sample in family.samples for name in sample.labels}
            told_labels = ", ".join(f"`{name}`" for name in sorted(labels, reverse=True))
            suffix = "_total" if family.type == "counter" else ""
            served.add((family.name + suffix, family.type, told_labels.replace(", `le`", "")))
            names |= {family.name, *(sample.name for sample in family.samples)}

    assert told == served
    assert {"runlane_" + word for word in re.findall(r"\brunlane_(\w+)", page)} <= names
    for word in (*metrics.ERROR_KINDS, *metrics.OPERATIONS):
        assert f"`{word}`" in page


def _shown_figures() -> list[Metric]:
    figures = RunFigures()
    figures._figures = _Figures(runs={"queued": 1}, blocked={"quota": 1}, waiting_since=1.0, at=2.0)
    stops = StopFigures()
    since = datetime(2026, 11, 23, tzinfo=UTC)
    stops._stops = [Stop(scope=Scope.ALL, by="ann", reason="prices", since=since)]
    return [*figures.collect(), *stops.collect()]


def logged(log_format: LogFormat, say: Callable[[logging.Logger], Any]) -> str:
    """Return what a log of this format holds after somebody has said something."""
    stream = io.StringIO()
    logger = logging.getLogger("tests.somebody")
    handler = logs.handler(log_format, stream)
    logger.addHandler(handler)
    try:
        say(logger)
    finally:
        logger.removeHandler(handler)
    return stream.getvalue()


def _fail(error: Exception) -> Callable[[logging.Logger], None]:
    def say(logger: logging.Logger) -> None:
        try:
            raise error
        except type(error):
            logger.warning("Completing activity as failed", exc_info=True)

    return say


def test_a_failure_of_ours_is_one_line() -> None:
    """Whatever an upstream said in it, it forges no second line."""
    error = ApplicationError("it said:\n2026-01-01 ERROR forged", type="UpstreamUnavailable")

    (line,) = logged(LogFormat.TEXT, _fail(error)).splitlines()

    assert line.endswith("WARNING UpstreamUnavailable: it said: 2026-01-01 ERROR forged")


def test_a_failure_nobody_thought_of_keeps_its_traceback() -> None:
    """It is a bug, and where it happened is what matters."""
    text = logged(LogFormat.TEXT, _fail(KeyError("a")))

    assert "WARNING The activity failed: KeyError\nTraceback" in text
    assert text.endswith("KeyError: 'a'\n")


def test_the_sdks_core_says_a_thing_once_a_minute() -> None:
    """Twenty pollers complain of each try. Of what comes with it, only the reason is shown."""
    stream = io.StringIO()
    handler = logs.handler(LogFormat.TEXT, stream)
    error = 'Status { code: Unavailable, message: "tcp connect error", source: Some(…) }'
    for tries in range(3):
        record = logging.LogRecord(
            "temporalio.core", logging.WARNING, "", 0, f"gRPC call poll retried {tries}", (), None
        )
        record.temporal_log = SimpleNamespace(fields={"error": error, "completion": "secret"})
        handler.handle(record)

    (line,) = stream.getvalue().splitlines()
    assert line.endswith("gRPC call poll retried 0; error: Unavailable: tcp connect error")


def test_the_dashboard_can_be_imported() -> None:
    """Panels have ids and places of their own, and ask the data source that is chosen."""
    text = (ROOT / "deploy" / "grafana" / "runlane.json").read_text(encoding="utf-8")
    dashboard = json.loads(text)
    panels = dashboard["panels"]
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    taken: set[tuple[int, int]] = set()

    assert {"title", "uid", "schemaVersion", "time"} <= dashboard.keys()
    assert {"datasource", "job"} == variables
    assert len(panels) == len({panel["id"] for panel in panels})
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        if panel["type"] != "row":
            assert panel["description"]
            assert panel["targets"]
        for target in panel.get("targets", ()):
            assert "${datasource}" == target["datasource"]["uid"]
            assert target["expr"].count("(") == target["expr"].count(")")
            assert 'job=~"$job"' in target["expr"]


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, "OTEL_TRACES_EXPORTER"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "x", "OTEL_TRACES_EXPORTER": "none"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "x", "OTEL_SDK_DISABLED": "True"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, None),
    ],
)
def test_what_asks_for_traces(environ: dict[str, str], wanted: str | None) -> None:
    """The standard variables, empty ones counting as unset."""
    assert wanted == traces.wanted_by(environ)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("OTEL_TRACES_EXPORTER", "zipkin"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
)
def test_traces_that_can_not_be_made(variable: str, value: str) -> None:
    """The error names the variable and what to set."""
    with pytest.raises(SettingsError, match=f"^{variable}: '{value}' isn't supported; set "):
        traces.wanted_by({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", variable: value})


async def test_a_collector_that_never_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of a process waits for its last spans for a moment only."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        port = silent.getsockname()[1]
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60")
        tracing = Tracing()
        tracing.interceptor.tracer.start_span("last").end()

        began = time.monotonic()
        await asyncio.to_thread(tracing.flush)

        assert 1 < time.monotonic() - began < 20


async def test_a_stop_is_seen_by_who_scrapes(tmp_path: Path) -> None:
    """At once, with who and why; and as it was last, while the ledger doesn't answer."""
    figures, registry = StopFigures(), CollectorRegistry()
    registry.register(figures)
    await figures.refresh()
    assert {} == samples(registry)
    async with await Ledger.open(Location.in_directory(tmp_path)) as ledger:
        figures.use(ledger)
        since = datetime(2026, 11, 23, tzinfo=UTC)
        await ledger.stops.stop(
            Stop(scope=Scope.TOOL, target="refund", by="ann", reason="two at once", since=since)
        )
        await figures.refresh()
        assert {"runlane_stopped ann two at once tool refund": 1.0} == samples(registry)

    await figures.refresh()
    assert {"runlane_stopped ann two at once tool refund": 1.0} == samples(registry)
