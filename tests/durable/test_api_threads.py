"""Threads, messages and assistants through the API, asked by the official SDK."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import openai
import pytest
import pytest_asyncio
from openai.types.beta import FunctionToolParam
from temporalio.client import Client

from activities.contract import RUN_ID_STAMP
from ledger.run_record import RunRecord
from runlane.api.access import Principal, Role
from runsapi import Assistants, StaticKey
from tests.api import Api, serving
from tests.lab import QUICK, Lab, LabRun
from tests.outsider import Outsider
from tests.simulator_process import SimulatorProcess

pytestmark = [
    pytest.mark.filterwarnings("ignore:The Assistants API is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:deprecated$:DeprecationWarning"),
]

TOOL: FunctionToolParam = {
    "type": "function",
    "function": {"name": "lookup_order", "parameters": {"type": "object"}},
}
SOON = QUICK.model_copy(update={"look_floor": 0.2})
"""Looks at a waiting upstream run so often that a forced expiry is seen at once."""
ASK = {"queued": 0.05, "in_progress": 0.05, "says": "One moment.", "calls": [{"name": "look"}]}
DONE = {"queued": 0.05, "in_progress": 0.05, "says": "Done."}


@pytest_asyncio.fixture
async def api(lab: Lab) -> AsyncIterator[Api]:
    async with serving(lab) as served:
        yield served


async def recreated(lab: Lab, outsider: Outsider) -> LabRun:
    """Return a run that has ended, with messages of two upstream runs."""
    await lab.scenario(rounds=[ASK, DONE])
    run = await lab.start(timing=SOON)
    view = await run.until(lambda view: bool(view.runlane.pending))
    outsider.force(str(view.runlane.upstream_run_id), "expired")
    await run.until(lambda view: view.runlane.parked)
    await run.submit((view.runlane.pending[0].tool_call_id, "there"))
    result = await run.result()
    assert 2 == len(result.runlane.attempts)
    return run


async def test_assistants_are_the_upstreams(api: Api, lab: Lab) -> None:
    """They are made, read and listed as if the upstream itself were asked."""
    assistants = api.sdk().beta.assistants
    made = await assistants.create(model="gpt-4o", name="Orders", tools=[TOOL])
    found = await assistants.retrieve(made.id)
    page = await assistants.list(limit=1)
    assert made == found
    assert "Orders" == found.name
    assert [made.id] == [each.id for each in page.data]


async def test_a_thread_is_the_upstreams_with_fields_nobody_knows(api: Api, lab: Lab) -> None:
    """What the protocol doesn't name reaches the upstream, and its answer comes back as it is."""
    threads = api.sdk().beta.threads
    made = await threads.create(
        messages=[{"role": "user", "content": "Hello"}], metadata={"ticket": "7"}
    )
    found = await threads.retrieve(made.id)
    with pytest.raises(openai.BadRequestError) as refused:
        await threads.create(extra_body={"colour": "red"})
    messages = await threads.messages.list(made.id)
    assert made == found
    assert {"ticket": "7"} == found.metadata
    assert 1 == len(messages.data)
    assert "Unknown parameter: 'colour'." in str(refused.value)
    assert "unknown_parameter" == refused.value.code


async def test_what_is_the_upstreams_is_changed_and_deleted_there(api: Api, lab: Lab) -> None:
    """Assistants, threads and messages alike; what is gone is told as not found."""
    beta = api.sdk().beta
    assistant = await beta.assistants.create(model="gpt-4o")
    thread = await beta.threads.create()
    message = await beta.threads.messages.create(thread.id, role="user", content="Hello")
    named = await beta.assistants.update(assistant.id, name="Orders")
    marked = await beta.threads.update(thread.id, metadata={"ticket": "7"})
    seen = await beta.threads.messages.update(
        message.id, thread_id=thread.id, metadata={"seen": "yes"}
    )
    no_message = await beta.threads.messages.delete(message.id, thread_id=thread.id)
    no_thread = await beta.threads.delete(thread.id)
    no_assistant = await beta.assistants.delete(assistant.id)
    with pytest.raises(openai.NotFoundError):
        await beta.threads.messages.list(thread.id)
    with pytest.raises(openai.NotFoundError):
        await beta.assistants.retrieve(assistant.id)
    assert ("Orders", "gpt-4o") == (named.name, named.model)
    assert {"ticket": "7"} == marked.metadata
    assert {"seen": "yes"} == seen.metadata
    assert [message.id, thread.id, assistant.id] == [
        each.id for each in (no_message, no_thread, no_assistant) if each.deleted
    ]


