"""A caller of batches over HTTP: what it uploads, begins and fetches by the official SDK."""

import json
from datetime import timedelta
from typing import Any

from openai import AsyncOpenAI
from openai.types import Batch, FileObject

from tests.lab import Lab, eventually

ENDS = ("completed", "failed", "expired", "cancelled")


class Caller:
    """One caller."""

    def __init__(self, sdk: AsyncOpenAI, lab: Lab) -> None:
        self.sdk = sdk
        self._lab = lab

    def lines(self, count: int, *, url: str = "/v1/threads/runs", **body: Any) -> bytes:
        """Return an input; without a url each line makes a thread."""
        return b"".join(
            json.dumps(self.line(number, url=url, **body)).encode() + b"\n"
            for number in range(count)
        )

    def line(self, number: int, *, url: str = "/v1/threads/runs", **body: Any) -> dict[str, Any]:
        """Return one line."""
        text = f"Where is order {number}?"
        thread = {"thread": {"messages": [{"role": "user", "content": text}]}}
        made = thread if url == "/v1/threads/runs" else {}
        return {
            "custom_id": f"ticket-{number}",
            "method": "POST",
            "url": url,
            "body": {"assistant_id": self._lab.assistant_id, **made, **body},
        }

    async def upload(self, content: bytes, name: str = "in.jsonl") -> FileObject:
        """Upload a file."""
        return await self.sdk.files.create(file=(name, content), purpose="batch")

    async def begin(self, file_id: str, **runlane: Any) -> Batch:
        """Begin a batch of a file."""
        return await self.sdk.batches.create(
            input_file_id=file_id,
            endpoint="/v1/threads/runs",  # type: ignore[arg-type]
            completion_window="24h",
            extra_body={"runlane": runlane} if runlane else None,
        )

    async def begin_with(self, content: bytes, **runlane: Any) -> Batch:
        """Upload a file, and begin a batch of it."""
        return await self.begin((await self.upload(content)).id, **runlane)

    async def until(self, id: str, *statuses: str) -> Batch:
        """Wait until a batch has one of the statuses."""

        async def look() -> Batch:
            return await self.sdk.batches.retrieve(id)

        return await eventually(
            look, lambda batch: batch.status in statuses, within=timedelta(seconds=60)
        )

    async def ended(self, id: str) -> Batch:
        """Wait for a batch's end."""
        return await self.until(id, *ENDS)

    async def results(self, file_id: str | None) -> list[dict[str, Any]]:
        """Return a file's lines."""
        assert file_id is not None
        content = await self.sdk.files.content(file_id)
        return [json.loads(line) for line in content.text.splitlines()]
