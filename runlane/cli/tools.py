"""Commands about tools: what is registered, and what a model is told of it."""

# ruff: noqa: FBT002 - typer reads a command's options from its parameters

import json as json_text
from typing import TYPE_CHECKING, Annotated

import typer

from runlane.cli import output, session
from runlane.cli.options import Json
from runlane.tools.document import document

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runlane.tools.registry import Registry
    from runlane.tools.tool import Tool

_NONE = "No tool is registered: name modules in RUNLANE_TOOLS, or tools in runlane.toml."


def add_to(app: typer.Typer) -> None:
    """Give the commands their names."""
    tools = typer.Typer(help="Show the tools that are registered here.")
    tools.command("list")(_list)
    tools.command("show")(_show)
    app.add_typer(tools, name="tool")


def registered() -> "Registry":
    """Load the tools that the environment and `runlane.toml` name.

    Raises:
        InvalidTool: they can't be loaded.
        SettingsError: a variable can't be used.
    """
    # Deferred: a user's modules may import anything.
    from runlane.settings import Settings  # noqa: PLC0415
    from runlane.tools.loading import load  # noqa: PLC0415

    return load(Settings.from_env())


def _list(json: Json = False) -> None:
    """List the tools that are registered here.

    Those of the modules in RUNLANE_TOOLS and of runlane.toml. Words of warning go to standard
    error.
    """
    tools = registered()
    if session.wants_json():
        output.document({"object": "list", "data": [document(tool) for tool in tools]})
    elif not len(tools):
        output.say(_NONE)
    else:
        head = ("tool", "kind", "policy", "read only", "at most once", "from")
        output.table(head, [_row(tool) for tool in tools])
    warn(list(tools))


def _show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of a tool.")],
    json: Json = False,
) -> None:
    """Print what is declared of a tool, and the schema that a model gets."""
    tool = registered()[name]
    if session.wants_json():
        output.document(document(tool))
    else:
        output.say_parts((output.safe(tool.name), "bold"))
        output.fields(_fields(tool))
        schema = json_text.dumps(dict(tool.parameters), indent=2, ensure_ascii=False)
        output.say("  parameters", style="dim")
        for line in schema.splitlines():
            output.say(f"    {output.safe(line)}")
    warn([tool])


def warn(tools: "Iterable[Tool]") -> None:
    """Name the tools that nobody classified, and what those at hand lack here."""
    tools = list(tools)
    nobody = [tool.name for tool in tools if tool.options.policy is None]
    if nobody:
        whose = "its calls need" if len(nobody) == 1 else "their calls need"
        output.note(
            f"Nobody classified {', '.join(nobody)}: {whose} approval. Give a policy: auto, "
            "approve, or a function."
        )
    for tool in tools:
        missing = tool.body.missing_variables()
        if missing:
            output.note(f"{tool.name} refers to what isn't set here: {', '.join(missing)}.")


def _row(tool: "Tool") -> tuple[str, ...]:
    options = tool.options
    return (
        tool.name,
        tool.body.kind,
        options.policy_name,
        "yes" if options.read_only else "no",
        "yes" if options.at_most_once else "no",
        output.safe(tool.body.source),
    )


def _fields(tool: "Tool") -> list[tuple[str, str]]:
    told = document(tool)
    flags = [flag for flag in ("read_only", "at_most_once") if told[flag]]
    words: list[tuple[str, str]] = []
    for key, value in told.items():
        if key in ("object", "name", "read_only", "at_most_once", "parameters"):
            continue
        if value not in (None, []):
            text = ", ".join(value) if isinstance(value, list) else str(value)
            words.append((key, output.safe(" ".join(text.split()))))
        if key == "policy" and flags:
            words.append(("flags", ", ".join(flags)))
    return words
