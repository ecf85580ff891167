"""Messages in OpenAI's form, which whoever asks writes them in; knows where their media stand."""

import re
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from skipserve.asking.fields import (
    AUDIO_URL,
    IMAGE_URL,
    INPUT_AUDIO,
    MESSAGE,
    PART,
    VIDEO_URL,
)
from skipserve.asking.question import ImageUri
from skipserve.prompt.template import Call, ImagePart, Message, TextPart
from skipserve_policies.schema import MIN_ITEMS, NotEmpty, check_number_of_fields
from skipserve_policies.sizes import Modality

MAX_MESSAGES = 256
MAX_PARTS = 256
MAX_TEXT_LENGTH = 2**20
MAX_CALLS = 128
MAX_CALL_ID = 256
MAX_FUNCTION_NAME = 128
_FUNCTION_NAME = r"^[A-Za-z0-9_.-]+$"

Text = Annotated[str, Field(max_length=MAX_TEXT_LENGTH)]


class Form(BaseModel):
    """What a client sends: a field that is not known is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    _check_number_of_fields = model_validator(mode="before")(check_number_of_fields)


def one_or_several(value: object) -> str:
    """Tell one text from a list, so that an error speaks of the form that was meant."""
    return "several" if isinstance(value, list | tuple) else "one"


def by_type(**names: str) -> Callable[[object], str | None]:
    """Return what tells which form is meant by the `type` in it.

    Args:
        names: of the forms, by their types: words that are no field's name, for those would stand
            in errors.
    """

    def tell(value: object) -> str | None:
        kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
        return names.get(str(kind))

    return tell


T = TypeVar("T")
SomeParts = Annotated[
    tuple[T, ...],
    Field(max_length=MAX_PARTS, fail_fast=True, json_schema_extra=MIN_ITEMS),
    NotEmpty,
]
TextOrParts = Annotated[
    Annotated[Text, Tag("one")] | Annotated[SomeParts[T], Tag("several")],
    Discriminator(one_or_several),
]


class Role(StrEnum):
    """Who speaks."""

    SYSTEM = "system"
    # OpenAI's newer word for the same.
    DEVELOPER = "developer"
    USER = "user"
    ASSISTANT = "assistant"
    # The result of a function that the assistant has called.
    TOOL = "tool"


class TextContent(Form):
    """A piece of text; URLs in it are not looked at."""

    model_config = ConfigDict(json_schema_extra=PART.describe_ignored)

    type: Literal["text"]
    text: Text


class ImageUrl(Form):
    """Where an image is."""

    model_config = ConfigDict(json_schema_extra=IMAGE_URL.describe_ignored)

    url: str = Field(
        description="A data URI: data:image/png;base64,... or, where fetching is switched on, an "
        "http or https URL.",
        examples=[
            "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mP4z8AA"
            "AAMBAQAY3Y2wAAAAAElFTkSuQmCC"
        ],
    )


class ImageContent(Form):
    """An image in a message."""

    model_config = ConfigDict(json_schema_extra=PART.describe_ignored)

    type: Literal["image_url"]
    image_url: ImageUrl


class VideoUrl(Form):
    """Where a video is."""

    model_config = ConfigDict(json_schema_extra=VIDEO_URL.describe_ignored)

    url: str = Field(
        description="A data URI of an animated GIF, WebP or PNG, or of JPEG pictures in base64 "
        "with commas between them, data:video/jpeg;base64,...; or, where fetching is switched on, "
        "an http or https URL."
    )


class VideoContent(Form):
    """A video in a message, for a model that takes videos."""

    model_config = ConfigDict(json_schema_extra=PART.describe_ignored)

    type: Literal["video_url"]
    video_url: VideoUrl


class AudioUrl(Form):
    """Where a sound is."""

    model_config = ConfigDict(json_schema_extra=AUDIO_URL.describe_ignored)

    url: str = Field(
        description="A data URI, data:audio/wav;base64,... or, where fetching is switched on, an "
        "http or https URL."
    )


class AudioContent(Form):
    """A sound in a message, for a model that takes sounds."""

    model_config = ConfigDict(json_schema_extra=PART.describe_ignored)

    type: Literal["audio_url"]
    audio_url: AudioUrl


class InputAudio(Form):
    """A sound's file."""

    model_config = ConfigDict(json_schema_extra=INPUT_AUDIO.describe_ignored)

    data: str = Field(description="The file in base64.")
    format: Literal["wav"]

    @property
    def uri(self) -> str:
        """The sound as a data URI."""
        return f"data:audio/wav;base64,{self.data}"


class RecordingContent(Form):
    """The same, in OpenAI's form."""

    model_config = ConfigDict(json_schema_extra=PART.describe_ignored)

    type: Literal["input_audio"]
    input_audio: InputAudio


