"""The parts of parameters: tools, messages to add, formats, choices."""

from typing import Annotated, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    ConfigDict,
    JsonValue,
    StrictBool,
    StrictStr,
    Tag,
)

from runsapi.limits import (
    Float,
    Id,
    Int,
    LongText,
    MessageMetadata,
    Name,
    between,
    by_kind,
    by_type,
    limit,
)
from runsapi.wire import Params


class CodeInterpreterToolParam(Params):
    """Let the upstream run code the model writes."""

    type: Literal["code_interpreter"]


class FileSearchRankingOptionsParam(Params):
    """How found passages are ranked; ``score_threshold`` is from 0 to 1."""

    score_threshold: Annotated[Float, AfterValidator(between(0, 1))]
    ranker: Literal["auto", "default_2024_08_21"] | None = None


class FileSearchParam(Params):
    """Overrides for the file search tool."""

    max_num_results: Annotated[Int, AfterValidator(between(1, 50))] | None = None
    ranking_options: FileSearchRankingOptionsParam | None = None


class FileSearchToolParam(Params):
    """Let the upstream search the files attached to assistant and thread."""

    type: Literal["file_search"]
    file_search: FileSearchParam | None = None


class FunctionDefinitionParam(Params):
    """A function of ours; ``parameters`` is its JSON schema."""

    name: Name
    description: StrictStr | None = None
    parameters: dict[StrictStr, JsonValue] | None = None
    strict: StrictBool | None = None


class FunctionToolParam(Params):
    """Let the model ask for a function of ours."""

    type: Literal["function"]
    function: FunctionDefinitionParam


AssistantToolParam: TypeAlias = Annotated[
    Annotated[CodeInterpreterToolParam, Tag("<code_interpreter>")]
    | Annotated[FileSearchToolParam, Tag("<file_search>")]
    | Annotated[FunctionToolParam, Tag("<function>")],
    by_type("code_interpreter", "file_search", "function"),
]


class AttachmentFileSearchParam(Params):
    """File search as the tool an attachment is for: here it has no options."""

    type: Literal["file_search"]


class Attachment(Params):
    """A file attached to a message, and the tools it is for."""

    file_id: Id | None = None
    tools: (
        list[
            Annotated[
                Annotated[CodeInterpreterToolParam, Tag("<code_interpreter>")]
                | Annotated[AttachmentFileSearchParam, Tag("<file_search>")],
                by_type("code_interpreter", "file_search"),
            ]
        ]
        | None
    ) = None


class TextContentBlockParam(Params):
    """Text in a message."""

    type: Literal["text"]
    text: LongText


class ImageFileParam(Params):
    """An uploaded image."""

    file_id: Id
    detail: Literal["auto", "low", "high"] | None = None


class ImageFileContentBlockParam(Params):
    """An uploaded image in a message."""

    type: Literal["image_file"]
    image_file: ImageFileParam


class ImageURLParam(Params):
    """An image on the web."""

    url: StrictStr
    detail: Literal["auto", "low", "high"] | None = None


class ImageURLContentBlockParam(Params):
    """An image on the web, in a message."""

    type: Literal["image_url"]
    image_url: ImageURLParam


MessageContentPartParam: TypeAlias = Annotated[
    Annotated[TextContentBlockParam, Tag("<text>")]
    | Annotated[ImageFileContentBlockParam, Tag("<image_file>")]
    | Annotated[ImageURLContentBlockParam, Tag("<image_url>")],
    by_type("text", "image_file", "image_url"),
]


class AdditionalMessage(Params):
    """A message put on the thread before the run starts."""

    role: Literal["user", "assistant"]
    content: Annotated[
        Annotated[LongText, Tag("<text>")]
        | Annotated[list[MessageContentPartParam], Tag("<parts>")],
        by_kind({str: "<text>", list: "<parts>"}, "a string or a list of parts"),
    ]
    attachments: list[Attachment] | None = None
    metadata: MessageMetadata = None


class TruncationStrategyParam(Params):
    """How to cut the thread before the run."""

    type: Literal["auto", "last_messages"]
    last_messages: Annotated[Int, AfterValidator(between(1))] | None = None


class AssistantToolChoiceFunctionParam(Params):
    """The function the model must call."""

    name: StrictStr


class AssistantToolChoiceParam(Params):
    """The tool the model must use."""

    type: Literal["function", "code_interpreter", "file_search"]
    function: AssistantToolChoiceFunctionParam | None = None


def _names_its_function(choice: object) -> object:
    if (
        isinstance(choice, AssistantToolChoiceParam)
        and choice.type == "function"
        and choice.function is None
    ):
        raise limit("must name the function when its type is function")
    return choice


AssistantToolChoiceOptionParam: TypeAlias = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<word>")]
    | Annotated[AssistantToolChoiceParam, Tag("<tool>")],
    by_kind({str: "<word>", dict: "<tool>"}, "'none', 'auto', 'required' or an object"),
    AfterValidator(_names_its_function),
]


class JSONSchemaParam(Params):
    """The schema the model's answer must match."""

    # pydantic's own `schema` stands in the way of a field of that name.
    model_config = ConfigDict(extra="allow")

    name: Name
    description: StrictStr | None = None
    strict: StrictBool | None = None


class ResponseFormatTextParam(Params):
    """Answer in text."""

    type: Literal["text"]


class ResponseFormatJSONObjectParam(Params):
    """Answer with any JSON object."""

    type: Literal["json_object"]


class ResponseFormatJSONSchemaParam(Params):
    """Answer with JSON that matches a schema."""

    type: Literal["json_schema"]
    json_schema: JSONSchemaParam


ResponseFormatParam: TypeAlias = Annotated[
    Annotated[ResponseFormatTextParam, Tag("<text>")]
    | Annotated[ResponseFormatJSONObjectParam, Tag("<json_object>")]
    | Annotated[ResponseFormatJSONSchemaParam, Tag("<json_schema>")],
    by_type("text", "json_object", "json_schema"),
]

AssistantResponseFormatOptionParam: TypeAlias = Annotated[
    Annotated[Literal["auto"], Tag("<word>")] | Annotated[ResponseFormatParam, Tag("<format>")],
    by_kind({str: "<word>", dict: "<format>"}, "'auto' or an object"),
]
