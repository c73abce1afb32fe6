"""The messages a run takes. Handlers record, and answer at once; the main loop acts.

A handler that waited for what only the main loop brings, and a main loop that waits for its
handlers before it continues as new, would wait for each other for ever.
"""

from datetime import timedelta

from temporalio import workflow
from temporalio.exceptions import ApplicationError

with workflow.unsafe.imports_passed_through():
    import workflows.answers as answers
    import workflows.approvals as approvals
    import workflows.contract as contract
    import workflows.decided as decided
    import workflows.progress as progress
    from activities.decision import Decision, DecisionReceipt, DecisionStatus
    from workflows.batch_results import record
    from workflows.deciding import Deciding
    from workflows.messages import check_decision, check_metadata, check_tool_outputs
    from workflows.notices import Notices
    from workflows.shown import Shown, memo
    from workflows.state import RunInput, RunState, StopReason
    from workflows.view import run_view, shown_status

NUDGE_SPACING = 2.0
"""Seconds around a poll in which a nudge brings nothing new."""
NUDGE_PATIENCE = 90.0
"""Seconds that a look has before a nudge gives it up for another one."""


class RunHandlers:
    """A run's state, and the messages that change it or tell of it."""

    def __init__(self, input: RunInput) -> None:
        self._request = input.request
        self._options = input.request.options
        self._state = input.state or self._first_state()
        self._notices = Notices(self._state, self._now)
        self._shown = Shown(self._state, self._notices.attend)
        self._deciding = Deciding(self._request, self._state, self._now, self._decision_counts)
        self._polled_at = 0.0
        self._nudged = False
        self._stop_is_news = False

    @property
    def attempt(self) -> int:
        """The present upstream run's number, for the log."""
        return self._state.attempt

    @workflow.query(name=contract.VIEW_QUERY)
    def view(self) -> contract.RunView:
        """Return the run and everything known of it."""
        return run_view(workflow.info().workflow_id, self._request, self._state)

    @workflow.signal(name=contract.TOOL_OUTPUTS_SIGNAL)
    def tool_outputs(self, outputs: contract.ToolOutputs) -> None:
        """Take answers; what can't be used is kept in `view` with its reason."""
        answers.deliver(self._state, outputs, now=self._now(), by_signal=True)
        self._shown.update(self._state)

    @workflow.update(name=contract.SUBMIT_TOOL_OUTPUTS_UPDATE)
    def submit_tool_outputs(self, outputs: contract.ToolOutputs) -> contract.Receipts:
        """Take answers; return a receipt for each."""
        receipts = answers.deliver(self._state, outputs, now=self._now(), by_signal=False)
        self._shown.update(self._state)
        return contract.Receipts(receipts=receipts)

    @submit_tool_outputs.validator
    def _refuse_nothing_new(self, outputs: contract.ToolOutputs) -> None:
        # A refused update leaves no event: receipts for duplicates cost nothing.
        check_tool_outputs(outputs)
        receipts = contract.Receipts(
            receipts=[answers.assess(self._state, output) for output in outputs.tool_outputs]
        )
        if not receipts.is_new():
            raise ApplicationError("Nothing in this is new", receipts, type=contract.NOTHING_NEW)

    @workflow.update(name=contract.DECIDE_UPDATE)
    def decide(self, decision: Decision) -> DecisionReceipt:
        """Take a decision; `view` tells whether it is true, and counts."""
        receipt = self._assess(decision)
        if receipt.status is DecisionStatus.RECORDED:
            decided.record(self._state, decision, self._now())
            self._deciding.attend()
        return receipt

    @decide.validator
    def _refuse_idle_decision(self, decision: Decision) -> None:
        check_decision(decision)
        receipt = self._assess(decision)
        if receipt.status is not DecisionStatus.RECORDED:
            raise ApplicationError(receipt.message, receipt, type=contract.NOT_RECORDED)

    @workflow.update(name=contract.CANCEL_UPDATE)
    def cancel(self, request: contract.CancelRequest) -> contract.Acknowledged:
        """Record that the run is to be cancelled; `view` tells what came of it."""
        self._stop(StopReason.CANCEL)
        self._shown.update(self._state)
        return contract.Acknowledged(status=shown_status(self._state))

    @workflow.update(name=contract.UPDATE_METADATA_UPDATE)
    def update_metadata(self, update: contract.MetadataUpdate) -> contract.Acknowledged:
        """Replace the caller's metadata; the upstream run is told when there is one."""
        self._state.metadata = dict(update.metadata)
        workflow.upsert_memo(memo(self._request, self._state))
        return contract.Acknowledged(status=shown_status(self._state))

    @update_metadata.validator
    def _refuse_bad_metadata(self, update: contract.MetadataUpdate) -> None:
        check_metadata(update.metadata)
        if self._state.stop is not None or self._state.ended_at is not None:
            raise ApplicationError("The run is ending", type=contract.RUN_IS_ENDING)

    @cancel.validator
    def _refuse_after_the_end(self, request: contract.CancelRequest) -> None:
        if self._state.ended_at is not None:
            raise ApplicationError("The run has ended", type=contract.RUN_IS_ENDING)

    @workflow.signal(name=contract.NUDGE_SIGNAL)
    def nudge(self) -> None:
        """Look at the upstream now: somebody saw or mended something."""
        # While blocked also during a try: that one may have left before the mending was done.
        if self._state.blocked is not None or self._now() - self._polled_at >= NUDGE_SPACING:
            self._nudged = True

    async def _hand_on(self) -> None:
        """Give others what outlives the run: its notices, and the line that it is of a batch."""
        await self._notices.hand_on()
        await record(self._request.batch, self.view())

    def _decision_counts(self) -> None:
        """Go on with what has changed by a decision; the workflow knows more of it."""
        self._shown.update(self._state)

    def _assess(self, decision: Decision) -> DecisionReceipt:
        return approvals.assess(
            self._state,
            decision,
            run_id=workflow.info().workflow_id,
            requested_by=self._request.requested_by,
            now=self._now(),
        )

    def _stop(self, reason: StopReason) -> None:
        if progress.stop(self._state, reason, self._now()):
            self._stop_is_news = True

    def _is_blocked(self) -> bool:
        return self._state.blocked is not None and self._state.blocked_until is not None

    def _now(self) -> float:
        return workflow.now().timestamp()

    def _limit(self) -> float:
        """Return until when anything at all is tried."""
        return self._state.deadline_at if self._state.stop is None else self._give_up_at()

    def _time_left(self) -> timedelta:
        return timedelta(seconds=max(self._limit() - self._now(), 1.0))

    def _give_up_at(self) -> float:
        return (self._state.stopped_at or 0.0) + self._options.timing.cancel_for

    def _first_state(self) -> RunState:
        # The first task's time would be the Reset's after a Reset, and the upstream run that is to
        # be found would count as older than this one.
        started = workflow.info().workflow_start_time.timestamp()
        metadata = self._request.params.get("metadata") or {}
        return RunState(deadline_at=started + self._options.deadline, metadata=dict(metadata))
