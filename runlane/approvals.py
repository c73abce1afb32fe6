"""Calls that wait for people, as programs use them: `client.approvals`.

A decision is made on what was read just before it, signed with this face's key, and sent to the
run, which lets it count once a worker has verified it. Who decides is what the caller says: it is
the key that is believed.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from temporalio.client import Client, WorkflowExecutionDescription

from activities.decision import Decision, DecisionKind, DecisionReceipt, DecisionStatus
from ledger import Ledger
from ledger.approval import ApprovalQuery, Standing
from ledger.signing import Signer
from runlane import messages, reading, workers
from runlane.client_ledger import ClientLedger
from runlane.decisions import keys, making, signing
from runlane.errors import ApprovalNotFound, DecisionRefused, InvalidRequest, NoWorker
from runlane.person import person
from runlane.rpc import explained
from runlane.settings import Settings
from runlane.temporal import find_data_dir
from runlane.waiting_calls import (
    WaitingCall,
    checked_arguments,
    find,
    listed,
    shown_digest,
    why_not,
)
from runsapi import TERMINAL
from workflows.contract import DecisionView, PendingCall, RunView

MAX_LIMIT = 1_000
"""Calls in one list."""
VERIFIED_WITHIN = 15.0
"""Seconds in which a worker that is there and has the ledger has verified a decision."""

_BEHIND = timedelta(seconds=15)
"""How long a worker may take that is there."""
_KNOWN = (DecisionStatus.ALREADY_DECIDED, DecisionStatus.TOO_LATE, DecisionStatus.NOT_WAITING)
"""What is said of a call that there is: a decision on it is refused, and not a mistake."""
_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 0.5


@dataclass(frozen=True)
class Decided:
    """What became of a decision."""

    decision: Decision
    state: str
    """`counted`, or `checking` where no worker has verified it yet."""
    call: PendingCall | None
    """As it waits on; none where it waits no more."""
    view: RunView

    @property
    def run_id(self) -> str:
        """The call's run."""
        return self.decision.run_id

    @property
    def kind(self) -> str:
        """What was said."""
        return str(self.decision.kind)

    @property
    def by(self) -> str:
        """The person."""
        return self.decision.by

    def as_json(self) -> Mapping[str, Any]:
        """Return it as `--json` prints it; without what was said, which the caller knows."""
        decision = self.decision
        return {
            "object": "decision",
            "id": decision.id,
            "kind": str(decision.kind),
            "run_id": decision.run_id,
            "tool_call_id": decision.tool_call_id,
            "by": decision.by,
            "at": decision.at,
            "state": self.state,
            "call": None if self.call is None else self.call.model_dump(mode="json"),
            "run_status": str(self.view.run.status),
        }


