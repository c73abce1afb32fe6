"""People who decide, look and stop over HTTP, with a token each."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import event
from temporalio.client import Client

from ledger.approval import Approval, ApprovalKey
from ledger.exporting import END
from ledger.verifying import verify
from runlane import upkeep
from runlane.decisions import keys
from runlane.roles import Role
from runlane.settings import Settings
from tests.api import Api, serving
from tests.lab import Lab, LabRun, eventually
from tests.simulator_process import SimulatorProcess
from tests.till import Till, started

DIGEST = "sha256:" + "0" * 64


class Desk:
    """An API with a key to sign decisions, before a lab whose tool waits for people."""

    def __init__(self, api: Api, lab: Lab, till: Till) -> None:
        self.api = api
        self.lab = lab
        self.till = till

    async def person(self, name: str, role: str = "approver", **fields: Any) -> httpx.AsyncClient:
        """Return the client of somebody who has a token."""
        return self.api.http(await self.api.token(Role(role), name, name=name, **fields))

    async def asks(self, **options: Any) -> tuple[LabRun, str]:
        """Start a run, and return it with the path of its call, once that waits for people."""
        run = await started(self.lab, **options)

        async def listed() -> list[Any]:
            page = await self.lab.ledger.approvals.of_run(run.id)
            return [each.key.call_id for each in page]

        [call_id] = await eventually(listed, bool)
        return run, f"/approvals/{run.id}/{call_id}"


@asynccontextmanager
async def desk(client: Client, simulator: SimulatorProcess, **options: Any) -> AsyncIterator[Desk]:
    lab, till = Lab(client, simulator), Till(**options)
    async with lab.open_ledger() as ledger:
        data_dir = ledger.location.file.parent
    keys.make(data_dir)
    verifier = keys.verifier(Settings(), data_dir)
    async with (
        lab.worker(tools=till.tools, verifier=verifier),
        serving(lab, local=None, data_dir=data_dir) as api,
    ):
        yield Desk(api, lab, till)


def word(answer: httpx.Response) -> str:
    """Return the word of the receipt in a refusal."""
    return str(answer.json()["receipt"]["status"])


async def test_two_people_approve_a_payment_by_their_tokens(
    client: Client, simulator: SimulatorProcess
) -> None:
    """Listed, shown, claimed, approved twice and paid once; the decisions name face and token."""
    async with desk(client, simulator, approvals=2, groups=["finance"], deadline="2h") as at:
        ada = await at.person("ada", groups=["finance"])
        bob = await at.person("bob", groups=["finance"])
        eve = await at.person("eve", groups=["sales"])
        run, call = await at.asks(requested_by="cid")
        [listed] = (await ada.get("/approvals", params={"group": "finance"})).json()["data"]
        shown = (await ada.get(call)).json()
        assert 200 == (await ada.post(f"{call}/claim")).status_code
        taken = await bob.post(f"{call}/approve")
        assert 200 == (await ada.post(f"{call}/release")).status_code
        other = await eve.post(f"{call}/approve", json={})
        first = await ada.post(f"{call}/approve", json={"note": "Checked."})
        twice = await ada.post(f"{call}/approve")
        assert [] == at.till.paid
        second = await bob.post(f"{call}/approve")
        result = await run.result()
        late = await bob.post(f"{call}/reject", json={"reason": "No."})
        decisions = await at.lab.ledger.decisions.of_run(run.id)

    assert listed["id"] == shown["id"]
    assert ("approval", "refund") == (listed["object"], shown["name"])
    assert {"order_id": "A-1", "amount": 5} == json.loads(listed["arguments"])
    assert (409, "claimed") == (taken.status_code, word(taken))
    assert (409, "not_allowed") == (other.status_code, word(other))
    assert ("counted", "ada", 1) == (
        first.json()["state"],
        first.json()["by"],
        first.json()["call"]["approvals"]["have"],
    )
    assert (409, "not_allowed") == (twice.status_code, word(twice))
    assert "false" == twice.headers["x-should-retry"]
    assert (200, "counted") == (second.status_code, second.json()["state"])
    assert "completed" == result.run.status
    assert [("A-1", 5)] == at.till.paid
    assert (409, "already_decided") == (late.status_code, word(late))
    assert {("api", "ada"), ("api", "bob")} == {(each.face, each.token) for each in decisions}


@pytest.mark.parametrize("maker_first", [True, False])
async def test_whoever_made_a_token_is_not_the_second_approver_through_it(
    client: Client, simulator: SimulatorProcess, *, maker_first: bool
) -> None:
    """In neither order; whoever has a token of somebody else's making is."""
    async with desk(client, simulator, approvals=2) as at:
        ada = await at.person("ada")
        kept = await at.person("bob", made_by="Ada")
        cid = await at.person("cid")
        run, call = await at.asks()
        first, second = (ada, kept) if maker_first else (kept, ada)
        assert 200 == (await first.post(f"{call}/approve")).status_code
        refused = await second.post(f"{call}/approve")
        assert [] == at.till.paid
        assert 200 == (await cid.post(f"{call}/approve")).status_code
        await run.result()

    assert (409, "not_allowed") == (refused.status_code, word(refused))
    assert "made the token of bob" in refused.json()["error"]["message"]
    assert [("A-1", 5)] == at.till.paid


