"""What a question is remembered by: where its prompt begins like others, and whose turn it is."""

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from skipserve.digests import digest_of, frame
from skipserve.engine.request import Image
from skipserve.prompt.processor import EncodedPrompt
from skipserve.prompt.template import ImagePart, Message, TextPart
from skipserve_policies.plan import TokenClass

# Rows of text between two marks: a page's, by default.
_MARK_ROWS = 16


@dataclass(frozen=True)
class Mark:
    """A place in a prompt, known by all that stands before it.

    Attributes:
        digest: of that, with whose it is: 32 bytes.
        num_text: rows of text before it.
        num_images: images before it.
    """

    digest: bytes
    num_text: int
    num_images: int

    def num_rows(self, image_rows: int) -> int:
        """Return the rows before it, with so many for each image."""
        return self.num_text + self.num_images * image_rows


def marks_of(prompt: EncodedPrompt, images: Sequence[Image], root: bytes) -> tuple[Mark, ...]:
    """Return the marks of a prompt, the first to the last, whatever rows its images have.

    Args:
        prompt: its rows.
        images: in the order of their places, each with as many rows as it has there.
        root: whose it is: prompts of different roots have no mark in common.
    """
    return tuple(_marks(prompt, images, root))


def _marks(prompt: EncodedPrompt, images: Sequence[Image], root: bytes) -> Iterator[Mark]:
    digest, num_text, row = root, 0, 0
    for place, image in enumerate((*images, None)):
        end = len(prompt.prompt_ids) if image is None else _first_visual(prompt, row)
        for start in range(row, end, _MARK_ROWS):
            stop = min(start + _MARK_ROWS, end)
            ids = array("I", prompt.prompt_ids[start:stop]).tobytes()
            digest, num_text = digest_of(digest, b"text", ids), num_text + stop - start
            if stop - start == _MARK_ROWS:
                yield Mark(digest, num_text, place)
        if image is not None:
            digest = digest_of(digest, b"image", image.digest)
            row = end + image.num_rows
            yield Mark(digest, num_text, place + 1)


def _first_visual(prompt: EncodedPrompt, row: int) -> int:
    """Return the first row of an image, from a row on; the last row of a prompt may be one."""
    try:
        return prompt.token_classes.index(TokenClass.VISUAL, row)
    except ValueError:
        return len(prompt.token_classes) - 1


@dataclass(frozen=True)
class Conversation:
    """Where a question stands in a conversation.

    Attributes:
        own: what its messages are known by; None where there are none.
        earlier: what those of the earlier turns are known by, the latest first.
    """

    own: bytes | None
    earlier: tuple[bytes, ...] = ()


def conversation_of(
    messages: Sequence[Message], images: Sequence[Image], root: bytes
) -> Conversation:
    """Return where a question stands: an earlier turn asked what stands before an answer of ours.

    Args:
        messages: what is said.
        images: in the order of their places.
        root: whose it is.
    """
    if not messages:
        return Conversation(None)
    pictures = iter(images)
    begun = hashlib.sha256(root)
    earlier: list[bytes] = []
    for index, message in enumerate(messages):
        if message.role == "assistant" and index:
            earlier.append(begun.digest())
        begun.update(frame(*_message_fields(message, pictures)))
    return Conversation(begun.digest(), tuple(reversed(earlier)))


def _message_fields(message: Message, pictures: Iterator[Image]) -> Iterator[bytes]:
    yield message.role.encode()
    for part in message.parts:
        match part:
            case TextPart(text):
                yield b"text" + text.encode("utf-8", "surrogatepass")
            case ImagePart():
                picture = next(pictures, None)
                yield b"image" + (picture.digest if picture else b"")
    for call in message.calls:
        yield b"call" + frame(call.name.encode(), call.arguments.encode("utf-8", "surrogatepass"))
