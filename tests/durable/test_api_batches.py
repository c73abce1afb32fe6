"""Files and batches over HTTP, asked by the official SDK as it stands."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import openai
import pytest
import pytest_asyncio
from openai import AsyncOpenAI
from openai.types import Batch as SdkBatch
from openai.types import FileObject

from ledger.batch_record import BatchRecord, batch_id
from ledger.contents import digest_of
from runlane.api.access import Role
from tests.api import Api, serving
from tests.lab import Lab, eventually

QUICK = {"queued": 0.02, "in_progress": 0.05, "says": "On its way."}
SLOW = {"queued": 0.02, "in_progress": 3.0, "says": "At last."}
ENDS = ("completed", "failed", "expired", "cancelled")


@pytest_asyncio.fixture
async def api(lab: Lab) -> AsyncIterator[Api]:
    async with serving(lab) as served:
        yield served


def _line(lab: Lab, number: int, **body: Any) -> dict[str, Any]:
    thread = {"messages": [{"role": "user", "content": f"Where is order {number}?"}]}
    return {
        "custom_id": f"ticket-{number}",
        "method": "POST",
        "url": "/v1/threads/runs",
        "body": {"assistant_id": lab.assistant_id, "thread": thread, **body},
    }


def _lines(lab: Lab, count: int) -> bytes:
    return _joined([_line(lab, number) for number in range(count)])


def _joined(lines: list[Any]) -> bytes:
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


async def _uploaded(sdk: AsyncOpenAI, content: bytes, name: str = "in.jsonl") -> FileObject:
    return await sdk.files.create(file=(name, content), purpose="batch")


async def _begun(sdk: AsyncOpenAI, file: FileObject, **more: Any) -> SdkBatch:
    return await sdk.batches.create(
        input_file_id=file.id,
        endpoint="/v1/threads/runs",  # type: ignore[arg-type]
        completion_window="24h",
        **more,
    )


async def _ended(sdk: AsyncOpenAI, id: str) -> SdkBatch:
    async def look() -> SdkBatch:
        return await sdk.batches.retrieve(id)

    return await eventually(look, lambda batch: batch.status in ENDS, within=timedelta(seconds=60))


async def _results(sdk: AsyncOpenAI, id: str | None) -> list[dict[str, Any]]:
    assert id is not None
    content = await sdk.files.content(id)
    return [json.loads(line) for line in content.text.splitlines()]


def _counts(batch: SdkBatch) -> tuple[int, int, int]:
    counts = batch.request_counts
    assert counts is not None
    return counts.total, counts.completed, counts.failed


async def test_a_batch_from_upload_to_results(api: Api, lab: Lab) -> None:
    """As OpenAI's guide has it: a file goes up, a batch ends, and each line has its result."""
    await lab.scenario(rounds=[QUICK])
    sdk = api.sdk()
    content = _lines(lab, 40)
    file = await _uploaded(sdk, content, "C:\\home\\in.jsonl")
    batch = await _begun(sdk, file, metadata={"night": "monday"})
    before = datetime.now(UTC).timestamp()
    ended = await _ended(sdk, batch.id)
    results = await _results(sdk, ended.output_file_id)
    upstream = await asyncio.to_thread(lab.simulator.runs)

    assert ("in.jsonl", len(content), "batch") == (file.filename, file.bytes, file.purpose)
    assert "completed" == ended.status
    assert ("/v1/threads/runs", "24h", file.id) == (
        ended.endpoint, ended.completion_window, ended.input_file_id
    )  # fmt: skip
    assert {"night": "monday"} == ended.metadata
    assert (40, 40, 0) == _counts(ended)
    assert ended.usage is not None
    assert 40 * 150 == ended.usage.total_tokens
    assert None is ended.error_file_id
    assert None is ended.errors
    assert ended.expires_at is not None
    assert abs(ended.expires_at - before - 86_400) < 30
    assert ended.completed_at is not None
    assert ended.in_progress_at is not None
    assert ended.created_at <= ended.in_progress_at <= ended.completed_at
    assert {f"ticket-{number}" for number in range(40)} == {each["custom_id"] for each in results}
    assert 40 == len(results)
    assert {(200, "completed")} == {
        (each["response"]["status_code"], each["response"]["body"]["status"]) for each in results
    }
    assert 40 == len([run for run in upstream if run["assistant_id"] == lab.assistant_id])