async def test_who_asked_does_not_approve_through_a_token_they_made(
    client: Client, simulator: SimulatorProcess
) -> None:
    """The person who asked for the run and holds somebody's token is told so; to reject is free."""
    async with desk(client, simulator, groups=["finance"]) as at:
        kept = await at.person("bob", made_by="ada", groups=["finance"])
        run, call = await at.asks(requested_by="ada")
        refused = await kept.post(f"{call}/approve")
        rejected = await kept.post(f"{call}/reject", json={"reason": "Not mine to approve."})
        await run.result()
        rows = [json.loads(row.body) for row in await at.lab.ledger.audit.read(run.id)]
        [kept_decision] = await at.lab.ledger.decisions.of_run(run.id)

    assert (409, "not_allowed") == (refused.status_code, word(refused))
    assert "ada, who made the token, asked" in refused.json()["error"]["message"]
    assert (200, []) == (rejected.status_code, at.till.paid)
    [made_by] = [row["facts"]["token_made_by"] for row in rows if row["kind"] == "decision"]
    assert "ada" == made_by == kept_decision.token_made_by


async def test_edited_arguments_and_answers(client: Client, simulator: SimulatorProcess) -> None:
    """What doesn't fit the tool is refused before it is sent; another's words reach the model."""
    async with desk(client, simulator) as at:
        ada = await at.person("ada")
        run, call = await at.asks()
        wrong = await ada.post(f"{call}/approve", json={"arguments": {"amount": "much"}})
        strange = await ada.post(f"{call}/approve", json={"argument": {}})
        edited = {"order_id": "A-1", "amount": 3}
        done = await ada.post(f"{call}/approve", json={"arguments": edited})
        await run.result()
        other, second = await at.asks()
        answered = await ada.post(f"{second}/answer", json={"output": "paid by hand"})
        view = await other.result()

    assert (409, "not_allowed") == (wrong.status_code, word(wrong))
    assert "order_id" in wrong.json()["error"]["message"]
    assert (400, "argument") == (strange.status_code, strange.json()["error"]["param"])
    assert (200, 200) == (done.status_code, answered.status_code)
    assert [("A-1", 3)] == at.till.paid
    assert ["person:ada"] == [each.by for each in view.runlane.answers]


async def test_who_sees_and_decides_what(client: Client, simulator: SimulatorProcess) -> None:
    """Approvers see everybody's calls, others their own runs'; only approvers and admins decide."""
    async with desk(client, simulator) as at:
        run, call = await at.asks()
        for role, status, decides in (
            ("admin", 200, 200),
            ("approver", 200, 200),
            ("operator", 404, 403),
            ("reader", 404, 403),
        ):
            somebody = await at.person(role, role)
            listed = (await somebody.get("/approvals")).json()["data"]
            assert (status == 200) == bool(listed), role
            assert status == (await somebody.get(call)).status_code, role
            assert decides == (await somebody.post(f"{call}/claim")).status_code, role
            if decides == 200:
                assert 200 == (await somebody.post(f"{call}/release")).status_code
        assert 401 == (await at.api.http("rl_nobody").get("/approvals")).status_code
        unknown = await somebody.get(f"/approvals/{run.id}/call_9")
        await run.cancel()

    assert 404 == unknown.status_code


