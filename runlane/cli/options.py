"""Options and arguments that several commands have."""

from typing import Annotated, TypeAlias

import typer

COMPLETE = "_RUNLANE_COMPLETE"
"""The variable by which a shell's completion script asks for words."""

Json: TypeAlias = Annotated[
    bool, typer.Option("--json", help="Print one JSON document; words go to standard error.")
]
RunId: TypeAlias = Annotated[str, typer.Argument(metavar="RUN_ID", help="Id of a run.")]
Wait: TypeAlias = Annotated[
    bool, typer.Option("--wait", help="Then wait until the run ends or needs answers.")
]