async def test_messages_show_the_run_of_ours_that_wrote_them(
    api: Api, lab: Lab, outsider: Outsider
) -> None:
    """Whichever upstream run wrote it: in lists and alone, and no other message changes."""
    run = await recreated(lab, outsider)
    messages = api.sdk().beta.threads.messages
    await messages.create(lab.thread_id, role="user", content="Thanks")
    page = await messages.list(lab.thread_id, order="asc")
    alone = [await messages.retrieve(each.id, thread_id=lab.thread_id) for each in page.data]
    assert [run.id, run.id, None] == [each.run_id for each in page.data[-3:]]
    assert page.data == alone


async def test_the_messages_of_a_recreated_run_are_those_of_all_its_upstream_runs(
    api: Api, lab: Lab, outsider: Outsider
) -> None:
    """`messages.list(run_id=…)` pages through them in both orders, and by `before` too."""
    run = await recreated(lab, outsider)
    listed = api.sdk().beta.threads.messages.list
    forward = [each.id async for each in listed(lab.thread_id, run_id=run.id, order="asc", limit=1)]
    backward = [each.id async for each in listed(lab.thread_id, run_id=run.id, limit=1)]
    before = await listed(lab.thread_id, run_id=run.id, order="asc", before=forward[-1], limit=1)
    with pytest.raises(openai.NotFoundError):
        await listed(lab.thread_id, run_id=run.id, after="msg_nobodys")
    whole = await listed(lab.thread_id, run_id=run.id)
    texts = outsider.texts("assistant")
    assert len(texts) == len(forward) >= 2
    assert forward[::-1] == backward
    assert [forward[-2]] == [each.id for each in before.data]
    assert {run.id} == {each.run_id for each in whole.data}


async def test_a_run_that_nobody_here_knows_keeps_its_id(
    api: Api, lab: Lab, outsider: Outsider
) -> None:
    """One without a stamp, and one whose stamp names a run of somewhere else."""
    await lab.scenario(rounds=[DONE])
    messages = api.sdk().beta.threads.messages
    plain = outsider.create(lab.assistant_id)
    outsider.force(plain, "completed")
    foreign = outsider.create(lab.assistant_id, metadata={RUN_ID_STAMP: "run_ELSEWHERE"})
    outsider.force(foreign, "completed")
    page = await messages.list(lab.thread_id, order="asc")
    filtered = await messages.list(lab.thread_id, run_id=foreign)
    unknown = await messages.list(lab.thread_id, run_id="run_UNKNOWN")
    assert [plain, foreign] == [each.run_id for each in page.data]
    assert [foreign] == [each.run_id for each in filtered.data]
    assert [] == unknown.data


async def test_the_messages_of_a_run_are_found_without_a_worker(
    client: Client, simulator: SimulatorProcess
) -> None:
    """Those of all its upstream runs, by their stamps, while the run waits and nobody answers."""
    lab = Lab(client, simulator)
    outsider = Outsider(lab)
    async with lab.worker():
        await lab.scenario(rounds=[ASK, {**ASK, "calls": [{"name": "pay"}]}, DONE])
        run = await lab.start(timing=SOON)
        view = await run.until(lambda view: bool(view.runlane.pending))
        outsider.force(str(view.runlane.upstream_run_id), "expired")
        await run.until(lambda view: view.runlane.parked)
        await run.submit((view.runlane.pending[0].tool_call_id, "there"))
        await run.until(lambda view: "pay" in [call.name for call in view.runlane.pending])
    written = {each["id"] for each in outsider.runs()}
    async with lab.open_ledger(), serving(lab) as api:
        page = await api.sdk().beta.threads.messages.list(lab.thread_id, run_id=run.id)
        whole = await api.sdk().beta.threads.messages.list(lab.thread_id)
    await run.handle.terminate()
    outsider.close()
    assert 2 == len(written)
    assert 3 == len(page.data)
    assert page.data == whole.data
    assert {run.id} == {each.run_id for each in page.data}


async def test_a_run_that_temporal_has_forgotten_has_its_messages(
    api: Api, lab: Lab, outsider: Outsider
) -> None:
    """The ledger knows it still, and whose it was: somebody else is shown an empty page."""
    await lab.scenario(rounds=[DONE])
    run_id = f"run_{secrets.token_hex(8)}"
    now = datetime.now(UTC)
    record = RunRecord(
        run_id=run_id,
        owner="ann",
        thread_id=lab.thread_id,
        status="completed",
        created_at=now,
        updated_at=now,
    )
    await lab.ledger.runs.record(record)
    upstream_run_id = outsider.create(lab.assistant_id, metadata={RUN_ID_STAMP: run_id})
    outsider.force(upstream_run_id, "completed")
    page = await api.sdk().beta.threads.messages.list(lab.thread_id, run_id=run_id)
    somebody = Principal(person="bob", role=Role.READER, token="reading")
    async with serving(lab, local=somebody) as other:
        listed = other.sdk().beta.threads.messages.list
        empty = await listed(lab.thread_id, run_id=run_id)
        whole = await listed(lab.thread_id)
    assert [run_id] == [each.run_id for each in page.data]
    assert [] == empty.data
    assert page.data == whole.data


