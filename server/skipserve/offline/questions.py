"""What is asked offline: questions in the forms that users have them in. Knows no tokens."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL.Image import Image as Picture
from pydantic import ValidationError

from skipserve.asking.fields import CHAT, sift
from skipserve.asking.messages import Form, Messages, image_uris, template_messages
from skipserve.errors import InvalidRequestError, SkipserveError, UnusableImageError
from skipserve.media.data_uri import NOUNS, EncodedImage, decode_data_uri
from skipserve.media.decode import as_shown, decode_image
from skipserve.prompt.template import ImagePart, Message, TextPart
from skipserve_policies.faults import faults_of
from skipserve_policies.sizes import Modality

# A path, a data URI, the bytes of a file, or a PIL image; a file is of what the model takes.
ImageSource = str | os.PathLike[str] | bytes | Picture

_FORMS = (
    "a question is a text, a tuple of an image (or a list of images) and a text, a Question, "
    "or a list of messages in OpenAI's form"
)
_IMAGE_FORMS = "an image is a path, a data URI, the bytes of a picture file or a PIL image"
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".heic", ".avif")
_SOUND_SUFFIX = ".wav"
_PAIR = 2


@dataclass(frozen=True)
class Question:
    """A text about any number of images.

    Attributes:
        text: what is asked.
        images: each a path, a data URI, the bytes of a picture file, or a PIL image; for a model
            of videos or sounds, of such a file.
    """

    text: str
    images: Sequence[ImageSource] = ()


Turn = Mapping[str, Any]
AnyQuestion = str | tuple[ImageSource | Sequence[ImageSource], str] | Question | Sequence[Turn]


class _Turns(Form):
    messages: Messages


@dataclass(frozen=True)
class Conversation:
    """A question as the chat template takes it.

    Attributes:
        messages: what is said, with the places of the images.
        images: in the order of their places.
    """

    messages: tuple[Message, ...]
    images: tuple[ImageSource, ...]


def list_questions(questions: Iterable[AnyQuestion]) -> list[AnyQuestion]:
    """Return several questions, in their order.

    Raises:
        InvalidRequestError: it is a single question, or could be taken for one, or holds none.
    """
    match questions:
        case str() | Question():
            raise _not_several("a single question; put it into a list: [question]")
        case bytes() | os.PathLike() | Picture():
            raise _not_several("a picture; ask about it with [(image, text)]")
        case Mapping():
            raise _not_several(
                "a mapping; messages are put into a list, and that into another: [[message]]"
            )
        case Set():
            raise _not_several("a set, which has no order; make it a list")
        case (_, str()) if isinstance(questions, tuple):
            raise _not_several(
                "a tuple that may be one question or two; write [(image, text)] for one about an "
                "image, [text, text] for two"
            )
    try:
        return list(questions)
    except TypeError as error:
        raise _not_several(f"of type {type(questions).__name__}; it must be a list") from error


def _not_several(reason: str) -> InvalidRequestError:
    return InvalidRequestError(f"questions is {reason}", param="questions")


def read_question(question: AnyQuestion) -> Conversation:
    """Return a question of any form as a conversation.

    Raises:
        InvalidRequestError: it is of no form that is known, or a picture stands where a text does.
    """
    match question:
        case str() as text:
            if _is_picture(text):
                noun = "sound" if text.lower().endswith(_SOUND_SUFFIX) else "picture"
                raise InvalidRequestError(
                    f"this is a {noun} without a text: ask about it with a tuple, (image, text); "
                    "Question(text) takes any text as one"
                )
            return _conversation(text, ())
        case Question(text, images):
            return _conversation(text, images)
        case list():
            return _read_turns(question)
        case (images, text):
            if isinstance(text, str) and _is_picture(text):
                raise InvalidRequestError("the second of the two is a picture; it goes first")
            return _conversation(text, images)
    raise InvalidRequestError(
        f"{_FORMS}; this is of type {type(question).__name__}{_advise(question)}"
    )


def _is_picture(text: str) -> bool:
    """Whether a text can only be meant as a file: it is one, or a word that ends as one's name."""
    suffixes = (*_SUFFIXES, _SOUND_SUFFIX)
    is_name = text.lower().endswith(suffixes) and not any(map(str.isspace, text))
    is_uri = text.startswith(("data:image/", "data:audio/", "data:video/"))
    return is_name or is_uri or os.path.isfile(text)