async def test_an_output_file_is_a_file(api: Api, lab: Lab) -> None:
    """It is retrieved, and as large as it says; it isn't listed, and goes only with its batch."""
    await lab.scenario(rounds=[QUICK])
    sdk = api.sdk()
    batch = await _begun(sdk, await _uploaded(sdk, _lines(lab, 3)))
    ended = await _ended(sdk, batch.id)
    assert ended.output_file_id is not None
    shown = await sdk.files.retrieve(ended.output_file_id)
    content = await sdk.files.content(ended.output_file_id)
    with pytest.raises(openai.BadRequestError, match="goes with them"):
        await sdk.files.delete(ended.output_file_id)

    assert ("batch_output", len(content.content)) == (shown.purpose, shown.bytes)
    assert ended.completed_at == shown.created_at
    missing = ended.output_file_id.replace("output", "errors")
    with pytest.raises(openai.NotFoundError):
        await sdk.files.retrieve(missing)


async def test_what_failed_stands_in_the_error_file(api: Api, lab: Lab) -> None:
    """Completed lines are in one file, all others in the other, and each is in one of them."""
    await lab.scenario(rounds=[QUICK])
    bad = f"{lab.assistant_id}_bad"
    await lab.scenario(assistant_id=bad, rounds=[{**QUICK, "ends": "failed"}])
    sdk = api.sdk()
    lines = [_line(lab, 0), _line(lab, 1, assistant_id=bad), _line(lab, 2)]
    batch = await _begun(sdk, await _uploaded(sdk, _joined(lines)))
    ended = await _ended(sdk, batch.id)
    assert (3, 2, 1) == _counts(ended)
    done = await _results(sdk, ended.output_file_id)
    failed = await _results(sdk, ended.error_file_id)
    assert {"ticket-0", "ticket-2"} == {each["custom_id"] for each in done}
    assert ["ticket-1"] == [each["custom_id"] for each in failed]


async def test_a_file_with_bad_lines_begins_nothing(api: Api, lab: Lab) -> None:
    """Each of them is told by number, code and reason; no run is made, of the good ones either."""
    sdk = api.sdk()
    again = {**_line(lab, 0), "custom_id": "ticket-1"}
    elsewhere = {**_line(lab, 3), "url": "/v1/chat/completions"}
    content = _joined([_line(lab, 0), _line(lab, 1), again, elsewhere]) + b"{nothing\n"
    batch = await _begun(sdk, await _uploaded(sdk, content))
    ended = await _ended(sdk, batch.id)

    assert "validating" == batch.status
    assert "failed" == ended.status
    assert ended.failed_at is not None
    assert None is ended.output_file_id
    assert None is ended.error_file_id
    assert ended.errors is not None
    told = [(each.line, each.code) for each in ended.errors.data or []]
    assert [
        (3, "duplicate_custom_id"), (4, "invalid_parameter"), (5, "invalid_json_line")
    ] == told  # fmt: skip
    assert "custom_id stands in line 2 already." == (ended.errors.data or [])[0].message
    assert [] == [
        run
        for run in await asyncio.to_thread(lab.simulator.runs)
        if run["assistant_id"] == lab.assistant_id
    ]


async def test_of_very_many_bad_lines_the_first_are_told(api: Api) -> None:
    """A hundred of them, and how many more there are."""
    sdk = api.sdk()
    batch = await _begun(sdk, await _uploaded(sdk, b"[]\n" * 1234))
    ended = await _ended(sdk, batch.id)
    assert ended.errors is not None
    told = ended.errors.data or []
    assert 101 == len(told)
    assert (None, "1,134 more lines can't be used.") == (told[-1].line, told[-1].message)


async def test_a_packed_file_of_many_chunks(api: Api, lab: Lab) -> None:
    """A line over a chunk's border is one line, and gzip is told apart by its first bytes."""
    await lab.scenario(rounds=[QUICK])
    sdk = api.sdk()
    long = [_line(lab, number, instructions="ü" * 100_000) for number in range(15)]
    content = _joined(long)
    assert len(content) > 2 * 1024 * 1024
    for each in (content, gzip.compress(content)):
        file = await _uploaded(sdk, each)
        assert each == (await sdk.files.content(file.id)).content
        batch = await _begun(sdk, file)
        ended = await _ended(sdk, batch.id)
        assert ("completed", None) == (ended.status, ended.errors)
        assert 15 == len(await _results(sdk, ended.output_file_id))


