"""Finding a run for whoever asks: one of somebody else's is not there."""

from runlane.api import batch_runs
from runlane.api.access import Principal
from runlane.api.refusals import not_found
from runlane.api.services import Services
from runlane.errors import RunNotFound
from workflows.contract import RunView


async def find_run(
    services: Services, asking: Principal, thread_id: str | None, run_id: str
) -> RunView:
    """Return the run, if it is there and the asker's; an item of a batch once it has ended.

    Raises:
        Refusal: it isn't.
        RunlaneError: it can't be asked for.
    """
    try:
        view = await services.runlane.runs.view(run_id, thread_id)
    except RunNotFound:
        ended = await batch_runs.find(services.ledger, asking, thread_id, run_id)
        if ended is None:
            raise not_found("run", run_id) from None
        return ended
    if not asking.sees(view.runlane.owner):
        raise not_found("run", run_id)
    return view
