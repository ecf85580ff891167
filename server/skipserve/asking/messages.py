"""Messages in OpenAI's form, which whoever asks writes them in; knows where their images stand."""

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from skipserve.asking.fields import IMAGE_URL, MESSAGE, PART
from skipserve.asking.question import ImageUri
from skipserve.prompt.template import ImagePart, Message, TextPart
from skipserve_policies.schema import MIN_ITEMS, NotEmpty, check_number_of_fields

MAX_MESSAGES = 256
MAX_PARTS = 256
MAX_TEXT_LENGTH = 2**20

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


Content = Annotated[
    Annotated[TextContent, Tag("a text")] | Annotated[ImageContent, Tag("an image")],
    Discriminator(
        by_type(text="a text", image_url="an image"),
        custom_error_type="part_type",
        custom_error_message=(
            'a part is {"type": "text", "text": ...} or '
            '{"type": "image_url", "image_url": {"url": ...}}'
        ),
    ),
]


class ChatMessage(Form):
    """One turn of a conversation; a field that is null counts as absent."""

    model_config = ConfigDict(json_schema_extra=MESSAGE.describe_ignored)

    role: Role
    content: TextOrParts[Content]

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: field for key, field in value.items() if field is not None}
        return value


Messages = Annotated[
    tuple[ChatMessage, ...],
    Field(max_length=MAX_MESSAGES, fail_fast=True, json_schema_extra=MIN_ITEMS),
    NotEmpty,
]


def template_messages(messages: Sequence[ChatMessage]) -> tuple[Message, ...]:
    """Return messages as the chat template takes them, with the images' places."""
    return tuple(
        Message(_template_role(message.role), tuple(_template_parts(message.content)))
        for message in messages
    )


def _template_role(role: Role) -> str:
    return Role.SYSTEM.value if role is Role.DEVELOPER else role.value


def _template_parts(content: str | tuple[Content, ...]) -> Iterator[TextPart | ImagePart]:
    if isinstance(content, str):
        yield TextPart(content)
        return
    for part in content:
        yield TextPart(part.text) if isinstance(part, TextContent) else ImagePart()


def image_uris(messages: Sequence[ChatMessage]) -> tuple[ImageUri, ...]:
    """Return the images of messages in the order of their places."""
    return tuple(
        ImageUri(part.image_url.url, f"messages[{i}].content[{j}].image_url")
        for i, message in enumerate(messages)
        if not isinstance(message.content, str)
        for j, part in enumerate(message.content)
        if isinstance(part, ImageContent)
    )