async def test_a_list_of_thousands_reads_the_ledger_once(
    client: Client, simulator: SimulatorProcess
) -> None:
    """No run is asked, and no row by itself; pages follow one another without gap or repeat."""
    lab = Lab(client, simulator)
    async with lab.open_ledger() as ledger, serving(lab, local=None) as api:
        since = datetime.now(UTC) - timedelta(hours=1)
        for number in range(100):
            run_id = f"run_{number:04}"
            rows = [
                Approval(
                    key=ApprovalKey(run_id=run_id, attempt=1, round=1, call_id=f"call_{each}"),
                    owner="ada" if number < 3 else "bob",
                    tool="refund",
                    arguments_digest=DIGEST,
                    since=since + timedelta(seconds=number),
                )
                for each in range(50)
            ]
            await ledger.approvals.record(run_id, rows)
        admin = api.http(await api.token(Role.ADMIN, "eve"))
        reader = api.http(await api.token(Role.READER, "ada"))
        await admin.get("/approvals")
        statements: list[str] = []
        engine = ledger._database._engine
        event.listen(engine, "before_cursor_execute", lambda *each: statements.append(each[2]))
        page = (await admin.get("/approvals", params={"limit": 100})).json()
        reads = [each for each in statements if each.startswith("SELECT")]
        seen: list[str] = []
        paging: dict[str, Any] = {"limit": 40}
        while True:
            found = (await reader.get("/approvals", params=paging)).json()
            seen += [each["id"] for each in found["data"]]
            paging["after"] = found["last_id"]
            if not found["has_more"]:
                break
        young = await admin.get("/approvals", params={"older_than": 7_200})
        bad = await admin.get("/approvals", params={"after": "run_1"})
        none = await admin.get("/approvals", params={"limit": 101})

    assert (100, True) == (len(page["data"]), page["has_more"])
    # What was known of the token may have grown old.
    assert 1 == len([each for each in reads if "FROM tokens" not in each]), reads
    assert len(reads) <= 2, reads
    assert 150 == len(seen) == len(set(seen))
    assert [] == young.json()["data"]
    assert [(400, "after"), (400, "limit")] == [
        (each.status_code, each.json()["error"]["param"]) for each in (bad, none)
    ]


async def test_the_audit_trail_is_exported_for_admins(
    client: Client, simulator: SimulatorProcess
) -> None:
    """As lines that the public key verifies; of one run too, and of none that there isn't."""
    async with desk(client, simulator) as at:
        admin, approver = await at.person("ada", "admin"), await at.person("bob")
        run, call = await at.asks()
        await approver.post(f"{call}/reject", json={"reason": "secret words"})
        await run.result()
        whole = await admin.get("/audit")
        one = await admin.get("/audit", params={"run_id": run.id})
        none = await admin.get("/audit", params={"run_id": "run_9"})
        later = await admin.get("/audit", params={"since": "2999-01-01T00:00:00Z"})
        vague = await admin.get("/audit", params={"since": "2026-01-01T00:00:00"})
        refused = await approver.get("/audit")
        data_dir = at.lab.ledger.location.file.parent
        signer = upkeep.find_signer(Settings(), data_dir)

    assert signer is not None
    verdicts = [
        verify(answer.text.splitlines(keepends=True), signer.public) for answer in (whole, one)
    ]
    assert [None, None] == [each.problem for each in verdicts]
    assert verdicts[0].runs >= verdicts[1].runs == 1
    assert "application/jsonl" == whole.headers["content-type"].partition(";")[0]
    assert "secret words" not in whole.text
    assert [END] == [json.loads(line)["type"] for line in later.text.splitlines()]
    assert [404, 400, 403] == [each.status_code for each in (none, vague, refused)]


async def test_the_kill_switch_has_its_person(client: Client, simulator: SimulatorProcess) -> None:
    """An admin stops everything, an operator their own run; each is audited with the person."""
    async with desk(client, simulator) as at:
        admin, operator = await at.person("ada", "admin"), await at.person("bob", "operator")
        reader = await at.person("cid", "reader")
        run, _ = await at.asks()
        everything = {"all": True, "reason": "Wrong price list."}
        too_much = await operator.post("/stops", json=everything)
        not_theirs = await operator.post("/stops", json={"run_id": run.id, "reason": "x"})
        stopped = await admin.post("/stops", json=everything)
        again = await admin.post("/stops", json={"all": True, "reason": "Other."})
        of_run = await admin.post("/stops", json={"run_id": run.id, "reason": "x"})
        seen = [(await each.get("/stops")).json()["data"] for each in (admin, reader)]
        resumed = await admin.post("/stops/resume", json={"all": True})
        missing = await admin.post("/stops/resume", json={"all": True})
        nothing = await admin.post("/stops", json={"reason": "x"})
        rows = [json.loads(row.body) for row in await at.lab.ledger.audit.read("control")]
        await run.cancel()

    assert [403, 404] == [too_much.status_code, not_theirs.status_code]
    assert ("all", "ada", True) == tuple(stopped.json()[key] for key in ("scope", "by", "new"))
    assert ("Wrong price list.", False) == (again.json()["reason"], again.json()["new"])
    assert [200, 200, 404, 400] == [
        each.status_code for each in (of_run, resumed, missing, nothing)
    ]
    assert [["all", "run"], ["all"]] == [sorted(each["scope"] for each in data) for data in seen]
    facts = [row["facts"] for row in rows if row["facts"]["what"] in ("stop", "resume")]
    assert {"ada"} == {each["by"] for each in facts}
    assert ["resume", "stop", "stop"] == sorted(each["what"] for each in facts)
