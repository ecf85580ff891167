"""The form of `POST /v1/messages`, which is Anthropic's, to a question."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from enum import StrEnum
from itertools import groupby
from typing import Annotated, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag

from skipserve.api.forms.shared import begin_question, sampling
from skipserve.api.forms.tables import COUNT_TOKENS, MESSAGES
from skipserve.api.wire import BodyForm, Count, Flag, Name, SamplingFields, Stops
from skipserve.asking.messages import (
    MAX_MESSAGES,
    MAX_PARTS,
    Form,
    Text,
    TextContent,
    TextOrParts,
    by_type,
    one_or_several,
)
from skipserve.asking.question import ImageUri, Question
from skipserve.asking.turns import Turn, with_turns
from skipserve.errors import InvalidRequestError
from skipserve_policies.schema import MIN_ITEMS, NotEmpty


class MessageRole(StrEnum):
    """Who speaks."""

    USER = "user"
    ASSISTANT = "assistant"


class Base64Source(Form):
    """An image file."""

    type: Literal["base64"]
    media_type: Annotated[str, Field(max_length=100)] = Field(examples=["image/png"])
    data: str = Field(
        description="The file in base64.",
        examples=[
            "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mP4z8AAAAMBAQAY3Y2wAAAAAElF"
            "TkSuQmCC"
        ],
    )

    @property
    def uri(self) -> str:
        """The image as a data URI."""
        return f"data:{self.media_type};base64,{self.data}"


class UrlSource(Form):
    """Where an image is."""

    type: Literal["url"]
    url: str = Field(
        description="A data URI, or an http or https URL where fetching is switched on."
    )

    @property
    def uri(self) -> str:
        """The URL."""
        return self.url


Source = Annotated[
    Annotated[Base64Source, Tag("a file")] | Annotated[UrlSource, Tag("a place")],
    Discriminator(
        by_type(base64="a file", url="a place"),
        custom_error_type="source_type",
        custom_error_message=(
            'a source is {"type": "base64", "media_type": "image/png", "data": ...}'
        ),
    ),
]


class ImageBlock(Form):
    """An image in a message."""

    type: Literal["image"]
    source: Source


Block = Annotated[
    Annotated[TextContent, Tag("a text")] | Annotated[ImageBlock, Tag("an image")],
    Discriminator(
        by_type(text="a text", image="an image"),
        custom_error_type="block_type",
        custom_error_message=(
            'a block is {"type": "text", "text": ...} or {"type": "image", "source": ...}; tools, '
            "documents and thinking are not supported yet"
        ),
    ),
]
_SYSTEM_PARTS = Field(max_length=MAX_PARTS, fail_fast=True)
_MESSAGES = Field(max_length=MAX_MESSAGES, fail_fast=True, json_schema_extra=MIN_ITEMS)


class MessageTurn(Form):
    """One turn of a conversation."""

    role: MessageRole
    content: TextOrParts[Block]


class _Said(BodyForm):
    messages: Annotated[tuple[MessageTurn, ...], _MESSAGES, NotEmpty] = Field(
        examples=[[{"role": "user", "content": "How many red squares are there?"}]]
    )
    system: (
        Annotated[
            Annotated[Text, Tag("one")]
            | Annotated[tuple[TextContent, ...], _SYSTEM_PARTS, Tag("several")],
            Discriminator(one_or_several),
        ]
        | None
    ) = Field(default=None, examples=["Be brief."])


class CountForm(_Said):
    """The body of `POST /v1/messages/count_tokens`."""

    model_config = ConfigDict(json_schema_extra=COUNT_TOKENS.describe_ignored)
    field_table = COUNT_TOKENS

    model: Name | None = Field(default=None, examples=[None])


class MessageForm(SamplingFields, _Said):
    """The body of `POST /v1/messages`."""

    model_config = ConfigDict(json_schema_extra=MESSAGES.describe_ignored)
    field_table = MESSAGES

    max_tokens: Count = Field(examples=[16])
    stop_sequences: Stops | None = None
    stream: Flag | None = None


def read_message(form: MessageForm, policy_header: str | None = None) -> Question:
    """Return the question that a form asks.

    Args:
        form: the body.
        policy_header: the header `X-Skip-Policy`.

    Raises:
        InvalidRequestError: the last turn is the assistant's.
    """
    return _with_said(
        replace(
            begin_question(form, policy_header, "msg_"),
            generation=replace(
                sampling(form),
                max_tokens=form.max_tokens,
                stops=form.stop_sequences or (),
            ),
        ),
        form,
    )


def read_count(form: CountForm) -> Question:
    """Return the question whose prompt is to be counted.

    Raises:
        InvalidRequestError: the last turn is the assistant's.
    """
    return _with_said(Question(id="", model=form.model), form)


def _with_said(question: Question, form: _Said) -> Question:
    if form.messages[-1].role is MessageRole.ASSISTANT:
        # The answer would have to go on from there, and would be another one if it did not.
        raise InvalidRequestError(
            "the last message is the assistant's: to go on from there is not supported yet; end "
            "with the user's",
            param="messages",
        )
    return with_turns(question, (*_system(form), *_turns(form.messages)))


def _system(form: _Said) -> Iterator[Turn]:
    texts = (form.system,) if isinstance(form.system, str) else form.system or ()
    if texts:
        parts = (text if isinstance(text, str) else text.text for text in texts)
        yield Turn("system", tuple(parts))


def _turns(messages: Sequence[MessageTurn]) -> Iterator[Turn]:
    """Yield the turns; neighbours of one role are one."""
    numbered = enumerate(messages)
    for role, turns in groupby(numbered, key=lambda it: it[1].role):
        yield Turn(role.value, tuple(part for it in turns for part in _parts(*it)))


def _parts(index: int, turn: MessageTurn) -> Iterator[str | ImageUri]:
    if isinstance(turn.content, str):
        yield turn.content
        return
    for number, block in enumerate(turn.content):
        if isinstance(block, TextContent):
            yield block.text
        else:
            yield ImageUri(block.source.uri, f"messages[{index}].content[{number}].source")
