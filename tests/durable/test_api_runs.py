"""The seed's routes of runs, asked by the official SDK as it stands."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest
import pytest_asyncio
from openai.types.beta import FunctionToolParam
from openai.types.beta.threads import Run as SdkRun
from temporalio.client import Client

from ledger.approval import ApprovalQuery
from runlane.api.access import Role
from runlane.api.presenting import POLL_AFTER
from runlane.settings import Settings
from runlane.tools.loading import load
from runlane.tools.toolbox import RegisteredTools
from tests.api import Api, serving
from tests.clerk import Clerk
from tests.lab import Lab, LabRun, eventually
from tests.simulator_process import SimulatorProcess
from workflows.contract import RunView
from workflows.run import RunWorkflow

pytestmark = [
    pytest.mark.filterwarnings("ignore:The Assistants API is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:deprecated$:DeprecationWarning"),
]

TOOL: FunctionToolParam = {
    "type": "function",
    "function": {"name": "lookup_order", "parameters": {"type": "object"}},
}
OTHER: FunctionToolParam = {
    "type": "function",
    "function": {"name": "lookup_price", "parameters": {"type": "object"}},
}


@pytest_asyncio.fixture
async def api(lab: Lab) -> AsyncIterator[Api]:
    async with serving(lab) as served:
        yield served


def _calls(run: SdkRun) -> list[str]:
    assert run.required_action is not None
    return [call.id for call in run.required_action.submit_tool_outputs.tool_calls]


async def _asking(api: Api, lab: Lab, *tools: FunctionToolParam) -> SdkRun:
    """Return a run that waits for its caller."""
    run = await api.sdk().beta.threads.runs.create_and_poll(
        thread_id=lab.thread_id, assistant_id=lab.assistant_id, tools=list(tools or (TOOL,))
    )
    assert "requires_action" == run.status
    return run


async def test_a_run_with_a_tool_is_driven_by_the_sdk_as_it_stands(api: Api, lab: Lab) -> None:
    """`create_and_poll`, `submit_tool_outputs_and_poll` and `steps` end in a completed run."""
    runs = api.sdk().beta.threads.runs
    run = await _asking(api, lab)
    [call] = _calls(run)
    done = await runs.submit_tool_outputs_and_poll(
        run_id=run.id,
        thread_id=lab.thread_id,
        tool_outputs=[{"tool_call_id": call, "output": "shipped"}],
    )
    assert "completed" == done.status
    assert done.usage is not None
    steps = await runs.steps.list(run_id=run.id, thread_id=lab.thread_id)
    assert {run.id} == {step.run_id for step in steps.data}
    step = await runs.steps.retrieve(
        step_id=steps.data[0].id, run_id=run.id, thread_id=lab.thread_id
    )
    assert steps.data[0] == step


async def test_a_run_shows_nothing_of_ours_unless_asked(api: Api, lab: Lab) -> None:
    """No stamps in the metadata, the deadline as `expires_at`; `runlane` only where included."""
    http = api.http()
    path = f"/threads/{lab.thread_id}/runs"
    created = await http.post(
        path, json={"assistant_id": lab.assistant_id, "tools": [TOOL], "metadata": {"order": "7"}}
    )
    run = created.json()
    assert {"order": "7"} == run["metadata"]
    assert 90 * 86400 == run["expires_at"] - run["created_at"]
    assert "runlane" not in run
    assert 500 <= int(created.headers[POLL_AFTER])
    asked = await http.get(f"{path}/{run['id']}", params={"include[]": "runlane"})
    assert "ada" == asked.json()["runlane"]["owner"]


async def test_metadata_is_replaced(api: Api, lab: Lab) -> None:
    """`update` is the seed's: the pairs replace the former ones."""
    run = await _asking(api, lab)
    runs = api.sdk().beta.threads.runs
    changed = await runs.update(
        run_id=run.id, thread_id=lab.thread_id, metadata={"reviewed": "yes"}
    )
    assert {"reviewed": "yes"} == changed.metadata


async def test_a_thread_takes_one_run_at_a_time(api: Api, lab: Lab) -> None:
    """A second run is refused in the seed's words while ours lives, parked too."""
    run = await _asking(api, lab)
    runs = api.sdk().beta.threads.runs
    upstream_run = (await api.services.runlane.runs.view(run.id)).runlane.upstream_run_id
    assert upstream_run is not None
    await lab.force(upstream_run, "expired")

    async def look() -> RunView:
        # Ignored within 2 s of a look at the upstream run.
        await api.services.runlane.runs.nudge(run.id)
        return await api.services.runlane.runs.view(run.id)

    await eventually(look, lambda view: view.runlane.parked)
    with pytest.raises(openai.BadRequestError) as refused:
        await runs.create(thread_id=lab.thread_id, assistant_id=lab.assistant_id)
    told = f"Thread {lab.thread_id} already has an active run {run.id}."
    assert told == refused.value.body["message"]  # type: ignore[index]  # the SDK types it loosely


