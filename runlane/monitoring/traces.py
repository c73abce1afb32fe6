"""Whether this process takes part in traces, by OpenTelemetry's standard variables.

What needs the extra `runlane[otel]` is in `runlane.monitoring.spans`, imported only then.
"""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from temporalio.client import Interceptor

from runlane.settings import SettingsError

if TYPE_CHECKING:
    from runlane.monitoring.spans import Tracing

_EXPORTER = "OTEL_TRACES_EXPORTER"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"

_started: "list[Tracing]" = []


def wanted_by(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the variable that asks for traces; None if there are to be none.

    Raises:
        SettingsError: the variables ask for an exporter or a protocol that isn't there.
    """
    value = {name: environ.get(name, "").strip() for name in (_EXPORTER, *_ENDPOINTS, *_PROTOCOLS)}
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    exporter = value[_EXPORTER]
    variable = next((name for name in (_EXPORTER, *_ENDPOINTS) if value[name]), None)
    if variable is None or exporter == "none":
        return None
    if exporter not in ("", "otlp"):
        raise SettingsError(_EXPORTER, f"{exporter!r} isn't supported; set otlp, or none.")
    protocol = next((name for name in _PROTOCOLS if value[name]), None)
    if protocol is not None and value[protocol] != _PROTOCOL:
        problem = f"{value[protocol]!r} isn't supported; set {_PROTOCOL} (port 4318, mostly)."
        raise SettingsError(protocol, problem)
    return variable


def interceptors() -> list[Interceptor]:
    """Return what a Temporal client needs so that its runs are traced; mostly nothing.

    Raises:
        SettingsError: traces are asked for and can't be made.
    """
    tracing = _tracing()
    return [] if tracing is None else [tracing.interceptor]


def trace_upstream() -> None:
    """Let the HTTP requests of this process be spans too: for a worker, which has no others.

    Raises:
        SettingsError: traces are asked for and can't be made.
    """
    tracing = _tracing()
    if tracing is not None:
        tracing.trace_http()


def flush() -> None:
    """Send what hasn't been sent, for a moment at most; nothing is traced afterwards."""
    while _started:
        _started.pop().flush()


def _tracing() -> "Tracing | None":
    if _started:
        return _started[0]
    variable = wanted_by()
    if variable is None:
        return None
    try:
        from runlane.monitoring.spans import Tracing  # noqa: PLC0415 - only with the extra
    except ImportError:
        problem = (
            "traces need the extra `runlane[otel]`, which isn't installed. Install it, or set "
            "OTEL_SDK_DISABLED=true."
        )
        raise SettingsError(variable, problem) from None
    _started.append(Tracing())
    return _started[0]
