"""People who decide about the calls of a test's run, over the real update, with a key of theirs."""

from typing import Any

from temporalio.client import WorkflowUpdateFailedError
from temporalio.exceptions import ApplicationError

from activities.decision import Decision, DecisionKind, DecisionReceipt
from ledger.signing import Signer
from runlane.decisions import signing
from runlane.decisions.making import make
from tests.lab import LabRun, eventually
from workflows.contract import NOT_RECORDED, PendingCall, RunView
from workflows.run import RunWorkflow


class Clerk:
    """A face with a key; whoever uses it says who they are."""

    def __init__(self) -> None:
        self._signer = Signer.generate()
        self.verifier = signing.Signatures([self._signer.public])
        """What workers verify with."""
        self.public_pem = self._signer.public.pem

    def made(self, kind: str, run: LabRun, call: PendingCall, by: str, **fields: Any) -> Decision:
        """Return a signed decision on a call as the view shows it."""
        given = {
            "run_id": run.id,
            "tool_call_id": call.tool_call_id,
            "arguments_digest": call.arguments_digest,
            "tool_digest": call.tool_digest,
            "note": "Not this one." if kind == "reject" else None,
            "by": by,
            "face": "test",
        }
        return signing.sign(make(DecisionKind(kind), **{**given, **fields}), self._signer)

    async def decide(self, kind: str, run: LabRun, by: str = "ada", **fields: Any) -> str:
        """Decide about the run's only call that waits; return the receipt's word."""
        call = await waiting(run)
        return await send(run, self.made(kind, run, call, by, **fields))


async def send(run: LabRun, decision: Decision) -> str:
    """Send a decision as anybody may who reaches Temporal; return the receipt's word."""
    return (await receipt(run, decision)).status.value


async def receipt(run: LabRun, decision: Decision) -> DecisionReceipt:
    """Do as `send` does, until no other decision on the call is being verified."""

    async def sent() -> DecisionReceipt:
        try:
            return await run.handle.execute_update(RunWorkflow.decide, decision)
        except WorkflowUpdateFailedError as error:
            cause = error.cause
            if not isinstance(cause, ApplicationError) or cause.type != NOT_RECORDED:
                raise
            return DecisionReceipt.model_validate(cause.details[0])

    return await eventually(sent, lambda each: each.status != "busy")


async def waiting(run: LabRun) -> PendingCall:
    """Wait for the one call that people must decide."""
    view = await run.until(lambda view: len(undecided(view)) == 1)
    return undecided(view)[0]


def undecided(view: RunView) -> list[PendingCall]:
    """Return the calls that wait for people."""
    return [
        each
        for each in view.runlane.pending
        if each.handled_by == "people" and each.state in ("waiting", "uncertain")
    ]


async def counted(run: LabRun, decision_id: str | None = None) -> RunView:
    """Wait until nothing is being verified."""
    return await run.until(
        lambda view: (
            bool(view.runlane.decisions)
            and all(each.state != "checking" for each in view.runlane.decisions)
        )
    )