async def test_a_request_sent_again_names_the_same_run(api: Api, lab: Lab) -> None:
    """By its key, and by the SDK's count of retries where its answer was lost."""
    runs = api.sdk().beta.threads.runs
    key = {"Idempotency-Key": f"order-{lab.thread_id}"}
    first = await runs.create(
        thread_id=lab.thread_id, assistant_id=lab.assistant_id, tools=[TOOL], extra_headers=key
    )
    again = await runs.create(
        thread_id=lab.thread_id, assistant_id=lab.assistant_id, tools=[TOOL], extra_headers=key
    )
    retried = await api.http().post(
        f"/threads/{lab.thread_id}/runs",
        json={"assistant_id": lab.assistant_id, "tools": [TOOL]},
        headers={"x-stainless-retry-count": "1"},
    )
    assert [first.id, first.id] == [again.id, retried.json()["id"]]
    with pytest.raises(openai.BadRequestError) as refused:
        await runs.create(
            thread_id=lab.thread_id, assistant_id="asst_other", tools=[TOOL], extra_headers=key
        )
    assert "idempotency_key_reused" == refused.value.code


async def test_outputs_are_taken_all_or_none(api: Api, lab: Lab) -> None:
    """A part is refused in the seed's words and nothing is kept of it; all together are taken."""
    run = await _asking(api, lab, TOOL, OTHER)
    first, second = _calls(run)
    runs = api.sdk().beta.threads.runs
    with pytest.raises(openai.BadRequestError) as refused:
        await runs.submit_tool_outputs(
            run_id=run.id,
            thread_id=lab.thread_id,
            tool_outputs=[{"tool_call_id": first, "output": "a"}],
        )
    told = f"Expected tool outputs for call_ids ['{first}', '{second}'], got ['{first}']"
    assert told == refused.value.body["message"]  # type: ignore[index]  # the SDK types it loosely
    done = await runs.submit_tool_outputs_and_poll(
        run_id=run.id,
        thread_id=lab.thread_id,
        tool_outputs=[
            {"tool_call_id": first, "output": "other"},
            {"tool_call_id": second, "output": "b"},
        ],
    )
    assert "completed" == done.status


async def test_a_submit_sent_again_changes_nothing(api: Api, lab: Lab) -> None:
    """The same outputs are answered with the run; others come too late, in the seed's words."""
    run = await _asking(api, lab)
    [call] = _calls(run)
    runs = api.sdk().beta.threads.runs
    for _ in range(2):
        await runs.submit_tool_outputs(
            run_id=run.id,
            thread_id=lab.thread_id,
            tool_outputs=[{"tool_call_id": call, "output": "shipped"}],
        )
    done = await runs.poll(run_id=run.id, thread_id=lab.thread_id)
    assert "completed" == done.status
    with pytest.raises(openai.BadRequestError) as refused:
        await runs.submit_tool_outputs(
            run_id=run.id,
            thread_id=lab.thread_id,
            tool_outputs=[{"tool_call_id": call, "output": "lost"}],
        )
    told = 'Runs in status "completed" do not accept tool outputs.'
    assert told == refused.value.body["message"]  # type: ignore[index]  # the SDK types it loosely
    assert 1 == await lab.accepted("runs.submit_tool_outputs")


async def test_a_submit_is_answered_with_the_run_as_it_then_is(api: Api, lab: Lab) -> None:
    """The answer is what a look shows while the outputs are on their way, and says to look soon."""
    run = await _asking(api, lab)
    [call] = _calls(run)
    on_its_way = await lab.fault("runs.submit_tool_outputs", "hold_before")
    http, path = api.http(), f"/threads/{lab.thread_id}/runs/{run.id}"
    taken = await http.post(
        f"{path}/submit_tool_outputs",
        json={"tool_outputs": [{"tool_call_id": call, "output": "shipped"}]},
    )
    await lab.held(on_its_way)
    looked = await http.get(path)
    await lab.release(on_its_way)
    assert "queued" == taken.json()["status"]
    assert looked.json() == taken.json()
    assert "500" == taken.headers[POLL_AFTER]


async def test_a_cancelled_run_ends_and_is_not_cancelled_twice(api: Api, lab: Lab) -> None:
    """`cancel` answers `cancelling`, `poll` the end; then the seed's 400."""
    run = await _asking(api, lab)
    runs = api.sdk().beta.threads.runs
    asked = await runs.cancel(run_id=run.id, thread_id=lab.thread_id)
    assert asked.status in ("cancelling", "cancelled")
    ended = await runs.poll(run_id=run.id, thread_id=lab.thread_id)
    assert "cancelled" == ended.status
    with pytest.raises(openai.BadRequestError) as refused:
        await runs.cancel(run_id=run.id, thread_id=lab.thread_id)
    told = "Cannot cancel run with status 'cancelled'."
    assert told == refused.value.body["message"]  # type: ignore[index]  # the SDK types it loosely