async def test_files_are_listed_and_deleted(api: Api) -> None:
    """The newest first, page by page; a deleted one is nowhere any more."""
    sdk = api.sdk()
    made = [(await _uploaded(sdk, b"{}\n", f"{name}.jsonl")).id for name in "abc"]
    listed = [each.id async for each in sdk.files.list(limit=1) if each.id in made]
    oldest = [each.id async for each in sdk.files.list(order="asc") if each.id in made]
    deleted = await sdk.files.delete(made[1])
    left = [each.id async for each in sdk.files.list(purpose="batch") if each.id in made]

    assert made[::-1] == listed
    assert made == oldest
    assert deleted.deleted
    assert [made[2], made[0]] == left
    for ask in (sdk.files.retrieve, sdk.files.content, sdk.files.delete):
        with pytest.raises(openai.NotFoundError):
            await ask(made[1])
    assert [] == (await sdk.files.list(purpose="assistants")).data


async def test_forms_that_cannot_be_used_leave_no_file(api: Api) -> None:
    """Another purpose, no file, an unknown field, a form that breaks off, JSON: each is refused."""
    sdk, http = api.sdk(), api.http()
    there = [each.id async for each in sdk.files.list()]
    with pytest.raises(openai.BadRequestError, match="purpose must be batch"):
        await sdk.files.create(file=("in.jsonl", b"{}"), purpose="assistants")
    with pytest.raises(openai.BadRequestError, match="must not be empty"):
        await _uploaded(sdk, b"")
    one = {"file": ("in.jsonl", b"{}" * 2_000_000)}
    of_form = {"content-type": "multipart/form-data; boundary=x"}
    part = b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n{}'
    answers = [
        await http.post("/files", files=one),
        await http.post("/files", files=one, data={"purpose": "batch", "other": "1"}),
        await http.post("/files", data={"purpose": "batch"}, files={"x": b"1"}),
        await http.post("/files", content=part, headers=of_form),
        await http.post("/files", content=b"nonsense", headers=of_form),
        await http.post("/files", content=part, headers={"content-type": "multipart/form-data"}),
    ]
    as_json = await http.post("/files", json={"purpose": "batch"})

    assert [400] * len(answers) == [answer.status_code for answer in answers]
    assert "invalid_form" == answers[3].json()["error"]["code"]
    assert 415 == as_json.status_code
    assert there == [each.id async for each in sdk.files.list()]


async def test_a_file_may_come_before_its_purpose(api: Api) -> None:
    """The order of a form's parts is the client's, and a file can be told to go by itself."""
    content, sdk = b'{"a": 1}\n', api.sdk()
    parts = [
        ('name="file"; filename="a.jsonl"', content),
        ('name="purpose"', b"batch"),
    ]
    body = b"".join(
        b"--x\r\ncontent-disposition: form-data; " + head.encode() + b"\r\n\r\n" + part + b"\r\n"
        for head, part in parts
    )
    answer = await api.http().post(
        "/files",
        content=body + b"--x--\r\n",
        headers={"content-type": "multipart/form-data; boundary=x"},
    )
    expiring = await sdk.files.create(
        file=("b.jsonl", content),
        purpose="batch",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )

    assert 200 == answer.status_code
    assert content == (await sdk.files.content(answer.json()["id"])).content
    assert expiring.expires_at is not None
    assert 3600 == pytest.approx(expiring.expires_at - expiring.created_at, abs=2)


async def test_a_key_names_one_batch(api: Api, lab: Lab) -> None:
    """Sent again, the request finds the batch that it has begun; another request is refused."""
    await lab.scenario(rounds=[QUICK])
    sdk = api.sdk()
    file, other = await _uploaded(sdk, _lines(lab, 2)), await _uploaded(sdk, _lines(lab, 2))
    key = {"Idempotency-Key": f"night-{file.id}"}
    first, second = await asyncio.gather(
        *(_begun(sdk, file, metadata={"k": "v"}, extra_headers=key) for _ in range(2))
    )
    for its, value in ((other, "v"), (file, "w")):
        with pytest.raises(openai.BadRequestError, match="Idempotency-Key"):
            await _begun(sdk, its, metadata={"k": value}, extra_headers=key)
    ended = await _ended(sdk, first.id)
    without = await _begun(sdk, file)

    assert first.id == second.id != without.id
    assert {"k": "v"} == ended.metadata
    assert 2 == len(await _results(sdk, ended.output_file_id))


async def test_a_batch_is_cancelled(api: Api, lab: Lab) -> None:
    """What has begun is cancelled upstream, what waits begins nothing, and all of it is told."""
    await lab.scenario(rounds=[SLOW])
    sdk = api.sdk()
    file = await _uploaded(sdk, _lines(lab, 6))
    batch = await _begun(sdk, file, extra_body={"runlane": {"max_in_flight": 2}})

    async def look() -> SdkBatch:
        return await sdk.batches.retrieve(batch.id)

    await eventually(look, lambda found: found.status == "in_progress")
    cancelling = await sdk.batches.cancel(batch.id)
    ended = await _ended(sdk, batch.id)

    assert "cancelling" == cancelling.status
    assert "cancelled" == ended.status
    assert ended.cancelled_at is not None
    assert 6 == len(
        [
            each
            for name in (ended.output_file_id, ended.error_file_id)
            if name is not None
            for each in await _results(sdk, name)
        ]
    )
    with pytest.raises(openai.BadRequestError, match="'cancelled'"):
        await sdk.batches.cancel(batch.id)


