"""What is asked offline: questions in the forms that users have them in. Knows no tokens."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL.Image import Image as Picture
from pydantic import ValidationError

from skipserve.api.convert import messages_of
from skipserve.api.wire import ChatForm, TextContent
from skipserve.errors import InvalidRequestError, SkipserveError, UnusableImageError
from skipserve.media.data_uri import EncodedImage, decode_data_uri
from skipserve.media.decode import PixelLimits, as_shown, decode_images
from skipserve.prompt.template import ImagePart, Message, TextPart

# A path, a data URI, the bytes of a picture file, or a PIL image.
ImageSource = str | os.PathLike[str] | bytes | Picture

_FORMS = (
    "a question is a text, a tuple of an image (or a list of images) and a text, a Question, "
    "or a list of messages in OpenAI's form"
)


@dataclass(frozen=True)
class Question:
    """A text about any number of images.

    Attributes:
        text: what is asked.
        images: each a path, a data URI, the bytes of a picture file, or a PIL image.
    """

    text: str
    images: Sequence[ImageSource] = ()


Turn = Mapping[str, Any]
AnyQuestion = str | tuple[ImageSource | Sequence[ImageSource], str] | Question | Sequence[Turn]


@dataclass(frozen=True)
class Conversation:
    """A question as the chat template takes it.

    Attributes:
        messages: what is said, with the places of the images.
        images: in the order of their places.
    """

    messages: tuple[Message, ...]
    images: tuple[ImageSource, ...]


def read_question(question: AnyQuestion) -> Conversation:
    """Return a question of any form as a conversation.

    Raises:
        InvalidRequestError: it is of no form that is known.
    """
    match question:
        case str() as text:
            return _conversation(text, ())
        case Question(text, images):
            return _conversation(text, images)
        case list():
            return _read_turns(question)
        case (images, text):
            return _conversation(text, images)
    raise InvalidRequestError(f"{_FORMS}; this is of type {type(question).__name__}")


def _conversation(text: object, images: object) -> Conversation:
    if not isinstance(text, str):
        raise InvalidRequestError(f"{_FORMS}; here the text is of type {type(text).__name__}")
    several: Sequence[Any] = images if isinstance(images, list | tuple) else (images,)
    places = tuple(ImagePart() for _ in several)
    return Conversation((Message("user", (*places, TextPart(text))),), tuple(several))


def _read_turns(turns: object) -> Conversation:
    try:
        form = ChatForm.model_validate({"messages": turns})
    except ValidationError as error:
        raise InvalidRequestError(f"{_FORMS}; {first_fault(error)}") from error
    images = tuple(
        part.image_url.url
        for message in form.messages
        if not isinstance(message.content, str)
        for part in message.content
        if not isinstance(part, TextContent)
    )
    return Conversation(tuple(messages_of(form)), images)


def read_image(source: ImageSource, max_pixels: int) -> Picture:
    """Return an image as RGB, upright, opaque.

    Raises:
        UnusableImageError: it cannot be read or decoded, or has more than `max_pixels`.
    """
    if isinstance(source, Picture):
        return as_shown(source, max_pixels, "")
    encoded = EncodedImage(_content(source), "")
    return decode_images([encoded], PixelLimits(max_pixels, max_pixels))[0]


def _content(source: str | os.PathLike[str] | bytes) -> bytes:
    match source:
        case bytes():
            return source
        case str() if source.startswith("data:"):
            return decode_data_uri(source, "", max_bytes=len(source)).content
        case str() | os.PathLike():
            try:
                return Path(source).read_bytes()
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or error
                raise UnusableImageError(f"the file cannot be read: {reason}") from error
    raise UnusableImageError(
        "an image is a path, a data URI, the bytes of a picture file or a PIL image; "
        f"this is of type {type(source).__name__}"
    )


def describe_image(source: ImageSource) -> str:
    """Return what to call an image in a message: its path, where it has one."""
    if isinstance(source, os.PathLike) or (isinstance(source, str) and source[:5] != "data:"):
        return f"image {os.fspath(source)}"
    return "an image"


@contextmanager
def naming(place: str) -> Iterator[None]:
    """Put a place before the message of an error that comes from there.

    Raises:
        SkipserveError: of the same kind, with the place as its `param`.
    """
    try:
        yield
    except SkipserveError as error:
        raise type(error)(f"{place}: {error.message}", place) from error


def first_fault(error: ValidationError) -> str:
    """Return what pydantic found wrong first, with its place."""
    fault = error.errors()[0]
    place = ".".join(map(str, fault["loc"]))
    return f"{place}: {fault['msg']}" if place else fault["msg"]