class Approvals:
    """Listing calls that wait for people, and deciding them."""

    def __init__(
        self,
        client: Client,
        settings: Settings,
        *,
        face: str = "python",
        token: str | None = None,
        token_made_by: str | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        """Share the connection of `Runlane`, which makes this.

        Args:
            client: of Temporal.
            settings: say who decides, with which key, and where the ledger lies.
            face: what takes the decisions; stands in them.
            token: the name of the token by which the face knows whoever decides.
            token_made_by: whoever made it.
            ledger: held open by the caller; without it one is opened for each call.
        """
        self._client = client
        self._settings = settings
        self._face = face
        self._token = token
        self._token_made_by = token_made_by
        self._ledger = ClientLedger(settings, client, ledger)

    async def list(
        self,
        *,
        tool: str | None = None,
        group: str | None = None,
        run_id: str | None = None,
        older_than: timedelta | None = None,
        limit: int = 100,
    ) -> Sequence[WaitingCall]:
        """Return the calls of all runs that wait for people, those that have waited longest first.

        They are the ledger's: no run is asked, and no worker is needed.

        Args:
            tool: only this tool's.
            group: only those whose turn it is this group's.
            run_id: only this run's.
            older_than: only those that have waited longer.
            limit: at most so many, 1 to 1,000.

        Raises:
            InvalidRequest: a parameter can't be used.
            LedgerUnreachable: the ledger doesn't answer.
            LedgerUnusable: there is none where it is said to lie.
        """
        if not 1 <= limit <= MAX_LIMIT:
            text = f"limit must be between 1 and {MAX_LIMIT:,}, got {limit}."
            raise InvalidRequest(text, param="limit")
        until = None if older_than is None else datetime.now(UTC) - older_than
        query = ApprovalQuery(
            tool=tool, group=group, run_id=run_id, since_until=until, limit=limit, contents=True
        )
        await self._ledger.check_there()
        async with self._ledger.opened() as ledger:
            return [listed(row) for row in (await ledger.approvals.list(query)).data]

    async def retrieve(self, tool_call_id: str, *, run_id: str | None = None) -> WaitingCall:
        """Return a call as its run knows it now.

        Args:
            tool_call_id: the call's.
            run_id: its run's; needed where calls of several runs have the same id.

        Raises:
            ApprovalNotFound: no such call waits for people; the message says what is known of it.
            InvalidRequest: several runs have such a call.
            NoWorker: nobody can read the run now.
            LedgerUnreachable: no run was given, and the ledger doesn't answer.
        """
        run_id = run_id or await self.run_of(tool_call_id)
        view = await self._read(run_id)
        call = find(view, tool_call_id)
        if call is None or call.handled_by != "people":
            status, text = why_not(view, tool_call_id)
            raise ApprovalNotFound(text, param="tool_call_id", code=str(status))
        return WaitingCall(run_id, call, view)

    async def approve(
        self,
        tool_call_id: str,
        *,
        run_id: str | None = None,
        arguments: Mapping[str, Any] | str | None = None,
        note: str | None = None,
        for_rest_of_run: bool = False,
        by: str | None = None,
        groups: Sequence[str] | None = None,
    ) -> Decided:
        """Let a call run.

        Args:
            tool_call_id: the call's.
            run_id: its run's.
            arguments: others to run with, as an object or as JSON; checked against the schema.
            note: why.
            for_rest_of_run: later calls of this tool in this run, too.
            by: who decides; default: as `runlane.person` says.
            groups: that person's; default: `RUNLANE_GROUPS`.

        Raises:
            InvalidRequest: something given can't be used; nothing was sent.
            ApprovalNotFound: no such call waits for people.
            DecisionRefused: it doesn't count; the error says why, and carries the receipt.
            NoWorker: nobody took it.
        """
        return await self._decide(
            DecisionKind.APPROVE,
            tool_call_id,
            run_id,
            by=by,
            groups=groups,
            note=note,
            for_rest_of_run=for_rest_of_run,
            arguments=arguments,
        )

    async def reject(
        self,
        tool_call_id: str,
        *,
        reason: str,
        run_id: str | None = None,
        by: str | None = None,
        groups: Sequence[str] | None = None,
    ) -> Decided:
        """Refuse a call; the model is told the reason. The errors are those of `approve`."""
        return await self._decide(
            DecisionKind.REJECT, tool_call_id, run_id, by=by, groups=groups, note=reason
        )

    async def answer(
        self,
        tool_call_id: str,
        *,
        output: str,
        note: str | None = None,
        run_id: str | None = None,
        by: str | None = None,
        groups: Sequence[str] | None = None,
    ) -> Decided:
        """Give a call's output in the tool's place. The errors are those of `approve`."""
        return await self._decide(
            DecisionKind.ANSWER,
            tool_call_id,
            run_id,
            by=by,
            groups=groups,
            note=note,
            output=output,
        )

    async def claim(
        self,
        tool_call_id: str,
        *,
        run_id: str | None = None,
        by: str | None = None,
        groups: Sequence[str] | None = None,
    ) -> Decided:
        """Look after a call for an hour, so that nobody else decides it; errors as in `approve`."""
        return await self._decide(DecisionKind.CLAIM, tool_call_id, run_id, by=by, groups=groups)

    async def release(
        self,
        tool_call_id: str,
        *,
        run_id: str | None = None,
        by: str | None = None,
        groups: Sequence[str] | None = None,
    ) -> Decided:
        """Look after a call no more. The errors are those of `approve`."""
        return await self._decide(DecisionKind.RELEASE, tool_call_id, run_id, by=by, groups=groups)

    async def revoke(
        self,
        tool_call_id: str,
        *,
        run_id: str | None = None,
        by: str | None = None,
        groups: Sequence[str] | None = None,
    ) -> Decided:
        """Take back what was approved for the rest of the run on a call; errors as in `approve`.

        What it has let run stays as it is.
        """
        signer = await self._signer()
        run_id = run_id or await self.run_of(tool_call_id)
        async with self._ledger.opened() as ledger:
            given = await ledger.decisions.of_run(run_id)
        of_call = [each for each in given if each.call_id == tool_call_id and each.for_rest_of_run]
        if not of_call:
            text = f"Nothing was approved for the rest of {run_id} on call {tool_call_id}."
            raise ApprovalNotFound(text, param="tool_call_id")
        decision = making.make(
            DecisionKind.REVOKE,
            run_id=run_id,
            tool_call_id=tool_call_id,
            arguments_digest=of_call[-1].arguments_digest or "",
            tool_digest=of_call[-1].tool_digest or "",
            by=by or person(self._settings),
            groups=self._settings.groups if groups is None else groups,
            face=self._face,
            token=self._token,
            token_made_by=self._token_made_by,
        )
        return await self._send(signing.sign(decision, signer))

    async def _decide(
        self,
        kind: DecisionKind,
        tool_call_id: str,
        run_id: str | None,
        *,
        by: str | None,
        groups: Sequence[str] | None,
        arguments: Mapping[str, Any] | str | None = None,
        **said: Any,
    ) -> Decided:
        signer = await self._signer()
        try:
            waiting = await self.retrieve(tool_call_id, run_id=run_id)
        except ApprovalNotFound as error:
            if error.code in _KNOWN:
                raise DecisionRefused(error.message, error.code, "") from None
            raise
        call = waiting.call
        decision = making.make(
            kind,
            run_id=waiting.run_id,
            tool_call_id=call.tool_call_id,
            arguments_digest=call.arguments_digest,
            tool_digest=call.tool_digest or "",
            by=by or person(self._settings),
            groups=self._settings.groups if groups is None else groups,
            arguments=checked_arguments(waiting, arguments),
            face=self._face,
            token=self._token,
            token_made_by=self._token_made_by,
            shown=shown_digest(call),
            **said,
        )
        return await self._send(signing.sign(decision, signer))

    async def _send(self, signed: Decision) -> Decided:
        queue = (await self._describe(signed.run_id)).task_queue
        try:
            with explained(self._client):
                receipt = await messages.decide(
                    self._client, signed.run_id, signed, task_queue=queue
                )
        except messages.RunClosed:
            receipt = DecisionReceipt(
                status=DecisionStatus.TOO_LATE, message="The run has ended or is ending."
            )
        if receipt.status not in (DecisionStatus.RECORDED, DecisionStatus.DUPLICATE):
            raise DecisionRefused(receipt.message, receipt.status, signed.id)
        return await self._verified(signed)

    async def _verified(self, decision: Decision) -> Decided:
        """Wait until a worker has verified a decision, as long as one that is well takes."""
        loop = asyncio.get_running_loop()
        until, pause = loop.time() + VERIFIED_WITHIN, _FIRST_PAUSE
        while True:
            with explained(self._client):
                view = await reading.read(self._client, decision.run_id)
            known = _known(view, decision)
            if known is not None and known.state in ("refused", "late"):
                status = (
                    DecisionStatus.TOO_LATE if known.state == "late" else DecisionStatus.NOT_ALLOWED
                )
                reason = known.reason or "The call waits no more."
                raise DecisionRefused(reason, status, decision.id)
            counts = known is not None and known.state == "counted"
            if counts or view.run.status in TERMINAL or loop.time() > until:
                state = "counted" if counts else "checking"
                return Decided(decision, state, find(view, decision.tool_call_id), view)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _read(self, run_id: str) -> RunView:
        """Return a run as its worker knows it; one that is behind may take longer than most."""
        with explained(self._client):
            view = await reading.read(self._client, run_id)
            if view.runlane.worker is not False:
                return view
            queue = (await reading.describe(self._client, run_id)).task_queue
            if workers.is_fresh(await workers.last_seen(self._client, queue)):
                view = await reading.read(self._client, run_id, patience=_BEHIND)
        if view.runlane.worker is False:
            text = f"No worker on queue {queue} answers for {run_id}. Start one:  runlane worker"
            raise NoWorker(text, param="run_id")
        return view

    async def _signer(self) -> Signer:
        data_dir = self._settings.data_dir
        if data_dir is None and self._settings.decision_key is None:
            with explained(self._client):
                data_dir = await find_data_dir(self._client)
        return await asyncio.to_thread(keys.signer, self._settings, data_dir)

    async def _describe(self, run_id: str) -> WorkflowExecutionDescription:
        with explained(self._client):
            return await reading.describe(self._client, run_id)

    async def run_of(self, tool_call_id: str, *, owner: str | None = None) -> str:
        """Return the run whose call has this id, by the ledger.

        Args:
            tool_call_id: the call's.
            owner: only of this owner's runs; default: of everybody's.

        Raises:
            ApprovalNotFound: there is none.
            InvalidRequest: several runs have such a call.
            LedgerUnreachable: the ledger doesn't answer.
        """
        query = ApprovalQuery(
            owner=owner, call_id=tool_call_id, state=None, order="desc", limit=MAX_LIMIT
        )
        async with self._ledger.opened() as ledger:
            rows = (await ledger.approvals.list(query)).data
        waiting = [row for row in rows if row.state is Standing.WAITING] or rows[:1]
        runs = sorted({row.key.run_id for row in waiting})
        if not runs:
            text = f"No call {tool_call_id} waits for people, as far as the ledger knows."
            raise ApprovalNotFound(text, param="tool_call_id")
        if len(runs) > 1:
            some = ", ".join(runs[:5]) + (" and others" if len(runs) > 5 else "")
            text = f"Several runs have a call {tool_call_id}: {some}. Name the run."
            raise InvalidRequest(text, param="run_id", code="ambiguous_call")
        return runs[0]


def _known(view: RunView, decision: Decision) -> DecisionView | None:
    return next((each for each in view.runlane.decisions if each.id == decision.id), None)
