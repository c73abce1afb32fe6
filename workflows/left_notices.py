"""The `Notices` workflow: sends what a run that has ended left."""

import asyncio

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from workflows.contract import NOTICES_WORKFLOW
    from workflows.notice import LeftNotices
    from workflows.notices import send


@workflow.defn(name=NOTICES_WORKFLOW)
class NoticesWorkflow:
    """Ends once each notice is with all receivers, or is given up."""

    @workflow.run
    async def run(self, input: LeftNotices) -> None:
        """Send them, side by side."""
        now = workflow.now().timestamp()
        await asyncio.gather(*(send(each, now) for each in input.notices))