async def test_anothers_run_shows_no_messages(api: Api, lab: Lab) -> None:
    """Asked for by its id, it is as if there were no such run; by whose it is, they are there."""
    await lab.scenario(rounds=[DONE])
    ann = Principal(person="ann", role=Role.OPERATOR, token="of-ann")
    bob = Principal(person="bob", role=Role.OPERATOR, token="of-bob")
    async with serving(lab, local=ann) as hers, serving(lab, local=bob) as his:
        run = await hers.sdk().beta.threads.runs.create_and_poll(
            thread_id=lab.thread_id, assistant_id=lab.assistant_id, poll_interval_ms=100
        )
        pages = [
            await each.sdk().beta.threads.messages.list(lab.thread_id, run_id=run.id)
            for each in (hers, his)
        ]
    assert [[run.id], []] == [[each.run_id for each in page.data] for page in pages]


async def test_a_thread_needs_no_body(api: Api, lab: Lab) -> None:
    """As curl sends it; what is no JSON object is refused here, and isn't sent."""
    http = api.http()
    made = await http.post("/threads")
    before = len(lab.simulator.requests()["data"])
    refused = [
        await http.post(path, content=body, headers={"content-type": "application/json"})
        for path, body in (
            ("/threads", "[]"),
            ("/threads", "{"),
            ("/threads", '{"metadata": {"a": NaN}}'),
            ("/assistants", '{"model": "m", "temperature": NaN}'),
            ("/assistants", "{}"),
            (f"/threads/{lab.thread_id}/messages", '{"role": "user", "content": "\\ud800"}'),
            (f"/threads/{lab.thread_id}/messages", '{"role": "user"}'),
        )
    ]
    assert "thread" == made.json()["object"]
    assert [400] * 7 == [answer.status_code for answer in refused]
    assert all(answer.json()["error"]["message"] for answer in refused)
    assert before == len(lab.simulator.requests()["data"])


async def test_whose_an_upstream_run_is_is_asked_once(
    api: Api, lab: Lab, outsider: Outsider
) -> None:
    """A second page of the same messages costs the upstream one request, and Temporal none."""
    await recreated(lab, outsider)
    messages = api.sdk().beta.threads.messages
    first = await messages.list(lab.thread_id)
    asked = await lab.received("runs.retrieve")
    second = await messages.list(lab.thread_id)
    assert first.data == second.data
    assert asked == await lab.received("runs.retrieve")


async def test_a_thread_is_locked_while_one_of_our_runs_lives_on_it(
    api: Api, lab: Lab, outsider: Outsider
) -> None:
    """Parked too, when the upstream would take a message; the text names our run."""
    await lab.scenario(rounds=[ASK, DONE])
    run = await lab.start(timing=SOON)
    view = await run.until(lambda view: bool(view.runlane.pending))
    outsider.force(str(view.runlane.upstream_run_id), "expired")
    await run.until(lambda view: view.runlane.parked)
    threads = api.sdk().beta.threads
    with pytest.raises(openai.BadRequestError) as locked:
        await threads.messages.create(lab.thread_id, role="user", content="Hello?")
    with pytest.raises(openai.BadRequestError) as kept:
        await threads.delete(lab.thread_id)
    said = outsider.texts("user")
    await run.cancel()
    await run.result()
    made = await threads.messages.create(lab.thread_id, role="user", content="Hello?")
    text = f"Can't add messages to {lab.thread_id} while a run {run.id} is active."
    assert text == locked.value.body["message"]  # type: ignore[index] # the envelope's error
    assert f"while a run {run.id} is active" in str(kept.value)
    assert [] == said
    assert made.run_id is None


