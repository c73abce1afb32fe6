"""HTTP tools as `runlane.toml` declares them."""

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from runlane.errors import InvalidTool
from runlane.tools import importing
from runlane.tools.calendar import Calendar, declared_calendar
from runlane.tools.http import REFERENCE, HttpRequest
from runlane.tools.json_schemas import JsonSchema
from runlane.tools.options import ToolOptions
from runlane.tools.tool import Tool

DEFAULT_FILE = Path("runlane.toml")
DEFAULT_IDEMPOTENCY_HEADER = "Idempotency-Key"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
MAX_HEADERS = 50

_OWN = (
    *("description", "url", "method", "headers", "parameters"),
    *("idempotency_header", "signing_secret"),
)
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}")
_OURS = (
    *("host", "content-length", "content-type", "transfer-encoding", "connection", "te"),
    *("trailer", "upgrade", "accept-encoding"),
    *("webhook-id", "webhook-timestamp", "webhook-signature"),
)
_SECRET = (
    *("authorization", "proxy-authorization", "cookie", "api-key", "x-api-key"),
    "x-auth-token",
)


def read_file(path: Path, environ: Mapping[str, str] = os.environ) -> Iterator[Tool]:
    """Yield the tools that a file declares, one for each table `[tools.NAME]`.

    Args:
        path: of the file.
        environ: where the variables are found, at each call, that the tools refer to.

    Raises:
        InvalidTool: the message names the file, the tool and the field.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidTool(f"Can't read {path}: {error.strerror}.", param=str(path)) from None
    except UnicodeDecodeError:
        raise InvalidTool(f"{path} is not UTF-8 text.", param=str(path)) from None
    except tomllib.TOMLDecodeError as error:
        raise InvalidTool(f"{path} is not TOML: {error}.", param=str(path)) from None
    try:
        for key in document.keys() - {"calendars", "tools"}:
            text = f"{key} is not known here; there are tools and calendars."
            raise InvalidTool(text, param=key)
        calendars = {
            name: declared_calendar(name, _table(f"calendars.{name}", table))
            for name, table in _table("calendars", document.get("calendars", {})).items()
        }
        for name, given in _table("tools", document.get("tools", {})).items():
            table = _with_calendar(name, _table(f"tools.{name}", given), calendars)
            yield _tool(name, table, path, environ)
    except _Field as error:
        text = f"{path}: {error.field} {error.problem}."
        raise InvalidTool(text, param=error.field) from None
    except InvalidTool as error:
        raise InvalidTool(f"{path}: {error.message}", param=error.param) from None


def _with_calendar(
    name: str, table: dict[str, Any], calendars: Mapping[str, Calendar]
) -> dict[str, Any]:
    named = table.get("calendar")
    if named is None:
        return table
    if not isinstance(named, str) or named not in calendars:
        known = ", ".join(calendars) or "none"
        text = f"Tool {name}: calendar must name a [calendars.NAME] of this file; there are"
        raise InvalidTool(f"{text}: {known}.", param="calendar")
    return {**table, "calendar": calendars[named]}


def _tool(name: str, table: dict[str, Any], path: Path, environ: Mapping[str, str]) -> Tool:
    own = {key: table[key] for key in _OWN if key in table}
    options = {key: value for key, value in table.items() if key not in _OWN}
    policy = options.get("policy")
    if isinstance(policy, str) and ":" in policy:
        options["policy"] = importing.function(policy, named_in=f"policy of tool {name}")
    try:
        request, description = _request(own, f"{path} [tools.{name}]", environ)
    except _Field as error:
        text = f"Tool {name}: {error.field} {error.problem}."
        raise InvalidTool(text, param=error.field) from None
    return Tool(
        name=name,
        description=description,
        parameters=request.parameters.schema,
        options=ToolOptions.read(name, options),
        body=request,
    )


class _Field(Exception):
    def __init__(self, field: str, problem: str) -> None:
        self.field = field
        self.problem = problem


def _request(
    own: dict[str, Any], source: str, environ: Mapping[str, str]
) -> tuple[HttpRequest, str]:
    method = own.get("method", "POST")
    if method not in METHODS:
        raise _Field("method", f"must be one of {', '.join(METHODS)}")
    header = own.get("idempotency_header", DEFAULT_IDEMPOTENCY_HEADER)
    _check_header("idempotency_header", header)
    headers = _headers(own.get("headers", {}))
    if header.lower() in {name.lower() for name in headers}:
        raise _Field("headers", f"can't hold {header}, which is the idempotency_header")
    try:
        parameters = JsonSchema.checked(_table("parameters", own.get("parameters", {})))
    except ValueError as error:
        raise _Field("parameters", str(error)) from None
    request = HttpRequest(
        url=_url(own.get("url")),
        method=method,
        headers=headers,
        idempotency_header=header,
        signing_secret=_secret(own.get("signing_secret")),
        parameters=parameters,
        source=source,
        environ=environ,
    )
    return request, _string("description", own.get("description", ""))


def _url(given: object) -> str:
    text = _string("url", given)
    try:
        parts = urlsplit(text)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or not text.isascii() or not text.isprintable() or " " in text:
        raise _Field("url", "must be of the form https://host[:port]/path")
    if parts.username is not None or parts.password is not None:
        raise _Field("url", "holds credentials; put them into a header, as ${VARIABLE}")
    if parts.fragment:
        raise _Field("url", "has a fragment, which no server gets to see")
    return text


def _headers(given: object) -> dict[str, str]:
    headers = {
        name: _string(f"headers.{name}", it) for name, it in _table("headers", given).items()
    }
    if len(headers) > MAX_HEADERS or len({name.lower() for name in headers}) < len(headers):
        raise _Field("headers", f"must be at most {MAX_HEADERS}, and each name there once")
    for name, value in headers.items():
        _check_header(f"headers.{name}", name)
        if not (value.isascii() and value.isprintable()):
            raise _Field(f"headers.{name}", "holds a character that no HTTP header can carry")
        if name.lower() in _SECRET and not REFERENCE.search(value):
            problem = "is a secret: put it into a variable, and write ${VARIABLE} here"
            raise _Field(f"headers.{name}", problem)
    return headers


def _check_header(field: str, name: object) -> None:
    if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
        raise _Field(field, "is not the name of an HTTP header")
    if name.lower() in _OURS:
        raise _Field(field, "is a header that Runlane or HTTP itself sets")


def _secret(given: object) -> str | None:
    if given is None:
        return None
    found = REFERENCE.fullmatch(_string("signing_secret", given))
    if found is None:
        raise _Field("signing_secret", "must name a variable: ${VARIABLE}")
    return found[1]


def _string(field: str, given: object) -> str:
    if not isinstance(given, str):
        raise _Field(field, "is missing" if given is None else "must be a string")
    return given


def _table(field: str, given: object) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise _Field(field, "must be a table")
    return given
