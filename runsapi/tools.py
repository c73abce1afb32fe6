"""Tools an assistant may use, which of them it must use, and the format of its answer."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from runsapi.wire import OpenWireObject, OrNone, Text, WireObject

ReasoningEffort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class CodeInterpreterTool(WireObject):
    """The upstream runs code the model writes."""

    type: Literal["code_interpreter"]


class FileSearchRankingOptions(WireObject):
    """How found passages are ranked; ``score_threshold`` is from 0 to 1."""

    score_threshold: float = 0.0
    ranker: str | None = None


class FileSearch(WireObject):
    """Overrides for the file search tool; ``max_num_results`` is from 1 to 50."""

    max_num_results: int | None = None
    ranking_options: Annotated[FileSearchRankingOptions | None, OrNone] = None


class FileSearchTool(WireObject):
    """The upstream searches the files attached to assistant and thread."""

    type: Literal["file_search"]
    file_search: Annotated[FileSearch | None, OrNone] = None


class FunctionDefinition(WireObject):
    """A function of ours the model may ask for; ``parameters`` is a JSON schema."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class FunctionTool(WireObject):
    """A function of ours."""

    type: Literal["function"]
    function: FunctionDefinition


class UnknownTool(OpenWireObject):
    """A tool of a kind this package doesn't know, or one it can't read; all its fields are kept."""

    type: Text = ""


AssistantTool: TypeAlias = Annotated[
    CodeInterpreterTool | FileSearchTool | FunctionTool | UnknownTool,
    Field(union_mode="left_to_right"),
]


class AssistantToolChoiceFunction(WireObject):
    """The function that must be called."""

    name: str


class AssistantToolChoice(WireObject):
    """One tool that must be used; ``function`` is given when ``type`` is ``function``."""

    type: str
    function: Annotated[AssistantToolChoiceFunction | None, OrNone] = None


AssistantToolChoiceOption: TypeAlias = Annotated[
    AssistantToolChoice | str, Field(union_mode="left_to_right")
]
"""``none``, ``auto``, ``required``, or the tool that must be used."""


class ResponseFormat(OpenWireObject):
    """The format of the model's answer: ``text``, ``json_object``, or ``json_schema``."""

    type: str
    json_schema: dict[str, Any] | None = None


AssistantResponseFormatOption: TypeAlias = Annotated[
    ResponseFormat | str, Field(union_mode="left_to_right")
]
"""``auto``, or a format."""
