"""What the ledger is told of a run by the activities that make and feed its upstream runs."""

from datetime import UTC, datetime

from activities import failures, trail
from activities.contract import CreateInput, SubmitInput, Submitted, Upstream
from ledger import Ledger
from ledger.run_record import RunRecord
from runsapi import Run


class RunRecords:
    """Writes to the ledger; each write may be made again, and waits while the ledger is down."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def check_key(self, input: CreateInput) -> None:
        """Refuse a run whose idempotency key an earlier run has used up.

        Temporal forgets a run some time after its end, and would start it again under its id.

        Raises:
            ApplicationError: there was such a run, final; or the ledger doesn't answer, retryable.
        """
        asked = input.asked
        if asked is None or not asked.has_key or input.attempt > 1:
            return
        with trail.waiting_for_ledger():
            there = await self._ledger.runs.find(input.run_id, owner=asked.owner)
        if there is None or there.created_at == _instant(asked.created_at):
            return
        other = there.request_digest not in (None, asked.digest)
        if there.ended_at is None and not other:
            # Temporal was set back to a copy from before the run: this is the run, once more.
            return
        how = f"ended as {there.status}" if there.ended_at else "is recorded as running"
        by = ", and was created by another request" if other else ""
        text = (
            f"The idempotency key belongs to {input.run_id}, which was created at "
            f"{there.created_at:%Y-%m-%d %H:%M:%S} UTC and {how}{by}. Temporal has forgotten that "
            "run; the ledger has not. Nothing was created upstream. To run it again, use a new key."
        )
        raise failures.refusal("invalid_prompt", text)

    async def created(self, input: CreateInput, run: Run, upstream: Upstream) -> None:
        """Record an upstream run that was made or found, and our run with the first one.

        Raises:
            ApplicationError: the ledger doesn't answer; retryable.
        """
        asked = input.asked
        event = trail.run_created(
            attempt=input.attempt,
            upstream_run=run.id,
            upstream=upstream.url,
            thread_id=input.thread_id,
            assistant_id=run.assistant_id,
            model=run.model,
            request_digest=None if asked is None else asked.digest,
        )
        if asked is None or input.attempt > 1:
            await trail.write(self._ledger, input.run_id, event)
            return
        record = RunRecord(
            run_id=input.run_id,
            owner=asked.owner,
            # The id is made of owner and key, so that the key itself needn't come here.
            idempotency_key=input.run_id if asked.has_key else None,
            request_digest=asked.digest,
            thread_id=input.thread_id,
            assistant_id=run.assistant_id or None,
            status="in_progress",
            created_at=_instant(asked.created_at),
            updated_at=datetime.now(UTC),
        )
        with trail.waiting_for_ledger():
            await self._ledger.runs.record(record, [event])

    async def never_began(self, input: CreateInput, run: Run) -> None:
        """Record the end of a run of ours whose workflow Temporal refuses to start.

        Args:
            input: as `created` had it.
            run: the upstream run, which nobody will drive.

        Raises:
            ApplicationError: the ledger doesn't answer; retryable.
        """
        at = datetime.now(UTC)
        record = RunRecord(
            run_id=input.run_id,
            owner="" if input.asked is None else input.asked.owner,
            thread_id=input.thread_id,
            assistant_id=run.assistant_id or None,
            status="failed",
            created_at=at if input.asked is None else _instant(input.asked.created_at),
            updated_at=at,
            ended_at=at,
        )
        event = trail.run_ended(status="failed", upstream_run=run.id, model=run.model)
        with trail.waiting_for_ledger():
            await self._ledger.runs.record(record, [event])

    async def submitted(self, run_id: str, input: SubmitInput, submitted: Submitted) -> None:
        """Record what became of a round's outputs, and that nobody has to decide its calls now.

        Raises:
            ApplicationError: the ledger doesn't answer; retryable. The outputs may be in.
        """
        event = trail.submission(
            attempt=input.target.attempt,
            upstream_run=input.target.run_id,
            outputs={output.tool_call_id: output.output for output in input.tool_outputs},
            outcome=submitted.outcome,
        )
        if submitted.outcome == "expired":
            # The calls stay open: the run is parked.
            await trail.write(self._ledger, run_id, event)
            return
        with trail.waiting_for_ledger():
            await self._ledger.approvals.close(run_id, outcome=submitted.outcome, events=[event])


def _instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
