"""What was tried against the API to see or do what isn't one's own, or the same thing twice."""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from runlane import tokens
from tests.api import ADMIN, Api, serving
from tests.lab import Lab

TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}


@pytest_asyncio.fixture
async def api(lab: Lab) -> AsyncIterator[Api]:
    """An API that asks everybody for a token."""
    async with serving(lab, local=None) as served:
        yield served


async def until_listed(client: httpx.AsyncClient, path: str, run_id: str) -> None:
    """Wait until Visibility has heard of a run."""
    async with asyncio.timeout(30):
        while run_id not in (await client.get(path)).text:
            await asyncio.sleep(0.1)


async def test_a_key_names_its_run_while_another_lives_on_the_thread(api: Api, lab: Lab) -> None:
    """The first run has ended, the next one waits: the first request, sent again, is no new one."""
    ann = api.http(await api.token())
    path = f"/threads/{lab.thread_id}/runs"
    body = {"assistant_id": lab.assistant_id, "tools": [TOOL]}
    key = {"idempotency-key": secrets.token_hex(8)}
    first = (await ann.post(path, json=body, headers=key)).json()["id"]
    await ann.post(f"{path}/{first}/cancel")
    async with asyncio.timeout(30):
        while (await ann.get(f"{path}/{first}")).json()["status"] != "cancelled":
            await asyncio.sleep(0.1)
    second = await ann.post(path, json=body)
    assert 200 == second.status_code

    again = await ann.post(path, json=body, headers=key)
    other = await ann.post(path, json={**body, "instructions": "Else."}, headers=key)

    assert (200, first) == (again.status_code, again.json().get("id")), again.text
    assert (400, "idempotency_key_reused") == (other.status_code, other.json()["error"]["code"])


async def test_a_key_names_its_thread_too(api: Api, lab: Lab) -> None:
    """A thread and a run, asked for with a key: with another thread it is another request."""
    ann = api.http(await api.token())
    key = {"idempotency-key": secrets.token_hex(8)}

    def body(text: str) -> dict[str, Any]:
        thread = {"messages": [{"role": "user", "content": text}]}
        return {"assistant_id": lab.assistant_id, "tools": [TOOL], "thread": thread}

    first = await ann.post("/threads/runs", json=body("Refund A."), headers=key)
    again = await ann.post("/threads/runs", json=body("Refund A."), headers=key)
    other = await ann.post("/threads/runs", json=body("Refund B."), headers=key)

    assert 200 == first.status_code, first.text
    assert (200, first.json()["id"]) == (again.status_code, again.json()["id"])
    assert (400, "idempotency_key_reused") == (
        other.status_code,
        other.json()["error"]["code"],
    )


async def test_a_cursor_tells_nothing_of_anothers_run(api: Api, lab: Lab) -> None:
    """Another owner's run, as `after` or `before`, is not there, like one that never was."""
    ann, bob = api.http(await api.token(person="ann")), api.http(await api.token(person="bob"))
    path = f"/threads/{lab.thread_id}/runs"
    body = {"assistant_id": lab.assistant_id, "tools": [TOOL]}
    run_id = (await ann.post(path, json=body)).json()["id"]
    await until_listed(ann, path, run_id)

    for where in ("after", "before"):
        known = await bob.get(path, params={where: run_id})
        unknown = await bob.get(path, params={where: "run_nobody"})
        assert [404, 404] == [known.status_code, unknown.status_code]
        assert unknown.text.replace("run_nobody", "X") == known.text.replace(run_id, "X")


@pytest.mark.parametrize("ends", ["revoked", "expired", "closed"])
async def test_a_stream_ends_with_what_let_its_listener_in(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    """Whose token counts no more hears no further event; nor, without one, once one is made."""
    monkeypatch.setattr("runlane.api.streams.HEARTBEAT_SECONDS", 0.3)
    monkeypatch.setattr("runlane.api.known_tokens.FRESH_SECONDS", 0.2)
    await lab.scenario(rounds=[{"in_progress": 60.0, "says": "Late."}])
    async with serving(lab, local=ADMIN if ends == "closed" else None) as api:
        until = time.time() + 4 if ends == "expired" else None
        secret = "any" if ends == "closed" else await api.token(name="gone", expires_at=until)
        body = {"assistant_id": lab.assistant_id, "stream": True}
        frames: list[str] = []
        async with (
            api.http(secret).stream("POST", f"/threads/{lab.thread_id}/runs", json=body) as answer,
            asyncio.timeout(30),
        ):
            assert 200 == answer.status_code
            async for line in answer.aiter_lines():
                if not frames:
                    if ends == "revoked":
                        await tokens.revoke(api.services.ledger, "gone", by="root")
                    elif ends == "closed":
                        await api.token(name="first")
                frames.append(line)

        told = json.loads(frames[-2].removeprefix("data: "))
        assert ["event: error", "invalid_api_key"] == [frames[-3], told["code"]]
        assert 0 == len(api.services.readers)


@pytest.mark.parametrize("told", ["content-length: 8000000", "transfer-encoding: chunked"])
async def test_nothing_is_read_of_whom_nobody_knows(api: Api, lab: Lab, told: str) -> None:
    """401 comes before the body, of which only the beginning is sent; one that is known goes on."""
    url = httpx.URL(api.url)
    known = await api.token()
    path = f"/v1/threads/{lab.thread_id}/runs"
    for token, first in ((tokens.new_secret(), b"HTTP/1.1 401 "), (known, None)):
        reader, writer = await asyncio.open_connection(url.host, url.port)
        lines = [f"POST {path} HTTP/1.1", "host: x", f"authorization: Bearer {token}"]
        lines += ["content-type: application/json", told, "", ""]
        writer.write("\r\n".join(lines).encode() + b"1\r\n[\r\n")
        try:
            async with asyncio.timeout(2):
                assert first == (await reader.readline())[:13]
        except TimeoutError:
            assert first is None
        writer.close()