async def test_the_upstreams_refusal_of_a_locked_thread_names_our_run(
    api: Api, lab: Lab, outsider: Outsider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a run began between our look and the upstream's: a caller can only wait for ours."""
    await lab.scenario(rounds=[ASK, DONE])
    run = await lab.start()
    await run.until(lambda view: bool(view.runlane.pending))

    async def nobody(*_: Any) -> None:
        return None

    monkeypatch.setattr(api.services.begun, "living", nobody)
    with pytest.raises(openai.BadRequestError) as locked:
        await api.sdk().beta.threads.messages.create(lab.thread_id, role="user", content="Hello?")
    await run.cancel()
    await run.result()
    assert f"while a run {run.id} is active" in str(locked.value)


async def test_a_thread_and_its_run_are_made_in_one_call(api: Api, lab: Lab) -> None:
    """`create_and_run_poll` ends in a run on a new thread that holds the messages given."""
    await lab.scenario(rounds=[DONE])
    threads = api.sdk().beta.threads
    begun = await threads.create_and_run(assistant_id=lab.assistant_id)
    done = await threads.create_and_run_poll(
        assistant_id=lab.assistant_id,
        thread={"messages": [{"role": "user", "content": "Where is it?"}]},
        poll_interval_ms=100,
    )
    messages = await threads.messages.list(done.thread_id, order="asc")
    assert "completed" == done.status
    assert begun.thread_id != done.thread_id
    assert ["user", "assistant"] == [each.role for each in messages.data]
    assert [None, done.id] == [each.run_id for each in messages.data]


async def test_a_refused_call_makes_no_thread(api: Api, lab: Lab) -> None:
    """A run that can't be asked for leaves no thread behind."""
    before = lab.simulator.requests(operation="threads.create")["counts"]
    with pytest.raises(openai.BadRequestError):
        await api.sdk().beta.threads.create_and_run(
            assistant_id=lab.assistant_id, metadata={"runlane_run_id": "run_1"}
        )
    assert before == lab.simulator.requests(operation="threads.create")["counts"]


async def test_a_key_that_is_sent_twice_at_once_has_one_run(api: Api, lab: Lab) -> None:
    """`create_and_run` sent again while the first is under way answers with the same run."""
    await lab.scenario(rounds=[ASK])
    fault = await lab.fault("threads.create", "hold_before", thread_id=None)
    create = api.sdk().beta.threads.create_and_run
    headers = {"Idempotency-Key": secrets.token_hex(8)}
    first = asyncio.create_task(create(assistant_id=lab.assistant_id, extra_headers=headers))
    await lab.held(fault)
    second = await create(assistant_id=lab.assistant_id, extra_headers=headers)
    await lab.release(fault)
    third = await create(assistant_id=lab.assistant_id, extra_headers=headers)
    assert second.id == (await first).id == third.id
    assert second.thread_id == (await first).thread_id == third.thread_id
    await api.services.runlane.runs.cancel(second.id)


async def test_errors_keep_their_class(api: Api, lab: Lab) -> None:
    """Status, words and `retry-after` are the upstream's own."""
    threads = api.sdk().beta.threads
    with pytest.raises(openai.NotFoundError) as missing:
        await threads.messages.retrieve("msg_nobodys", thread_id=lab.thread_id)
    with pytest.raises(openai.NotFoundError):
        await threads.messages.retrieve("..%2f..", thread_id=lab.thread_id)
    await lab.fault("messages.create", "rate_limit", retry_after=7)
    with pytest.raises(openai.RateLimitError) as limited:
        await threads.messages.create(lab.thread_id, role="user", content="Hello")
    await lab.fault("messages.list", "server_error")
    with pytest.raises(openai.InternalServerError) as broken:
        await threads.messages.list(lab.thread_id)
    assert "No message found with id 'msg_nobodys'." == missing.value.body["message"]  # type: ignore[index] # the envelope's error
    assert "rate_limit_exceeded" == limited.value.code
    assert "7" == limited.value.response.headers["retry-after"]
    assert 500 == broken.value.status_code
    assert "server_error" == broken.value.type


async def test_a_message_whose_answer_is_lost_is_sent_once(
    api: Api, lab: Lab, outsider: Outsider
) -> None:
    """Whether the upstream has it is unknown, so the SDK is told not to try again by itself."""
    await lab.fault("messages.create", "lost_answer")
    sdk = api.sdk().with_options(max_retries=2)
    with pytest.raises(openai.InternalServerError) as lost:
        await sdk.beta.threads.messages.create(lab.thread_id, role="user", content="Once")
    assert 503 == lost.value.status_code
    assert "upstream_unreachable" == lost.value.code
    assert 1 == await lab.received("messages.create")
    assert ["Once"] == outsider.texts("user")


async def test_an_upstream_that_is_down_is_told_as_such(api: Api, lab: Lab) -> None:
    """With a `retry-after`, for nothing was sent; and its address isn't told."""
    async with Assistants("http://127.0.0.1:9/v1") as nowhere:
        object.__setattr__(api.services, "upstream", nowhere)
        beta = api.sdk().beta
        told = []
        for call in (
            beta.threads.create(),
            beta.threads.retrieve(lab.thread_id),
            beta.threads.messages.list(lab.thread_id, run_id="run_1"),
            beta.assistants.list(),
            beta.threads.create_and_run(assistant_id=lab.assistant_id),
        ):
            with pytest.raises(openai.InternalServerError) as down:
                await call
            told.append(down.value)
    assert {503} == {each.status_code for each in told}
    assert {"upstream_unreachable"} == {each.code for each in told}
    assert {"1"} == {each.response.headers["retry-after"] for each in told}
    assert not [each for each in told if "127.0.0.1" in each.response.text]


async def test_a_read_whose_answer_is_lost_may_be_asked_again(api: Api, lab: Lab) -> None:
    """The SDK tries it again by itself, and the caller sees nothing of it."""
    await lab.fault("threads.retrieve", "lost_answer")
    sdk = api.sdk().with_options(max_retries=2)
    found = await sdk.beta.threads.retrieve(lab.thread_id)
    assert lab.thread_id == found.id


async def test_an_answer_that_is_no_json_is_told_as_such(api: Api, lab: Lab) -> None:
    """A page of a gateway's is no answer, and nothing of it reaches the caller."""
    await lab.fault("threads.retrieve", "garbage", body="<html>secret</html>")
    with pytest.raises(openai.InternalServerError) as broken:
        await api.sdk().beta.threads.retrieve(lab.thread_id)
    assert 502 == broken.value.status_code
    assert "secret" not in str(broken.value)
    assert lab.simulator.url not in str(broken.value)


async def test_the_callers_token_stays_here(api: Api, lab: Lab) -> None:
    """The upstream is shown this server's key; where it refuses it, the caller sees none of it."""
    key = "sk-of-the-upstream"
    retrieve = api.sdk("the-callers-token").beta.threads.retrieve
    lab.simulator.demand(key)
    try:
        async with Assistants(lab.simulator.url, credentials=StaticKey(key)) as upstream:
            object.__setattr__(api.services, "upstream", upstream)
            found = await retrieve(lab.thread_id)
            lab.simulator.demand("sk-another")
            with pytest.raises(openai.InternalServerError) as refused:
                await retrieve(lab.thread_id)
    finally:
        lab.simulator.demand(None)
    told = refused.value.response.text + str(refused.value.response.headers)
    assert lab.thread_id == found.id
    assert 502 == refused.value.status_code
    assert "upstream_refused_credentials" == refused.value.code
    assert key not in told
    assert lab.simulator.url not in told


async def test_a_query_goes_along(api: Api, lab: Lab) -> None:
    """But for the `api-version`, which is for whoever set up the connection to the upstream."""
    listed = api.sdk().beta.threads.messages.list
    await listed(lab.thread_id, limit=3, extra_query={"api-version": "1", "colour": "red"})
    [entry] = await asyncio.to_thread(
        lambda: lab.simulator.requests(thread_id=lab.thread_id, operation="messages.list")["data"]
    )
    assert {"limit": "3", "colour": "red"} == entry["query"]


async def test_a_reader_reads(lab: Lab) -> None:
    """Whatever changes something upstream needs an operator, and what is refused isn't sent."""
    reader = Principal(person="rita", role=Role.READER, token="reading")
    async with serving(lab, local=reader) as api:
        beta, http = api.sdk().beta, api.http()
        await beta.assistants.list(limit=1)
        await beta.threads.retrieve(lab.thread_id)
        await beta.threads.messages.list(lab.thread_id)
        before = len(lab.simulator.requests()["data"])
        thread = f"/threads/{lab.thread_id}"
        message = {"role": "user", "content": "Hello"}
        refused = [
            await http.request(method, path, json=body)
            for method, path, body in (
                ("POST", "/assistants", {"model": "gpt-4o"}),
                ("POST", f"/assistants/{lab.assistant_id}", {}),
                ("DELETE", f"/assistants/{lab.assistant_id}", None),
                ("POST", "/threads", {}),
                ("POST", "/threads/runs", {"assistant_id": lab.assistant_id}),
                ("POST", thread, {}),
                ("DELETE", thread, None),
                ("POST", f"{thread}/messages", message),
                ("POST", f"{thread}/messages/msg_1", {}),
                ("DELETE", f"{thread}/messages/msg_1", None),
            )
        ]
        after = len(lab.simulator.requests()["data"])
    assert {403} == {answer.status_code for answer in refused}
    assert before == after
