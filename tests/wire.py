"""The wire's other end for tests of the client: it answers as told and keeps what it got."""

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

import httpx

from runsapi import Assistants

RUN: dict[str, Any] = {
    "id": "run_1",
    "object": "thread.run",
    "status": "queued",
    "thread_id": "thread_1",
    "assistant_id": "asst_1",
    "created_at": 1_700_000_000,
}

Answer = dict[str, Any] | httpx.Response


class Wire:
    """Answers in order, the last one for ever; every request is kept."""

    def __init__(self, *answers: Answer | Callable[[httpx.Request], Answer]) -> None:
        self.answers = list(answers) or [RUN]
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        answer = self.answers[min(len(self.requests), len(self.answers) - 1)]
        self.requests.append(request)
        if callable(answer):
            answer = answer(request)
        return answer if isinstance(answer, httpx.Response) else httpx.Response(200, json=answer)

    def upstream(self, base_url: str = "http://upstream/v1", **options: Any) -> Assistants:
        """A client whose requests come here."""
        client = httpx.AsyncClient(transport=httpx.MockTransport(self))
        return Assistants(base_url, http_client=client, **options)

    @property
    def last(self) -> httpx.Request:
        return self.requests[-1]

    def line(self, number: int = -1) -> str:
        """Method and path, as they were sent."""
        request = self.requests[number]
        return f"{request.method} {request.url.raw_path.decode().partition('?')[0]}"

    def query(self, number: int = -1) -> list[tuple[str, str]]:
        return parse_qsl(self.requests[number].url.query.decode(), keep_blank_values=True)

    def body(self, number: int = -1) -> Any:
        return json.loads(self.requests[number].content)


def run(**fields: Any) -> dict[str, Any]:
    return {**RUN, **fields}
