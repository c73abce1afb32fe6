"""Schemathesis over the whole API, as an admin, while there are runs in every state."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import hypothesis
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from temporalio.client import Client

from runlane.api.access import Role
from runlane.api.app import create_app
from runlane.decisions import keys
from runlane.settings import Settings
from tests.api import Api, serving
from tests.lab import Lab, eventually
from tests.simulator_process import SimulatorProcess
from tests.till import Till, refund

CASES = 6
"""Of each kind for each operation: those that fit the document, and those that don't."""
SSE = "text/event-stream"
JSON = "application/json"
FORM = "multipart/form-data"
TOOL = {"type": "function", "function": {"name": "ask", "parameters": {"type": "object"}}}
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]

CREATE = {"assistant_id": "asst_of_callers"}
BATCH = {"endpoint": "/v1/threads/runs", "completion_window": "24h"}
LINE = {
    "custom_id": "ticket-1",
    "method": "POST",
    "url": "/v1/threads/runs",
    "body": CREATE,
}

Ids = Mapping[str, str]
Operation = APIOperation[Any, Any, Any, Any]


@dataclass(frozen=True)
class Sent:
    """What an operation is sent."""

    ids: Ids = field(default_factory=dict)
    body: Any = None
    query: Mapping[str, str] = field(default_factory=dict)
    media_type: str = JSON


