"""What the ledger knows of a run: written while it goes, and after Temporal has forgotten it."""

import asyncio
import json
import os
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection
from temporalio.common import WorkflowIDReusePolicy

from activities.trail import LEDGER_DOWN
from ledger import Ledger
from ledger.approval import Approval, ApprovalKey, Standing
from ledger.contents import digest_of
from ledger.database import Database
from ledger.run_record import RunRecord, Usage
from runlane import Runlane, requests
from runlane.client_ledger import ClientLedger
from runlane.errors import ExitCode, InvalidRequest, RunNotFound
from runlane.recording import Recorder
from runlane.settings import Settings
from tests.lab import Lab, LabRun, eventually
from workflows.run import RunWorkflow
from workflows.state import RunInput

CALL = [{"type": "function", "function": {"name": "lookup_order", "parameters": {}}}]


def told(rows: list[Any]) -> list[str]:
    """Return what a trail says, a word each."""
    bodies = [json.loads(row.body) for row in rows]
    return [body["facts"].get("what", body["kind"]) for body in bodies]


@asynccontextmanager
async def broken(lab: Lab) -> AsyncIterator[None]:
    """Let every write to the trail fail meanwhile, as on a full disk; reads go on."""

    def change(sql: str) -> None:
        connection = sqlite3.connect(lab.ledger.location.file, timeout=20)
        connection.execute(sql)
        connection.commit()
        connection.close()

    change("ALTER TABLE audit_rows RENAME TO gone")
    try:
        yield
    finally:
        change("ALTER TABLE gone RENAME TO audit_rows")


async def failing(run: LabRun) -> str:
    """Return what the run's activity under way has failed with last."""
    description = await run.handle.describe()
    for activity in description.raw_description.pending_activities:
        if activity.attempt > 2 and activity.HasField("last_failure"):
            return activity.last_failure.application_failure_info.type
    return ""


async def recorded(lab: Lab, run_id: str) -> None:
    """Let a recorder look until Visibility has shown it the run's end."""
    recorder = Recorder(lab.client, lab.ledger, task_queue=lab.task_queue)

    async def look() -> set[str]:
        await recorder.look()
        return await lab.ledger.runs.ended([run_id])

    await eventually(look, bool)


