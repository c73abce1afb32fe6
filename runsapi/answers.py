"""What an upstream's answers say."""

import json
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import httpx
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from runsapi.errors import APIResponseError

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)

_MAX_SHOWN = 200
"""Characters of a server's own words that stand in an error besides its message."""


@dataclass(frozen=True)
class Response(Generic[T]):
    """An answer with what it came in."""

    data: T
    headers: httpx.Headers = field(repr=False)
    status_code: int


def parsed(content: bytes) -> Any:
    """The value that a JSON text holds, nested 200 deep at most, with ``?`` for half a pair.

    Half a surrogate pair JSON can escape and UTF-8 can't hold. Models break emoji, and what came in
    must be able to go on its way; what is nested deeper couldn't either.

    Raises:
        ValueError: It is no such text.
    """
    try:
        return from_json(content)
    except ValueError:
        try:
            mended = json.dumps(json.loads(content), ensure_ascii=False).encode(errors="replace")
        except RecursionError:
            raise ValueError("nested too deeply") from None
        return from_json(mended)


def read(model: type[M], answer: Response[Any], url: str) -> Response[M]:
    """The answer as a model.

    Raises:
        APIResponseError: It lacks what can't be done without. The error names fields, never values.
    """
    try:
        data = model.model_validate(answer.data)
    except ValidationError as error:
        wrong = ", ".join(
            f"{'.'.join(map(str, item['loc']))[:_MAX_SHOWN] or 'the answer'} ({item['type']})"
            for item in error.errors(include_url=False, include_input=False)[:5]
        )
        raise APIResponseError(
            f"The answer from {url} is no {model.__name__}: {wrong}",
            status_code=answer.status_code,
            url=url,
        ) from None
    return Response(data, answer.headers, answer.status_code)


def envelope(content: bytes, response: httpx.Response) -> dict[str, str | None]:
    """What an error body says, in the protocol's envelope or in one of the other common ones."""
    try:
        said = parsed(content)
    except ValueError:
        plain = response.headers.get("content-type", "").startswith("text/plain")
        return {"message": content.decode(errors="replace").strip() if plain else None}
    if isinstance(said, dict):
        inner = said.get("error")
        said = {**said, **inner} if isinstance(inner, dict) else {"message": inner, **said}
    else:
        said = {"message": said}
    message = said.get("message") or said.get("detail")
    if isinstance(message, list):
        # FastAPI's list of mistakes: its `input` repeats the request.
        message = "; ".join(str(item.get("msg")) for item in message if isinstance(item, dict))
    texts = {name: said.get(name) for name in ("type", "param", "code")}
    return {
        "message": message if isinstance(message, str) else None,
        **{
            name: None if value is None else str(value)[:_MAX_SHOWN]
            for name, value in texts.items()
            if not isinstance(value, dict | list)
        },
    }