async def test_a_batch_whose_api_died_is_begun_by_who_looks(api: Api, lab: Lab) -> None:
    """Written, and never handed to Temporal: the next look at it does that."""
    await lab.scenario(rounds=[QUICK])
    sdk = api.sdk()
    file = await _uploaded(sdk, _lines(lab, 2))
    left = BatchRecord(
        id=batch_id("ada", file.id),
        owner="ada",
        name=file.id,
        input_digest=digest_of(file.id),
        total=0,
        options={"input_file_id": file.id},
        created_at=datetime.now(UTC) - timedelta(seconds=6),
    )
    await lab.ledger.batches.create(left)
    ended = await _ended(sdk, left.id)
    assert ("completed", (2, 2, 0)) == (ended.status, _counts(ended))


async def test_a_file_that_is_gone_ends_its_batch(api: Api, lab: Lab) -> None:
    """Deleted before it was read: the batch says so, and runs nothing."""
    sdk = api.sdk()
    left = BatchRecord(
        id=batch_id("ada", lab.thread_id),
        owner="ada",
        name=lab.thread_id,
        input_digest=digest_of("nothing"),
        total=0,
        options={"input_file_id": "file-deleted"},
        created_at=datetime.now(UTC) - timedelta(seconds=6),
    )
    await lab.ledger.batches.create(left)
    ended = await _ended(sdk, left.id)
    assert ended.errors is not None
    assert ("failed", ["file_not_found"]) == (
        ended.status, [each.code for each in ended.errors.data or []]
    )  # fmt: skip


async def test_batches_are_listed_by_owner(lab: Lab) -> None:
    """Operators begin their own, readers see theirs, admins all; of others' nothing is told."""
    async with serving(lab, local=None) as api:
        ann = api.sdk(await api.token(person="ann"))
        anns_reader = api.sdk(await api.token(Role.READER, person="ann"))
        bob = api.sdk(await api.token(person="bob"))
        root = api.sdk(await api.token(Role.ADMIN, person="root"))
        file = await _uploaded(ann, b"[]\n")
        made = [(await _begun(ann, file)).id for _ in range(3)]
        await _ended(ann, made[-1])

        assert made[::-1] == [each.id async for each in anns_reader.batches.list(limit=2)]
        assert made[::-1] == [each.id for each in (await root.batches.list(limit=3)).data]
        assert [] == (await bob.batches.list()).data
        assert [] == (await bob.files.list()).data
        assert [file.id] == [each.id for each in (await anns_reader.files.list()).data]
        assert b"[]\n" == (await root.files.content(file.id)).content
        for ask in (
            bob.batches.retrieve(made[0]),
            bob.batches.cancel(made[0]),
            bob.files.content(file.id),
            bob.files.delete(file.id),
            _begun(bob, file),
        ):
            with pytest.raises(openai.NotFoundError):
                await ask
        with pytest.raises(openai.PermissionDeniedError):
            await _uploaded(anns_reader, b"{}")
        with pytest.raises(openai.PermissionDeniedError):
            await _begun(anns_reader, file)


@pytest.mark.parametrize(
    "wrong",
    [
        {"endpoint": "/v1/responses"},
        {"completion_window": "48h"},
        {"metadata": {str(number): "" for number in range(17)}},
        {"output_expires_after": {"anchor": "created_at", "seconds": 3600}},
        {"runlane": {"rpm": 0}},
        {"runlane": {"max_tokens": 2**53}},
        {"runlane": {"price_per_million_tokens": "1"}},
        {"runlane": {"price_per_million_tokens": "1,1", "max_cost": "0"}},
        {"runlane": {"max_cost": "5.00"}},
        {"input_file_id": 7},
    ],
)
async def test_what_a_batch_cannot_be_is_refused(api: Api, wrong: dict[str, Any]) -> None:
    """Before anything is written, the parameter at fault is named."""
    file = await _uploaded(api.sdk(), b"[]\n")
    body = {"input_file_id": file.id, "endpoint": "/v1/threads/runs", "completion_window": "24h"}
    answer = await api.http().post("/batches", json={**body, **wrong})
    assert 400 == answer.status_code
    assert next(iter(wrong)) in answer.json()["error"]["param"]