class Desk:
    """An admin before an API, and what they need to ask for everything there is."""

    def __init__(self, lab: Lab, api: Api, token: str) -> None:
        self.lab, self.api, self.token = lab, api, token
        self.http = api.http(token)
        self._threads = 0

    async def made(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create something, and return it."""
        answer = await self.http.post(path, json=body)
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def thread(self) -> Ids:
        """Return a new thread."""
        return {"thread_id": (await self.made("/threads", {}))["id"]}

    async def message(self) -> Ids:
        """Return a new message, on a thread of its own."""
        ids = await self.thread()
        body = {"role": "user", "content": "Where is my order?"}
        made = await self.made(f"/threads/{ids['thread_id']}/messages", body)
        return {**ids, "message_id": made["id"]}

    async def assistant(self) -> Ids:
        """Return a new assistant."""
        return {"assistant_id": (await self.made("/assistants", {"model": "gpt-4o"}))["id"]}

    async def run(self, *tools: Mapping[str, Any]) -> Ids:
        """Return a run that waits for its caller, or without tools one that has ended."""
        ids = await self.thread()
        path = f"/threads/{ids['thread_id']}/runs"
        body = {"assistant_id": "asst_of_callers", "tools": list(tools)}
        run = await self.made(path, body)

        async def status() -> str:
            return str((await self.http.get(f"{path}/{run['id']}")).json()["status"])

        until = "requires_action" if tools else "completed"
        await eventually(status, lambda found: found == until)
        return {**ids, "run_id": run["id"]}

    async def call(self) -> Ids:
        """Return a call that waits for people, of a run that then waits for its caller too."""
        self._threads += 1
        run = await self.lab.start(
            with_tools=True, thread_id=f"{self.lab.thread_id}_{self._threads}"
        )

        async def waiting() -> list[str]:
            page = await self.lab.ledger.approvals.of_run(run.id)
            return [each.key.call_id for each in page]

        [call_id] = await eventually(waiting, bool)
        return {"run_id": run.id, "tool_call_id": call_id}

    async def file(self, *tools: Mapping[str, Any]) -> Ids:
        """Return a new file, of one line whose run ends, or with tools waits for its caller."""
        line = {**LINE, "body": {**CREATE, "tools": list(tools)}}
        answer = await self.http.post(
            "/files",
            files={"file": ("in.jsonl", json.dumps(line).encode())},
            data={"purpose": "batch"},
        )
        assert answer.is_success, answer.text
        return {"file_id": answer.json()["id"]}

    async def batch(self, *tools: Mapping[str, Any]) -> Ids:
        """Return a new batch, which ends soon, or with tools waits for its caller."""
        body = {**BATCH, "input_file_id": (await self.file(*tools))["file_id"]}
        return {"batch_id": (await self.made("/batches", body))["id"]}

    async def results(self) -> Ids:
        """Return the file of the results of a batch that has ended."""
        path = f"/batches/{(await self.batch())['batch_id']}"

        async def output() -> str | None:
            found: str | None = (await self.http.get(path)).json()["output_file_id"]
            return found

        found = await eventually(output, bool)
        assert found is not None
        return {"file_id": found}


@pytest.fixture
def simulator() -> Iterator[SimulatorProcess]:
    """One of these tests' own: they change and delete whatever an assistant is called."""
    with SimulatorProcess() as process:
        yield process


@asynccontextmanager
async def desk(client: Client, simulator: SimulatorProcess) -> AsyncIterator[Desk]:
    lab, till = Lab(client, simulator), Till()
    async with lab.open_ledger() as ledger:
        data_dir = ledger.location.file.parent
    keys.make(data_dir)
    verifier = keys.verifier(Settings(), data_dir)
    calls = [refund(), {"name": "ask", "arguments": {}}]
    await lab.scenario(rounds=[{"calls": calls}, {"says": "Done."}])
    async with (
        lab.worker(tools=till.tools, verifier=verifier),
        serving(lab, local=None, data_dir=data_dir) as api,
    ):
        yield Desk(lab, api, await api.token(Role.ADMIN, "ada"))


Row = Callable[[Desk], Awaitable[Sent]]


def nothing(body: Any = None) -> Row:
    """Send this to an operation without path parameters."""

    async def row(_: Desk) -> Sent:
        return Sent(body=body)

    return row


def on(make: Callable[[Desk], Awaitable[Ids]], body: Any = None) -> Row:
    """Send this to an operation on something that is made for it."""

    async def row(at: Desk) -> Sent:
        return Sent(ids=await make(at), body=body)

    return row


async def asking(at: Desk) -> Ids:
    return await at.run(TOOL)


async def ended(at: Desk) -> Ids:
    return await at.run()


async def step(at: Desk) -> Ids:
    ids = await ended(at)
    path = f"/threads/{ids['thread_id']}/runs/{ids['run_id']}/steps"
    return {**ids, "step_id": (await at.http.get(path)).json()["data"][0]["id"]}


async def outputs(at: Desk) -> Sent:
    ids = await asking(at)
    run = (await at.http.get(f"/threads/{ids['thread_id']}/runs/{ids['run_id']}")).json()
    calls = run["required_action"]["submit_tool_outputs"]["tool_calls"]
    said = [{"tool_call_id": each["id"], "output": "yes"} for each in calls]
    return Sent(ids=ids, body={"tool_outputs": said})


async def approved(at: Desk) -> Ids:
    ids = await at.call()
    path = f"/approvals/{ids['run_id']}/{ids['tool_call_id']}/approve"
    await at.made(path, {"for_rest_of_run": True})
    return ids


async def claimed(at: Desk) -> Ids:
    ids = await at.call()
    await at.made(f"/approvals/{ids['run_id']}/{ids['tool_call_id']}/claim", {})
    return ids


async def resumption(at: Desk) -> Sent:
    await at.made("/stops", {"tool": "refund", "reason": "Look first."})
    return Sent(body={"tool": "refund"})


async def token(at: Desk) -> Ids:
    body = {"name": "shop", "person": "shop", "role": "reader"}
    return {"name": (await at.made("/tokens", body))["name"]}


async def upload(_: Desk) -> Sent:
    return Sent(body={"file": json.dumps(LINE).encode(), "purpose": "batch"}, media_type=FORM)


async def waiting_batch(at: Desk) -> Ids:
    return await at.batch(TOOL)


async def batch_of_file(at: Desk) -> Sent:
    return Sent(body={**BATCH, "input_file_id": (await at.file())["file_id"]})


SAYS = {"role": "user", "content": "Where is my order?"}
NOTE = {"metadata": {"ticket": "7"}}

ROWS: dict[str, Row] = {
    "createThreadAndRun": nothing({**CREATE, "thread": {"messages": [SAYS]}}),
    "createRun": on(Desk.thread, CREATE),
    "listRuns": on(ended),
    "getRun": on(ended),
    "modifyRun": on(asking, NOTE),
    "cancelRun": on(asking),
    "submitToolOutputsToRun": outputs,
    "listRunSteps": on(ended),
    "getRunStep": on(step),
    "streamRunEvents": on(ended),
    "createThread": nothing({"messages": [SAYS]}),
    "getThread": on(Desk.thread),
    "modifyThread": on(Desk.thread, NOTE),
    "deleteThread": on(Desk.thread),
    "createMessage": on(Desk.thread, SAYS),
    "listMessages": on(Desk.message),
    "getMessage": on(Desk.message),
    "modifyMessage": on(Desk.message, NOTE),
    "deleteMessage": on(Desk.message),
    "createAssistant": nothing({"model": "gpt-4o"}),
    "listAssistants": nothing(),
    "getAssistant": on(Desk.assistant),
    "modifyAssistant": on(Desk.assistant, {"name": "Orders"}),
    "deleteAssistant": on(Desk.assistant),
    "listApprovals": nothing(),
    "getApproval": on(Desk.call),
    "approveCall": on(Desk.call, {"note": "Checked."}),
    "rejectCall": on(Desk.call, {"reason": "Paid already."}),
    "answerCall": on(Desk.call, {"output": "paid by hand"}),
    "claimCall": on(Desk.call),
    "releaseCall": on(claimed),
    "revokeCall": on(approved),
    "exportAudit": nothing(),
    "listStops": nothing(),
    "orderStop": nothing({"tool": "look_up", "reason": "Wrong."}),
    "resume": resumption,
    "listTools": nothing(),
    "listTokens": nothing(),
    "createToken": nothing({"name": "till", "person": "till", "role": "reader"}),
    "revokeToken": on(token),
    "createFile": upload,
    "listFiles": nothing(),
    "retrieveFile": on(Desk.results),
    "downloadFile": on(Desk.results),
    "deleteFile": on(Desk.file),
    "createBatch": batch_of_file,
    "listBatches": nothing(),
    "retrieveBatch": on(Desk.batch),
    "cancelBatch": on(waiting_batch),
    "healthz": nothing(),
    "readyz": nothing(),
    "metrics": nothing(),
}
"""How each operation is asked so that it must do as it is asked."""


def document() -> dict[str, Any]:
    return create_app(None).openapi()  # type: ignore[arg-type]  # nothing is served


def operations() -> dict[str, Operation]:
    """Return each operation by its id."""
    schema = schemathesis.openapi.from_dict(document())
    found = [each.ok() for each in schema.get_all_operations() if isinstance(each, Ok)]
    return {each.definition.raw["operationId"]: each for each in found}


def test_every_operation_has_a_row() -> None:
    """Whoever adds a route says here how it is asked."""
    methods = [each for path in document()["paths"].values() for each in path.values()]
    assert {each["operationId"] for each in methods} == set(ROWS)


@pytest.mark.slow
async def test_every_operation_answers_an_admin(
    client: Client, simulator: SimulatorProcess
) -> None:
    """Each does as it is asked, in the state that it needs, and answers as it is documented."""
    async with desk(client, simulator) as at:

        async def answered(name: str) -> None:
            sent = await ROWS[name](at)
            await asyncio.to_thread(_must_do, by_id[name], at, sent)

        by_id = operations()
        turns = asyncio.Semaphore(4)

        async def in_turn(name: str) -> None:
            async with turns:
                await answered(name)

        await asyncio.gather(*map(in_turn, ROWS))


@pytest.mark.slow
async def test_nothing_that_is_generated_brings_the_api_down(
    client: Client, simulator: SimulatorProcess
) -> None:
    """What fits the document and what doesn't: every refusal is a 4xx, in the protocol's words."""
    async with desk(client, simulator) as at:
        seeds = await _seeded(at)
        tried = await asyncio.to_thread(_try_all, at, seeds)
    assert tried >= CASES * len(ROWS) / 2


async def _seeded(at: Desk) -> Mapping[str, list[Ids]]:
    """Return ids for each operation's path or body; what ends something has its own."""
    run, done, kept, message, assistant = await asyncio.gather(
        asking(at), step(at), at.call(), at.message(), at.assistant()
    )
    file, results, batch = await asyncio.gather(at.file(), at.results(), at.batch())
    last: dict[str, Callable[[Desk], Awaitable[Ids]]] = {
        "cancelRun": asking,
        "deleteThread": Desk.thread,
        "deleteMessage": Desk.message,
        "deleteAssistant": Desk.assistant,
        "approveCall": Desk.call,
        "rejectCall": Desk.call,
        "answerCall": Desk.call,
        "revokeCall": approved,
        "revokeToken": token,
        "deleteFile": Desk.file,
        "cancelBatch": waiting_batch,
    }
    ending = await asyncio.gather(*(make(at) for make in last.values()))
    calls = ("getApproval", "claimCall", "releaseCall")
    return {
        **{name: [message] for name in ROWS if "Thread" in name or "Message" in name},
        **{name: [run, done] for name in ROWS if "Run" in name},
        **{name: [kept] for name in calls},
        **{name: [assistant] for name in ("getAssistant", "modifyAssistant")},
        **{name: [file, results] for name in ("retrieveFile", "downloadFile")},
        "retrieveBatch": [batch],
        "createBatch": [{"input_file_id": file["file_id"]}],
        **{name: [ids] for name, ids in zip(last, ending, strict=True)},
    }


def _try_all(at: Desk, seeds: Mapping[str, list[Ids]]) -> int:
    tried = 0
    for name, operation in operations().items():
        for mode in GenerationMode:
            if mode is GenerationMode.NEGATIVE and not _can_be_wrong(operation):
                continue
            strategy = _cases(operation, mode, seeds.get(name, []))

            @hypothesis.settings(
                max_examples=CASES,
                derandomize=True,
                database=None,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @hypothesis.given(strategy)
            def holds(case: Case[Any]) -> None:
                nonlocal tried
                tried += 1
                _check(case, _answer(case, at))

            holds()
    return tried


def _can_be_wrong(operation: Operation) -> bool:
    raw = operation.definition.raw
    return bool(raw.get("parameters")) or "requestBody" in raw


def _cases(
    operation: Operation, mode: GenerationMode, seeds: list[Ids]
) -> st.SearchStrategy[Case[Any]]:
    names = {each.name for each in operation.path_parameters}
    seeded = [
        operation.as_strategy(mode, path_parameters={name: ids[name] for name in names})
        for ids in seeds
        if names and names <= set(ids)
    ]
    any_case = operation.as_strategy(mode)
    in_body = [
        any_case.map(partial(_with_body, ids=ids)) for ids in seeds if "input_file_id" in ids
    ]
    return st.one_of(*seeded, *in_body, any_case)


def _with_body(case: Case[Any], ids: Ids) -> Case[Any]:
    if isinstance(case.body, dict):
        case.body = {**case.body, **ids}
    return case


def _must_do(operation: Operation, at: Desk, sent: Sent) -> None:
    body = {} if sent.body is None else {"body": sent.body, "media_type": sent.media_type}
    case = operation.Case(path_parameters=dict(sent.ids), query=dict(sent.query), **body)
    answer = _answer(case, at)
    assert answer.ok, (operation.label, answer.status_code, answer.text)
    _check(case, answer)


def _answer(case: Case[Any], at: Desk) -> requests.Response:
    """Ask, and read the answer; of a stream only how it begins."""
    sent = case.as_transport_kwargs(base_url=at.api.url.removesuffix("/v1"))
    # Generated ones would all be refused for it.
    sent["headers"]["authorization"] = f"Bearer {at.token}"
    with requests.Session() as session:
        answer = session.request(**sent, stream=True, timeout=30)
        if not answer.headers.get("content-type", "").startswith(SSE):
            assert answer.content is not None
            return answer
        answer._content = b""
        answer.close()
    return answer


def _check(case: Case[Any], answer: requests.Response) -> None:
    case.validate_response(answer, checks=CHECKS)
    if answer.ok:
        return
    error = answer.json()["error"]
    assert {"message", "type", "param", "code"} == set(error)
    assert error["message"]