async def test_a_run_is_recorded_from_its_start_to_its_end(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    writes: list[str] = []
    write = Database.write

    async def counted(self: Database, turn: str, work: Callable[[Connection], Any]) -> Any:
        writes.append(turn)
        return await write(self, turn, work)

    monkeypatch.setattr(Database, "write", counted)
    run = await lab.start(params={"tools": CALL, "model": "gpt-4o"})
    (call,) = (await run.until_status("requires_action")).runlane.pending
    record = await lab.ledger.runs.find(run.id)
    assert record is not None
    assert (lab.thread_id, lab.assistant_id) == (record.thread_id, record.assistant_id)
    assert record.ended_at is None
    waiting = Approval(
        key=ApprovalKey(run_id=run.id, attempt=1, round=1, call_id="call_x"), tool="refund",
        arguments_digest=digest_of("{}"), since=datetime.now(UTC),
    )  # fmt: skip
    await lab.ledger.approvals.record(run.id, [waiting])
    await run.submit((call.tool_call_id, "the output"))
    view = await run.result()

    assert ["created", "submission"] == told(await lab.ledger.audit.read(run.id))
    # One at the create and one at the submit; the third is this test's own. A busy machine may try
    # one of them again.
    assert 3 <= len(writes) <= 4
    record_property("ledger_writes_a_run", len(writes) - 1)
    created, submission = [json.loads(row.body) for row in await lab.ledger.audit.read(run.id)]
    assert "gpt-4o" == created["model"]
    assert {call.tool_call_id: digest_of("the output")} == submission["facts"]["outputs"]
    closed = await lab.ledger.approvals.find(waiting.key)
    assert closed is not None
    assert (Standing.CLOSED, "submitted") == (closed.state, closed.outcome)

    left = replace(waiting, key=replace(waiting.key, round=2))
    await lab.ledger.approvals.record(run.id, [left])
    await recorded(lab, run.id)
    record = await lab.ledger.runs.find(run.id)
    assert record is not None
    assert "completed" == record.status
    assert record.usage is not None
    assert view.run.usage is not None
    assert view.run.usage.total_tokens == record.usage.total_tokens
    assert view.run.id == json.loads(record.contents or "")["id"]
    assert [] == await lab.ledger.approvals.waiting_runs([run.id])
    assert ["created", "submission", "ended"] == told(await lab.ledger.audit.read(run.id))
    # Nothing is written for what is there.
    assert 0 == await Recorder(lab.client, lab.ledger, task_queue=lab.task_queue).look()


async def test_a_key_whose_run_temporal_forgot_starts_no_second_one(lab: Lab) -> None:
    async def create(**params: Any) -> LabRun:
        run_id, request = requests.asked(
            lab.thread_id,
            {"assistant_id": lab.assistant_id, **params},
            idempotency_key=lab.thread_id,
        )
        # What Temporal would refuse as long as it remembers the run before.
        handle = await lab.client.start_workflow(
            RunWorkflow.run,
            RunInput(request=request),
            id=run_id,
            task_queue=lab.task_queue,
            id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
        )
        return LabRun(handle)

    first = await create()
    await first.result()
    await recorded(lab, first.id)
    for params, expected in (({}, "ended as completed."), ({"model": "x"}, "another request")):
        again = await create(**params)
        ended = (await again.result()).run

        assert first.id == again.id
        assert "failed" == ended.status
        assert ended.last_error is not None
        assert expected in ended.last_error.message
        assert "use a new key" in ended.last_error.message
        assert 1 == await lab.accepted("runs.create")
        record = await lab.ledger.runs.find(first.id)
    assert record is not None
    assert "completed" == record.status


async def test_a_ledger_that_is_down_delays_and_loses_nothing(lab: Lab) -> None:
    """Each activity finds out that it has acted already, and acts once."""
    async with broken(lab):
        run = await lab.start(params={"tools": CALL})
        await eventually(lambda: failing(run), lambda kind: kind == LEDGER_DOWN)
        assert 1 == await lab.accepted("runs.create")
    (call,) = (await run.until_status("requires_action")).runlane.pending
    async with broken(lab):
        await run.submit((call.tool_call_id, "ok"))
        await eventually(lambda: failing(run), lambda kind: kind == LEDGER_DOWN)
        assert 1 == await lab.accepted("runs.submit_tool_outputs")
    view = await run.result()

    assert "completed" == view.run.status
    assert (1, 1) == (
        await lab.accepted("runs.create"),
        await lab.accepted("runs.submit_tool_outputs"),
    )
    assert ["created", "submission"] == told(await lab.ledger.audit.read(run.id))


async def test_a_run_ends_although_the_ledger_is_down(lab: Lab) -> None:
    """A cancel waits for no ledger."""
    run = await lab.start(params={"tools": CALL})
    await run.until_status("requires_action")
    async with broken(lab):
        await run.cancel()
        assert "cancelled" == (await run.result()).run.status


async def test_a_list_of_any_age(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has ended is listed from the ledger, what lives as Temporal knows it."""

    @asynccontextmanager
    async def opened(self: ClientLedger) -> AsyncIterator[Ledger]:
        yield lab.ledger

    monkeypatch.setattr(ClientLedger, "opened", opened)
    runs = Runlane(lab.client, Settings(task_queue=lab.task_queue)).runs
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)
    for number in range(3):
        at = long_ago + timedelta(days=number)
        await lab.ledger.runs.record(
            RunRecord(
                run_id=f"run_old{number}", thread_id=lab.thread_id, assistant_id="asst_1",
                status="completed" if number else "in_progress", created_at=at, updated_at=at,
                ended_at=at if number else None,
                usage=Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3),
            )
        )  # fmt: skip
    run = await lab.start(params={"tools": CALL})
    await run.until_status("requires_action")

    async def page() -> list[str]:
        return [each.status for each in (await runs.list(lab.thread_id, all_ages=True)).data]

    expected = ["requires_action", "completed", "completed", "in_progress"]
    await eventually(page, lambda statuses: statuses == expected)
    found = [each async for each in runs.list(lab.thread_id, all_ages=True, limit=2)]
    assert [run.id, "run_old2", "run_old1", "run_old0"] == [each.id for each in found]
    assert found[1].usage is not None
    assert 3 == found[1].usage.total_tokens
    before = await runs.list(lab.thread_id, all_ages=True, limit=2, before="run_old0")
    assert (["run_old2", "run_old1"], True) == ([each.id for each in before.data], before.has_more)
    assert [run.id] == [each.id for each in (await before.get_next_page()).data]
    lost = (await runs.list(lab.thread_id, all_ages=True)).views[-1].runlane.uncertain
    assert "seen no end" in str(lost)
    ended = await runs.list(lab.thread_id, all_ages=True, status="completed", order="asc")
    assert ["run_old1", "run_old2"] == [each.id for each in ended.data]
    for refused in ({"status": "queued"}, {"blocked": True}, {"limit": 101}):
        with pytest.raises(InvalidRequest):
            runs.list(all_ages=True, **refused)
    with pytest.raises(RunNotFound):
        await runs.list(all_ages=True, after="run_unknown")


async def test_a_worker_without_its_ledger_does_not_start(lab: Lab, tmp_path: Path) -> None:
    """It names the place, and not the password."""
    environ = {
        "PATH": os.environ["PATH"],
        "TEMPORAL_ADDRESS": lab.client.service_client.config.target_host,
        "RUNLANE_UPSTREAM_URL": lab.simulator.url,
        "RUNLANE_TASK_QUEUE": f"{lab.task_queue}-other",
        "RUNLANE_DATA_DIR": str(tmp_path),
        "RUNLANE_DATABASE_URL": "postgresql://me:hunter2@127.0.0.1:1/ledger",
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "worker", "--json", env=environ, cwd=Path(__file__).parents[2],
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 60)

    assert ExitCode.UNREACHABLE == process.returncode
    assert "ledger_unreachable" == json.loads(out)["error"]["code"]
    assert b"127.0.0.1:1/ledger" in out
    assert b"hunter2" not in out + err