async def test_runs_are_paged_both_ways(api: Api, lab: Lab) -> None:
    """The SDK's own paging reads all runs, in either order; `before` reads back."""
    runs = api.sdk().beta.threads.runs
    made = []
    for _ in range(3):
        run = await runs.create_and_poll(thread_id=lab.thread_id, assistant_id=lab.assistant_id)
        assert "completed" == run.status
        made.append(run.id)

    async def listed() -> list[str]:
        pages = runs.list(thread_id=lab.thread_id, limit=2, order="asc")
        return [run.id async for run in pages]

    assert made == await eventually(listed, lambda found: len(found) == 3)
    newest = [run.id async for run in runs.list(thread_id=lab.thread_id, limit=1)]
    assert made[::-1] == newest
    page = await runs.list(thread_id=lab.thread_id, before=made[2], order="asc", limit=2)
    assert made[:2] == [run.id for run in page.data]


async def test_errors_have_the_sdk_s_classes(api: Api, lab: Lab) -> None:
    """What isn't there, what can't be used, and a URL that is none."""
    runs = api.sdk().beta.threads.runs
    with pytest.raises(openai.NotFoundError) as absent:
        await runs.retrieve(run_id="run_nobody", thread_id=lab.thread_id)
    assert "No run found with id 'run_nobody'." == absent.value.body["message"]  # type: ignore[index]  # the SDK types it loosely
    with pytest.raises(openai.BadRequestError) as wrong:
        await runs.create(thread_id=lab.thread_id, assistant_id=lab.assistant_id, temperature=3)
    assert "temperature" == wrong.value.param
    run = await _asking(api, lab)
    with pytest.raises(openai.NotFoundError):
        await runs.retrieve(run_id=run.id, thread_id="thread_other")
    nowhere = await api.http().get("/nowhere")
    assert (404, "invalid_request_error") == (
        nowhere.status_code,
        nowhere.json()["error"]["type"],
    )


async def test_two_creates_at_once_leave_one_run(api: Api, lab: Lab) -> None:
    """Of two requests that race for a thread, one is refused or both name one run."""
    runs = api.sdk().beta.threads.runs
    both = await asyncio.gather(
        *(runs.create(thread_id=lab.thread_id, assistant_id=lab.assistant_id) for _ in range(2)),
        return_exceptions=True,
    )
    assert 1 == sum(isinstance(each, openai.BadRequestError) for each in both)


async def test_a_body_may_say_what_the_protocol_can_t(api: Api, lab: Lab) -> None:
    """`runlane` in the body has the options of `create`; an unknown one is refused by its name."""
    runs = api.sdk().beta.threads.runs
    run = await runs.create(
        thread_id=lab.thread_id,
        assistant_id=lab.assistant_id,
        tools=[TOOL],
        extra_body={"runlane": {"deadline": 3600, "on_expiry": "fail"}},
    )
    assert run.expires_at is not None
    assert 3600 == run.expires_at - run.created_at
    with pytest.raises(openai.BadRequestError) as refused:
        await runs.create(
            thread_id="thread_other",
            assistant_id=lab.assistant_id,
            extra_body={"runlane": {"dead_line": 3600}},
        )
    assert "runlane.dead_line" == refused.value.param


async def test_what_json_has_no_word_for_is_refused(api: Api, lab: Lab) -> None:
    """A NaN, which Python's own parser takes, doesn't become null on its way."""
    refused = await api.http().post(
        f"/threads/{lab.thread_id}/runs",
        content=f'{{"assistant_id": "{lab.assistant_id}", "temperature": NaN}}',
        headers={"content-type": "application/json"},
    )
    assert (400, "temperature") == (refused.status_code, refused.json()["error"]["param"])


async def test_a_call_that_people_decide_is_none_of_the_callers(
    client: Client, simulator: SimulatorProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`create_and_poll` sees the run at work until somebody has decided, and then its end.

    Its owner sees it among the calls that wait for people, and nobody else's reader does.
    """
    monkeypatch.setenv("TILL_JOURNAL", str(tmp_path / "till"))
    lab, clerk = Lab(client, simulator), Clerk()
    tools = RegisteredTools(load(Settings(tools=("tests.till_tools",))))
    async with (
        lab.worker(tools=tools, verifier=clerk.verifier),
        serving(lab, local=None, tools=("tests.till_tools",)) as api,
    ):
        runs = api.sdk(await api.token(Role.OPERATOR, "ada")).beta.threads.runs
        polling = asyncio.create_task(
            runs.create_and_poll(
                thread_id=lab.thread_id,
                assistant_id=lab.assistant_id,
                extra_body={"runlane": {"with_tools": True}},
            )
        )
        listing = api.services.ledger.approvals.list
        approvals = await eventually(lambda: listing(ApprovalQuery()), lambda page: bool(page.data))
        run = LabRun(client.get_workflow_handle_for(RunWorkflow.run, approvals.data[0].key.run_id))
        listed = {}
        for person in ("ada", "bob"):
            http = api.http(await api.token(Role.READER, person))
            listed[person] = (await http.get("/approvals")).json()["data"]
        assert ([run.id], []) == ([each["run_id"] for each in listed["ada"]], listed["bob"])
        seen = await runs.retrieve(run_id=run.id, thread_id=lab.thread_id)
        assert ("in_progress", None) == (seen.status, seen.required_action)
        assert "recorded" == await clerk.decide("approve", run)
        ended = await polling
    assert "completed" == ended.status
    assert 1 == len((tmp_path / "till").read_text().splitlines())
