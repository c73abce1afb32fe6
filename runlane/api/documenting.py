"""The OpenAPI document: what it says of refusals, by what an operation is sent and asks for.

FastAPI would promise a 422 of its own form, which no operation answers with.
"""

from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI

_ENVELOPE = "ErrorEnvelope"
_TEXTS = {
    "400": "Something in the request can't be used; `param` names it.",
    "401": "There is no token, or it doesn't count.",
    "403": "The token's role is too small.",
    "404": "There is no such thing, or it is somebody else's.",
    "408": "The rest of the body has not come in time.",
    "409": "Understood, and refused as things stand. Receipts may stand beside `error`.",
    "413": "The body is too large.",
    "415": "The body isn't JSON, or a form where a file is sent.",
    "500": "The server had an error, or isn't set up for that.",
    "503": "Temporal, the ledger, the upstream or a worker doesn't answer.",
    "default": "Of the upstream's own, in its words; 502 and 504 where that can't be had.",
}
_SCHEMA: dict[str, Any] = {
    "title": _ENVELOPE,
    "description": "The protocol's form of an error.",
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
    "examples": [
        {
            "error": {
                "message": "No run found with id 'run_TZDCJ4EB'.",
                "type": "invalid_request_error",
                "param": None,
                "code": None,
            }
        }
    ],
}
_FASTAPIS = ("HTTPValidationError", "ValidationError")

OR_STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}
}
"""A route's `responses`, where the body may ask for a stream."""


class Documented(FastAPI):
    """An application whose document speaks of refusals as `refusals` words them."""

    def openapi(self) -> dict[str, Any]:
        """Return the document; it is made once."""
        is_made = self.openapi_schema is not None
        document = super().openapi()
        if not is_made:
            _say(document)
        return document


def _say(document: dict[str, Any]) -> None:
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for name in _FASTAPIS:
        schemas.pop(name, None)
    schemas[_ENVELOPE] = _SCHEMA
    body = {"application/json": {"schema": {"$ref": f"#/components/schemas/{_ENVELOPE}"}}}
    for methods in document["paths"].values():
        for method, operation in methods.items():
            answers = operation["responses"]
            answers.pop("422", None)
            for status in _refused_with(method, operation):
                answers.setdefault(status, {"description": _TEXTS[status], "content": body})


def _refused_with(method: str, operation: dict[str, Any]) -> Iterator[str]:
    has_body = "requestBody" in operation
    if has_body or operation.get("parameters"):
        yield from ("400", "404")
    if operation.get("security"):
        yield from ("401", "403", "500", "503", "default")
        if method != "get":
            yield "409"
    if has_body:
        yield from ("408", "413", "415")
