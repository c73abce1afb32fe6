"""The log of a worker: each line says which run it is about, as text or as JSON.

Nothing here may show arguments, outputs or keys. Temporal's SDK logs whole completions at DEBUG,
so its level stays at INFO.
"""

import logging
import re
import sys
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO

from pythonjsonlogger.core import RESERVED_ATTRS
from pythonjsonlogger.json import JsonFormatter
from temporalio import activity, workflow
from temporalio.exceptions import ApplicationError
from temporalio.runtime import (
    LogForwardingConfig,
    LoggingConfig,
    Runtime,
    TelemetryConfig,
    TelemetryFilter,
)

from runlane.monitoring.sdk_metrics import SdkMetrics
from runlane.monitoring.subject import subject
from runlane.settings import LogFormat

_FAILED = "Completing activity as failed"
_CORE = "temporalio.core"
_LONGEST_CORE_FIELD = 300
# What of a line of the SDK's core tells anything, and can't hold a payload.
_CORE_FIELDS = ("error", "grpc_status", "call_name", "retry_attempt", "task_queue", "reason")
_GRPC_STATUS = re.compile(r'Status \{ code: (\w+), message: "([^"]*)"')
_REPEAT_SECONDS = 60.0
_QUIET = {
    # Every request with its whole URL, at a level where it drowns everything else.
    "httpx": logging.WARNING,
    "uvicorn": logging.WARNING,
}
_NOT_SHOWN = ("temporal_activity", "temporal_workflow", "temporal_log", "about", "taskName")


def set_up(log_format: LogFormat) -> None:
    """Send the process's log to standard error, in this format, from INFO on."""
    logging.basicConfig(level=logging.INFO, handlers=[handler(log_format, sys.stderr)], force=True)
    logging.captureWarnings(capture=True)
    sys.excepthook = _tell_of_crash
    for name, level in _QUIET.items():
        logging.getLogger(name).setLevel(level)
    # As a dict behind each message it is for nobody; the filter says it in words.
    activity.logger.activity_info_on_message = False
    workflow.logger.workflow_info_on_message = False


def handler(log_format: LogFormat, stream: TextIO) -> logging.Handler:
    """Return what writes records to a stream in this format, each with what it is about."""
    made = logging.StreamHandler(stream)
    made.addFilter(_About())
    made.setFormatter(_json() if log_format is LogFormat.JSON else _text())
    return made


def are_json() -> bool:
    """Tell whether the log is JSON."""
    return any(isinstance(each.formatter, JsonFormatter) for each in logging.getLogger().handlers)


def start_runtime(metrics: SdkMetrics | None = None) -> None:
    """Make the SDK's core log through here, and count into `metrics`. Before the first connect."""
    forwarding = LogForwardingConfig(
        logging.getLogger(_CORE),
        append_target_to_name=False,
        prepend_target_on_message=False,
        append_log_fields_to_message=False,
    )
    level = TelemetryFilter(core_level="WARN", other_level="ERROR")
    telemetry = TelemetryConfig(
        logging=LoggingConfig(filter=level, forwarding=forwarding),
        metrics=None if metrics is None else metrics.buffer,
        attach_service_name=False,
    )
    Runtime.set_default(Runtime(telemetry=telemetry), error_if_already_set=False)


def silence_runtime() -> None:
    """Let the SDK's core log nothing: by itself it writes to standard output. Before a connect."""
    Runtime.set_default(
        Runtime(telemetry=TelemetryConfig(logging=None)), error_if_already_set=False
    )


def _tell_of_crash(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    about = (kind, error, traceback)
    logging.getLogger("runlane.worker").critical("Ended by %s", kind.__name__, exc_info=about)


def _text() -> logging.Formatter:
    return logging.Formatter("%(asctime)s %(levelname)s %(message)s%(about)s")


def _json() -> logging.Formatter:
    return JsonFormatter(
        ["time", "levelname", "name", "message"],
        rename_fields={"levelname": "level", "name": "logger", "exc_info": "traceback"},
        reserved_attrs=[*RESERVED_ATTRS, *_NOT_SHOWN],
    )


class _About(logging.Filter):
    """Gives records the words that say what they are about, and failures their readable form."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        _make_readable(record)
        if record.name == _CORE and self._is_repeated(record):
            return False
        record.time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        facts = _facts(record)
        for name, value in facts.items():
            setattr(record, name, value)
        about = [str(facts["run_id"])] if "run_id" in facts else []
        if "attempt" in facts:
            about.append(f"attempt {facts['attempt']}")
        if "phase" in facts:
            about.append(str(facts["phase"]))
        if facts.get("try", 1) != 1:
            about.append(f"try {facts['try']}")
        record.about = f" [{' '.join(about)}]" if about else ""
        return True

    def _is_repeated(self, record: logging.LogRecord) -> bool:
        """Tell whether the same was said in the last minute: while Temporal is away, each of the
        core's twenty pollers complains of each try."""
        self._said = {
            k: at for k, at in self._said.items() if record.created - at < _REPEAT_SECONDS
        }
        text = re.sub(r"\d+", "", record.getMessage())
        return self._said.setdefault(text, record.created) != record.created


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    of_workflow = getattr(record, "temporal_workflow", None)
    if of_workflow or workflow.in_workflow():
        run_id = of_workflow["workflow_id"] if of_workflow else workflow.info().workflow_id
        facts = {"run_id": run_id, "phase": "workflow"}
        if workflow.in_workflow():
            facts["attempt"] = getattr(workflow.instance(), "attempt", None)
    else:
        what = subject()
        if what is None:
            return {}
        facts = {
            "run_id": what.run_id,
            "attempt": what.attempt,
            "phase": what.phase,
            "try": what.tries,
        }
    return {name: value for name, value in facts.items() if value is not None}


def _make_readable(record: logging.LogRecord) -> None:
    if record.msg == _FAILED and record.exc_info and record.exc_info[1] is not None:
        error = record.exc_info[1]
        if isinstance(error, ApplicationError):
            # One of ours: its type and message say all, and the traceback where we raised it.
            kind = error.type
            # In one line: what an upstream said is in it.
            record.msg, record.args = "%s", (" ".join(str(error).split()),)
            record.exc_info = record.exc_text = None
        else:
            kind = type(error).__name__
            record.msg, record.args = "The activity failed: %s", (kind,)
        setattr(record, "error", kind)  # noqa: B010 - no attribute that a LogRecord has by itself
    elif record.name == _CORE:
        fields = getattr(getattr(record, "temporal_log", None), "fields", None) or {}
        told = [f"{name}: {_shortened(fields[name])}" for name in _CORE_FIELDS if name in fields]
        record.msg, record.args = "%s", ("; ".join([str(record.msg), *told]),)


def _shortened(value: object) -> str:
    text = " ".join(str(value).split())
    status = _GRPC_STATUS.match(text)
    if status is not None:
        return ": ".join(status.groups())
    return text if len(text) <= _LONGEST_CORE_FIELD else text[:_LONGEST_CORE_FIELD] + "…"
