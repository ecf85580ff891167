"""The form of `POST /v1/responses`, OpenAI's newer one, to a question."""

from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag

from skipserve.api.forms.shared import begin_question, sampling
from skipserve.api.forms.tables import RESPONSE_TEXT, RESPONSES
from skipserve.api.wire import MAX_TOP_LOGPROBS, Count, Flag, SamplingFields
from skipserve.asking.messages import (
    MAX_MESSAGES,
    Form,
    Role,
    Text,
    TextOrParts,
    by_type,
    one_or_several,
)
from skipserve.asking.question import ImageUri, Question
from skipserve.asking.turns import Turn, with_turns
from skipserve_policies.schema import MIN_ITEMS, NotEmpty


class TextPart(Form):
    """A piece of text: what was asked, or answered before."""

    type: Literal["input_text", "output_text"]
    text: Text


class ImagePart(Form):
    """An image in a message."""

    type: Literal["input_image"]
    image_url: str = Field(
        description="A data URI: data:image/png;base64,... or, where fetching is switched on, an "
        "http or https URL."
    )


Part = Annotated[
    Annotated[TextPart, Tag("a text")] | Annotated[ImagePart, Tag("an image")],
    Discriminator(
        by_type(input_text="a text", output_text="a text", input_image="an image"),
        custom_error_type="part_type",
        custom_error_message=(
            'a part is {"type": "input_text", "text": ...}, {"type": "input_image", '
            '"image_url": ...}, or {"type": "output_text", "text": ...} of an earlier answer'
        ),
    ),
]
_ITEMS = Field(max_length=MAX_MESSAGES, fail_fast=True, json_schema_extra=MIN_ITEMS)


class MessageItem(Form):
    """One turn of a conversation."""

    type: Literal["message"] = "message"
    role: Role
    content: TextOrParts[Part]


def _item_kind(value: object) -> str | None:
    kind = value.get("type", "message") if isinstance(value, dict) else "message"
    is_item = isinstance(value, dict | MessageItem)
    return "a message" if is_item and kind == "message" else None


Item = Annotated[
    Annotated[MessageItem, Tag("a message")],
    Discriminator(
        _item_kind,
        custom_error_type="item_type",
        custom_error_message=(
            'an item is {"role": ..., "content": ...}; tools and reasoning are not supported yet, '
            "and nothing is stored that could be referred to"
        ),
    ),
]


class Includable(StrEnum):
    """What a reply may tell besides; there is no reasoning to be told."""

    LOGPROBS = "message.output_text.logprobs"
    REASONING = "reasoning.encrypted_content"


class ResponseText(Form):
    """What the answer's text must be like: free text is all that works now."""

    model_config = ConfigDict(json_schema_extra=RESPONSE_TEXT.describe_ignored)


class ResponseForm(SamplingFields):
    """The body of `POST /v1/responses`."""

    model_config = ConfigDict(json_schema_extra=RESPONSES.describe_ignored)
    field_table = RESPONSES

    input: Annotated[
        Annotated[Text, Tag("one")] | Annotated[tuple[Item, ...], _ITEMS, NotEmpty, Tag("several")],
        Discriminator(one_or_several),
    ] = Field(
        description="A text of the user's, or messages: earlier output among them.",
        examples=["How many red squares are there?"],
    )
    instructions: Text | None = Field(default=None, examples=["Be brief."])
    max_output_tokens: Count | None = Field(default=None, examples=[16])
    stream: Flag | None = None
    include: Annotated[tuple[Includable, ...], Field(max_length=len(Includable))] | None = None
    top_logprobs: Annotated[int, Field(strict=True, ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    text: ResponseText | None = None

    @property
    def num_top_logprobs(self) -> int | None:
        """How many alternatives to report with each token; None for no log-probabilities."""
        is_wanted = Includable.LOGPROBS in (self.include or ()) or self.top_logprobs
        return (self.top_logprobs or 0) if is_wanted else None


def read_response(form: ResponseForm, policy_header: str | None = None) -> Question:
    """Return the question that a form asks.

    Args:
        form: the body.
        policy_header: the header `X-Skip-Policy`.
    """
    question = replace(
        begin_question(form, policy_header, "resp_"),
        prompt_param="input",
        generation=replace(
            sampling(form),
            max_tokens=form.max_output_tokens,
            num_top_logprobs=form.num_top_logprobs,
        ),
    )
    return with_turns(question, _turns(form))


def _turns(form: ResponseForm) -> Iterator[Turn]:
    if form.instructions:
        yield Turn(Role.SYSTEM.value, (form.instructions,))
    if isinstance(form.input, str):
        yield Turn(Role.USER.value, (form.input,))
        return
    for index, item in enumerate(form.input):
        role = Role.SYSTEM if item.role is Role.DEVELOPER else item.role
        yield Turn(role.value, tuple(_parts(index, item)))


def _parts(index: int, item: MessageItem) -> Iterator[str | ImageUri]:
    if isinstance(item.content, str):
        yield item.content
        return
    for number, part in enumerate(item.content):
        if isinstance(part, TextPart):
            yield part.text
        else:
            yield ImageUri(part.image_url, f"input[{index}].content[{number}].image_url")
