"""The files of batches over HTTP: results that are counted once, inputs that are read once."""

import gzip
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import openai
import pytest
import pytest_asyncio

from ledger.batch_item import Item
from ledger.batch_notes import Note
from ledger.files import STANDING
from runlane.api.access import Role
from runlane.batches.running import Batches
from tests.api import Api, serving
from tests.api_batches import Caller
from tests.batches import Batch, new_threads
from tests.lab import Lab

QUICK = {"queued": 0.02, "in_progress": 0.05, "says": "On its way."}
SLOW = {"queued": 0.02, "in_progress": 3.0, "says": "At last."}


@pytest_asyncio.fixture
async def api(lab: Lab) -> AsyncIterator[Api]:
    async with serving(lab) as served:
        yield served


@pytest.fixture
def caller(api: Api, lab: Lab) -> Caller:
    return Caller(api.sdk(), lab)


async def test_the_size_of_results_is_counted_once(
    caller: Caller, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then no result is read for it any more, in either file, until what they hold has changed."""
    await lab.scenario(rounds=[QUICK])
    bad = f"{lab.assistant_id}_bad"
    await lab.scenario(assistant_id=bad, rounds=[{**QUICK, "ends": "failed"}])
    lines = [caller.line(0), caller.line(1, assistant_id=bad), caller.line(2)]
    content = b"\n".join(json.dumps(line).encode() for line in lines)
    ended = await caller.ended((await caller.begin_with(content)).id)
    output, errors = ended.output_file_id or "", ended.error_file_id or ""
    read, reading = 0, lab.ledger.batch_items.results

    async def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal read
        read += 1
        return await reading(*args, **kwargs)

    monkeypatch.setattr(lab.ledger.batch_items, "results", counted)
    first = (await caller.sdk.files.retrieve(output)).bytes
    by_the_first = read
    again = (await caller.sdk.files.retrieve(output)).bytes
    of_errors = (await caller.sdk.files.retrieve(errors)).bytes
    by_all = read
    whole = (await caller.sdk.files.content(output)).content
    failed = (await caller.sdk.files.content(errors)).content
    unchanged = (await caller.sdk.files.content(output)).content
    erased = json.loads(whole.splitlines()[0])["runlane"]["run_id"]
    await lab.ledger.erase_run(erased)
    smaller = (await caller.sdk.files.retrieve(output)).bytes
    left = (await caller.sdk.files.content(output)).content

    assert 0 < by_the_first == by_all
    assert len(whole) == first == again
    assert len(failed) == of_errors
    assert whole == unchanged
    assert len(left) == smaller < first
    assert "erased" == json.loads(left.splitlines()[0])["error"]["code"]


async def test_long_results_are_read_in_small_pages(
    api: Api, caller: Caller, lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many there are: what is held of them at a time has some megabytes."""
    await lab.scenario(rounds=[QUICK])
    long = caller.lines(60, instructions="ü" * 100_000)
    ended = await caller.ended((await caller.begin_with(gzip.compress(long), tries=1)).id)
    pages: list[int] = []
    reading = lab.ledger.batch_items.results

    async def measured(*args: Any, **kwargs: Any) -> Any:
        page: list[Item] = list(await reading(*args, **kwargs))
        pages.append(sum(len((item.response or "").encode()) for item in page))
        return page

    monkeypatch.setattr(lab.ledger.batch_items, "results", measured)
    content = await caller.sdk.files.content(ended.output_file_id or "")

    assert 60 == len(content.text.splitlines())
    assert len(content.content) > 12_000_000
    assert max(pages) < 3_000_000


async def test_a_retry_makes_other_files(api: Api, caller: Caller, lab: Lab) -> None:
    """While it runs there are none; then they are counted anew."""
    await lab.scenario(rounds=[{**QUICK, "ends": "failed"}])
    ended = await caller.ended((await caller.begin_with(caller.lines(2))).id)
    assert ended.error_file_id is not None
    before = (await caller.sdk.files.retrieve(ended.error_file_id)).bytes
    await lab.scenario(rounds=[QUICK])
    await lab.ledger.batch_items.retry_failed(ended.id)
    with pytest.raises(openai.NotFoundError):
        await caller.sdk.files.content(ended.error_file_id)
    found = await lab.ledger.batches.find(ended.id)
    assert found is not None
    await Batches(lab.client, lab.task_queue, lab.ledger).start(found)
    again = await caller.ended(ended.id)
    assert again.output_file_id is not None
    after = (await caller.sdk.files.retrieve(again.output_file_id)).bytes
    content = (await caller.sdk.files.content(again.output_file_id)).content

    assert ("completed", None) == (again.status, again.error_file_id)
    assert before != after == len(content)


async def test_a_packed_file_of_any_name(caller: Caller, lab: Lab) -> None:
    """`.jsonl.gz` and the wrong end are told apart by what is in them."""
    await lab.scenario(rounds=[QUICK])
    content = caller.lines(2)
    for name, body in (("in.jsonl.gz", gzip.compress(content)), ("in.gz", content)):
        file = await caller.upload(body, name)
        ended = await caller.ended((await caller.begin(file.id)).id)
        assert (name, len(body)) == (file.filename, file.bytes)
        assert ("completed", 2) == (ended.status, len(await caller.results(ended.output_file_id)))
    damaged = gzip.compress(content)[:-9]
    ended = await caller.ended((await caller.begin_with(damaged)).id)
    assert ended.errors is not None
    assert "failed" == ended.status
    assert "gzip" in (ended.errors.data or [])[-1].message  # type: ignore[operator]


async def test_a_batch_is_begun_of_an_input_alone(api: Api, caller: Caller, lab: Lab) -> None:
    """Neither of results nor of what a schedule has; each is named with its purpose."""
    await lab.scenario(rounds=[QUICK])
    ended = await caller.ended((await caller.begin_with(caller.lines(1))).id)
    writing = await lab.ledger.files.begin("file-" + "a" * 24, "", datetime.now(UTC))
    await writing.write(b"{}")
    standing = await writing.finish(filename="night.jsonl", purpose=STANDING)
    for file_id, purpose in ((ended.output_file_id, "batch_output"), (standing.id, STANDING)):
        assert file_id is not None
        with pytest.raises(openai.BadRequestError, match=f"has the purpose {purpose};") as refused:
            await caller.begin(file_id)
        assert "input_file_id" == refused.value.param
    with pytest.raises(openai.NotFoundError):
        await caller.begin("file-" + "b" * 24)

    listed = [each.id async for each in caller.sdk.files.list(purpose="batch")]
    all_of_them = [each.id async for each in caller.sdk.files.list()]
    with pytest.raises(openai.BadRequestError, match="what a schedule begins batches of"):
        await caller.sdk.files.delete(standing.id)
    assert standing.id not in listed
    assert standing.id in all_of_them


async def test_a_file_is_deleted_under_its_batch(caller: Caller, lab: Lab) -> None:
    """Once it was read the batch goes on without it, and still names it."""
    await lab.scenario(rounds=[SLOW])
    file = await caller.upload(caller.lines(2))
    batch = await caller.begin(file.id)
    await caller.until(batch.id, "in_progress")
    await caller.sdk.files.delete(file.id)
    ended = await caller.ended(batch.id)
    assert ("completed", file.id) == (ended.status, ended.input_file_id)
    assert 2 == len(await caller.results(ended.output_file_id))


async def test_a_batch_of_the_command_line_is_its_admins(lab: Lab) -> None:
    """It belongs to nobody: admins see it, with its results; and the command line sees theirs."""
    await lab.scenario(rounds=[QUICK])
    theirs = Batch(lab)
    await theirs.run(new_threads(2))
    async with serving(lab, local=None) as api:
        root = Caller(api.sdk(await api.token(Role.ADMIN, person="root")), lab)
        ann = Caller(api.sdk(await api.token(person="ann")), lab)
        anns = await ann.ended((await ann.begin_with(ann.lines(1))).id)
        seen = {each.id: each async for each in root.sdk.batches.list(limit=1)}
        results = await root.results(seen[theirs.id].output_file_id)
        with pytest.raises(openai.NotFoundError):
            await ann.sdk.batches.retrieve(theirs.id)
        with pytest.raises(openai.NotFoundError):
            await ann.sdk.files.content(seen[theirs.id].output_file_id or "")
        found = await Batches(None, lab.task_queue, lab.ledger).find(anns.id)

        assert {theirs.id, anns.id} == set(seen)
        assert [anns.id] == [each.id async for each in ann.sdk.batches.list()]
        assert "" == seen[theirs.id].input_file_id
        assert {"item-0", "item-1"} == {each["custom_id"] for each in results}
        assert "ann" == found.owner


async def test_a_note_is_of_a_batch_that_is_there(lab: Lab) -> None:
    """One that was removed meanwhile gets none."""
    await lab.ledger.batch_notes.keep("batch_gone", Note.SIZES, "{}")
    assert await lab.ledger.batch_notes.find("batch_gone", Note.SIZES) is None
