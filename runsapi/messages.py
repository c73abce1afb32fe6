"""Messages of a thread and the thread itself, as streams bring them."""

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from runsapi.models import IncompleteDetails
from runsapi.tools import UnknownTool
from runsapi.wire import (
    Metadata,
    OpenWireObject,
    OrEmpty,
    OrNone,
    Seconds,
    SecondsOrNone,
    Text,
    WireObject,
    or_default,
)


class FileCitation(WireObject):
    """The file a passage comes from."""

    file_id: str | None = None
    quote: str | None = None


class FileCitationAnnotation(WireObject):
    """A place in the text that quotes a file; the indices count characters."""

    type: Literal["file_citation"]
    index: int | None = None
    text: str | None = None
    start_index: int | None = None
    end_index: int | None = None
    file_citation: Annotated[FileCitation | None, OrNone] = None


class FilePath(WireObject):
    """A file the code interpreter wrote."""

    file_id: str | None = None


class FilePathAnnotation(WireObject):
    """A place in the text that names a file; the indices count characters."""

    type: Literal["file_path"]
    index: int | None = None
    text: str | None = None
    start_index: int | None = None
    end_index: int | None = None
    file_path: Annotated[FilePath | None, OrNone] = None


class UnknownAnnotation(OpenWireObject):
    """An annotation of a kind this package doesn't know."""

    type: Text = ""


Annotation: TypeAlias = Annotated[
    FileCitationAnnotation | FilePathAnnotation | UnknownAnnotation,
    Field(union_mode="left_to_right"),
]


class TextValue(WireObject):
    """Text and the places in it that refer to files."""

    value: Text = ""
    annotations: Annotated[list[Annotation], OrEmpty] = Field(default_factory=list)


class TextContentBlock(WireObject):
    """Text."""

    type: Literal["text"]
    text: Annotated[TextValue, or_default(TextValue)] = TextValue()


class ImageFile(WireObject):
    """An uploaded image."""

    file_id: Text = ""
    detail: str | None = None


class ImageFileContentBlock(WireObject):
    """An uploaded image in a message."""

    type: Literal["image_file"]
    image_file: Annotated[ImageFile, or_default(ImageFile)] = ImageFile()


class ImageURL(WireObject):
    """An image on the web."""

    url: Text = ""
    detail: str | None = None


class ImageURLContentBlock(WireObject):
    """An image on the web, in a message."""

    type: Literal["image_url"]
    image_url: Annotated[ImageURL, or_default(ImageURL)] = ImageURL()


class RefusalContentBlock(WireObject):
    """The model's refusal."""

    type: Literal["refusal"]
    refusal: Text = ""


class UnknownContentBlock(OpenWireObject):
    """Content of a kind this package doesn't know."""

    type: Text = ""


MessageContent: TypeAlias = Annotated[
    TextContentBlock
    | ImageFileContentBlock
    | ImageURLContentBlock
    | RefusalContentBlock
    | UnknownContentBlock,
    Field(union_mode="left_to_right"),
]


class MessageAttachment(WireObject):
    """A file attached to a message, and the tools it is for."""

    file_id: str | None = None
    tools: Annotated[list[UnknownTool], OrEmpty] = Field(default_factory=list)


class Message(WireObject):
    """A message of a thread. Times are Unix seconds."""

    id: str = Field(min_length=1)
    object: str = "thread.message"
    role: Text = ""
    status: Text = ""
    thread_id: Text = ""
    assistant_id: str | None = None
    run_id: str | None = None
    content: Annotated[list[MessageContent], OrEmpty] = Field(default_factory=list)
    attachments: Annotated[list[MessageAttachment], OrEmpty] = Field(default_factory=list)
    metadata: Metadata = None
    created_at: Seconds = 0
    completed_at: SecondsOrNone = None
    incomplete_at: SecondsOrNone = None
    incomplete_details: Annotated[IncompleteDetails | None, OrNone] = None

    @property
    def text(self) -> str:
        """The text of all its parts, one after another."""
        return "".join(
            part.text.value for part in self.content if isinstance(part, TextContentBlock)
        )


class TextDelta(WireObject):
    """More text."""

    value: str | None = None
    annotations: list[Annotation] | None = None


class TextDeltaBlock(WireObject):
    """More of a text part; ``index`` is its place in the message."""

    index: int
    type: Literal["text"]
    text: TextDelta | None = None


class ImageFileDeltaBlock(WireObject):
    """More of an image part."""

    index: int
    type: Literal["image_file"]
    image_file: ImageFile | None = None


class ImageURLDeltaBlock(WireObject):
    """More of an image part."""

    index: int
    type: Literal["image_url"]
    image_url: ImageURL | None = None


class RefusalDeltaBlock(WireObject):
    """More of a refusal."""

    index: int
    type: Literal["refusal"]
    refusal: str | None = None


class UnknownDeltaBlock(OpenWireObject):
    """More of a part of a kind this package doesn't know."""

    index: int = 0
    type: Text = ""


MessageContentDelta: TypeAlias = Annotated[
    TextDeltaBlock
    | ImageFileDeltaBlock
    | ImageURLDeltaBlock
    | RefusalDeltaBlock
    | UnknownDeltaBlock,
    Field(union_mode="left_to_right"),
]


class MessageDelta(WireObject):
    """What changed in a message."""

    role: str | None = None
    content: list[MessageContentDelta] | None = None


class MessageDeltaEvent(WireObject):
    """What changed in which message."""

    id: str
    object: str = "thread.message.delta"
    delta: Annotated[MessageDelta, or_default(MessageDelta)] = MessageDelta()


class Thread(WireObject):
    """A conversation."""

    id: str = Field(min_length=1)
    object: str = "thread"
    created_at: Seconds = 0
    metadata: Metadata = None
    tool_resources: dict[str, Any] | None = None
