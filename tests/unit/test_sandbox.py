"""What the sandbox runs again for each run in memory: the workflow's own module, and no other."""

import sys

from temporalio.worker.workflow_sandbox import SandboxRestrictions
from temporalio.worker.workflow_sandbox._importer import Importer  # the sandbox tells nobody else
from temporalio.worker.workflow_sandbox._restrictions import RestrictionContext

from workflows.run import RunWorkflow


def test_only_the_workflow_is_loaded_anew() -> None:
    """A module of ours that is executed for each run costs it time and memory, a thousandfold."""
    assert RunWorkflow.__module__ == "workflows.run"
    known = dict(sys.modules)
    importer = Importer(SandboxRestrictions.default, RestrictionContext())

    with importer.applied():
        exec("from workflows.run import RunWorkflow", {"__file__": "sandbox.py"})

    ours = ("workflows", "activities", "runsapi", "runlane")
    anew = {
        name
        for name, module in importer.new_modules.items()
        if name.partition(".")[0] in ours and known.get(name) is not module
    }
    assert anew == {"workflows", "workflows.run"}