def _advise(question: object) -> str:
    match question:
        case Mapping():
            return ", and messages go into a list of their own: [[message], [message]]"
        case tuple() if len(question) > _PAIR:
            return f" with {len(question)} parts, and several images go into a list"
        case bytes() | os.PathLike() | Picture():
            return ", a picture without a text: ask about it with a tuple, (image, text)"
    return ""


def _conversation(text: object, images: object) -> Conversation:
    if not isinstance(text, str):
        raise InvalidRequestError(
            f"{_FORMS}; here the text is of type {type(text).__name__}; the image goes first"
        )
    if not _is_unicode(text):
        raise InvalidRequestError("the text is not valid Unicode: it holds half of a character")
    several: Sequence[Any] = images if isinstance(images, list | tuple) else (images,)
    places = tuple(ImagePart() for _ in several)
    return Conversation((Message("user", (*places, TextPart(text))),), tuple(several))


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_turns(turns: Sequence[object]) -> Conversation:
    if not all(isinstance(turn, Mapping) for turn in turns):
        raise InvalidRequestError(
            f"{_FORMS}; this list holds something else than messages: an image and its text are "
            "a tuple, (image, text)"
        )
    said = [dict(turn) for turn in turns]  # type: ignore[call-overload]
    given, _ = sift({"messages": said}, CHAT)
    try:
        messages = _Turns.model_validate(given).messages
    except ValidationError as error:
        fault = faults_of(error, _Turns, given)[0]
        place = ".".join(map(str, fault.place[1:]))
        told = f"message {place}: {fault.message}" if place else f"here {fault.message}"
        raise InvalidRequestError(f"{_FORMS}; {told}") from error
    urls = tuple(image.url for image in image_uris(messages))
    return Conversation(template_messages(messages), urls)


def read_image(source: ImageSource, max_pixels: int) -> Picture:
    """Return an image as RGB, upright, opaque.

    Raises:
        UnusableImageError: it cannot be read or decoded, or has more than `max_pixels`.
    """
    if isinstance(source, Picture):
        return as_shown(source, max_pixels, "")
    return decode_image(read_file(source), max_pixels)


def read_file(
    source: str | os.PathLike[str] | bytes, modality: Modality = Modality.IMAGE
) -> EncodedImage:
    """Return the file of an image, a video or a sound.

    Raises:
        UnusableImageError: it cannot be read, or is of another kind by its data URI.
    """
    match source:
        case bytes():
            return EncodedImage(source, "")
        case str() if re.match(r"(https?|ftp)://", source, re.IGNORECASE):
            raise UnusableImageError(
                "images are not fetched from the web: download it, and give its path"
            )
        case str() if source.startswith("data:"):
            return decode_data_uri(source, "", max_bytes=len(source), modality=modality)
        case str() | os.PathLike():
            try:
                return EncodedImage(Path(source).read_bytes(), "")
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or error
                raise UnusableImageError(f"the file cannot be read: {reason}") from error
    raise UnusableImageError(
        f"{_IMAGE_FORMS}; this is of type {type(source).__name__}{_convert(source)}"
    )


def _convert(source: object) -> str:
    if hasattr(source, "__array__"):
        return ", which PIL.Image.fromarray may turn into one"
    return ", whose read() may give the bytes" if hasattr(source, "read") else ""


def describe_image(source: ImageSource, modality: Modality = Modality.IMAGE) -> str:
    """Return what to call an image, a video or a sound in a message: its path, if it has one."""
    if isinstance(source, os.PathLike) or (isinstance(source, str) and source[:5] != "data:"):
        return f"{NOUNS[modality]} {os.fspath(source)}"
    return "an image" if modality is Modality.IMAGE else f"a {NOUNS[modality]}"


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