Content = Annotated[
    Annotated[TextContent, Tag("a text")]
    | Annotated[ImageContent, Tag("an image")]
    | Annotated[VideoContent, Tag("a video")]
    | Annotated[AudioContent, Tag("a sound")]
    | Annotated[RecordingContent, Tag("a recording")],
    Discriminator(
        by_type(
            text="a text",
            image_url="an image",
            video_url="a video",
            audio_url="a sound",
            input_audio="a recording",
        ),
        custom_error_type="part_type",
        custom_error_message=(
            'a part is {"type": "text", "text": ...} or '
            '{"type": "image_url", "image_url": {"url": ...}}; or, where the model takes them, '
            'a video_url or audio_url of the same form, or {"type": "input_audio", "input_audio": '
            '{"data": ..., "format": "wav"}}'
        ),
    ),
]


def _check_function_name(value: str) -> str:
    if not re.fullmatch(_FUNCTION_NAME, value):
        raise ValueError("a function's name is of letters, digits and the signs _ . -")
    return value


FunctionName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_FUNCTION_NAME,
        json_schema_extra={"pattern": _FUNCTION_NAME},
        examples=["get_weather"],
    ),
    AfterValidator(_check_function_name),
]


class CalledFunction(Form):
    """A function with what it was called with; `arguments` is the text of a JSON object."""

    name: FunctionName
    arguments: Text


class ToolCall(Form):
    """A call that the assistant has made."""

    id: Annotated[str, Field(max_length=MAX_CALL_ID)]
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(Form):
    """One turn of a conversation; a field that is null counts as absent."""

    model_config = ConfigDict(json_schema_extra=MESSAGE.describe_ignored)

    role: Role
    content: TextOrParts[Content] | None
    tool_calls: Annotated[tuple[ToolCall, ...], Field(max_length=MAX_CALLS)] | None = None
    tool_call_id: Annotated[str, Field(max_length=MAX_CALL_ID)] | None = None

    @model_validator(mode="after")
    def _check_role(self) -> Self:
        """Take calls from the assistant alone, and results from tools."""
        if self.tool_calls and self.role is not Role.ASSISTANT:
            raise ValueError("tool_calls are the assistant's")
        if (self.tool_call_id is not None) != (self.role is Role.TOOL):
            raise ValueError("tool_call_id goes with the role tool, and that with it")
        if self.role is Role.TOOL and _has_media(self.content):
            raise ValueError("the content of a tool's message is text")
        return self

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: Any) -> Any:
        if isinstance(value, dict):
            given = {key: field for key, field in value.items() if field is not None}
            # Beside calls nothing need be said.
            return {"content": None} | given if given.get("tool_calls") else given
        return value


Messages = Annotated[
    tuple[ChatMessage, ...],
    Field(max_length=MAX_MESSAGES, fail_fast=True, json_schema_extra=MIN_ITEMS),
    NotEmpty,
]


def template_messages(messages: Sequence[ChatMessage]) -> tuple[Message, ...]:
    """Return messages as the chat template takes them, with the images' places."""
    return tuple(
        Message(
            _template_role(message.role),
            tuple(_template_parts(message.content)),
            tuple(
                Call(it.id, it.function.name, it.function.arguments)
                for it in message.tool_calls or ()
            ),
            message.tool_call_id,
        )
        for message in messages
    )


def _has_media(content: str | tuple[Content, ...] | None) -> bool:
    parts = () if content is None or isinstance(content, str) else content
    return not all(isinstance(part, TextContent) for part in parts)


def _template_role(role: Role) -> str:
    return Role.SYSTEM.value if role is Role.DEVELOPER else role.value


def _template_parts(content: str | tuple[Content, ...] | None) -> Iterator[TextPart | ImagePart]:
    if isinstance(content, str):
        yield TextPart(content)
        return
    for part in content or ():
        yield TextPart(part.text) if isinstance(part, TextContent) else ImagePart()


def image_uris(messages: Sequence[ChatMessage]) -> tuple[ImageUri, ...]:
    """Return the images, videos and sounds of messages in the order of their places."""
    return tuple(
        _uri(part, f"messages[{i}].content[{j}].{part.type}")
        for i, message in enumerate(messages)
        if not isinstance(message.content, str)
        for j, part in enumerate(message.content or ())
        if not isinstance(part, TextContent)
    )


def _uri(
    part: ImageContent | VideoContent | AudioContent | RecordingContent, param: str
) -> ImageUri:
    match part:
        case ImageContent():
            return ImageUri(part.image_url.url, param)
        case VideoContent():
            return ImageUri(part.video_url.url, param, Modality.VIDEO)
        case AudioContent():
            return ImageUri(part.audio_url.url, param, Modality.AUDIO)
    return ImageUri(part.input_audio.uri, param, Modality.AUDIO)
