"""The form of `POST /v1/responses`, OpenAI's newer one, to a question."""

from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag

from skipserve.api.forms.shared import begin_question, sampling
from skipserve.api.forms.structures import any_object, chosen, of_schema
from skipserve.api.forms.tables import RESPONSE_TEXT, RESPONSES
from skipserve.api.wire import (
    MAX_TOOLS,
    MAX_TOP_LOGPROBS,
    Count,
    Flag,
    Name,
    PlainFormat,
    SamplingFields,
    word_or_form,
)
from skipserve.asking.messages import (
    MAX_CALL_ID,
    MAX_MESSAGES,
    Form,
    FunctionName,
    InputAudio,
    Role,
    Text,
    TextOrParts,
    by_type,
    one_or_several,
)
from skipserve.asking.question import ImageUri, Question
from skipserve.asking.tools import Function, Tools
from skipserve.asking.turns import Turn, with_turns
from skipserve.grammar.structure import Structure
from skipserve.prompt.template import Call
from skipserve_policies.schema import MIN_ITEMS, NotEmpty
from skipserve_policies.sizes import Modality


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


class RecordingPart(Form):
    """A sound in a message, for a model that takes sounds."""

    type: Literal["input_audio"]
    input_audio: InputAudio


Part = Annotated[
    Annotated[TextPart, Tag("a text")]
    | Annotated[ImagePart, Tag("an image")]
    | Annotated[RecordingPart, Tag("a recording")],
    Discriminator(
        by_type(
            input_text="a text",
            output_text="a text",
            input_image="an image",
            input_audio="a recording",
        ),
        custom_error_type="part_type",
        custom_error_message=(
            'a part is {"type": "input_text", "text": ...}, {"type": "input_image", '
            '"image_url": ...}, {"type": "input_audio", "input_audio": {"data": ..., "format": '
            '"wav"}}, or {"type": "output_text", "text": ...} of an earlier answer'
        ),
    ),
]
_ITEMS = Field(max_length=MAX_MESSAGES, fail_fast=True, json_schema_extra=MIN_ITEMS)


class MessageItem(Form):
    """One turn of a conversation."""

    type: Literal["message"] = "message"
    role: Literal[Role.SYSTEM, Role.DEVELOPER, Role.USER, Role.ASSISTANT]
    content: TextOrParts[Part]


class CallItem(Form):
    """A call that the assistant has made; `arguments` is the text of a JSON object."""

    type: Literal["function_call"]
    call_id: Annotated[str, Field(max_length=MAX_CALL_ID)]
    name: FunctionName
    arguments: Text


class OutputItem(Form):
    """What came of a call."""

    type: Literal["function_call_output"]
    call_id: Annotated[str, Field(max_length=MAX_CALL_ID)]
    output: TextOrParts[TextPart]


_ITEM_KINDS = {
    "message": "a message",
    "function_call": "a call",
    "function_call_output": "an output",
}


def _item_kind(value: object) -> str | None:
    if isinstance(value, dict):
        return _ITEM_KINDS.get(str(value.get("type", "message")))
    return _ITEM_KINDS.get(str(getattr(value, "type", None)))


Item = Annotated[
    Annotated[MessageItem, Tag("a message")]
    | Annotated[CallItem, Tag("a call")]
    | Annotated[OutputItem, Tag("an output")],
    Discriminator(
        _item_kind,
        custom_error_type="item_type",
        custom_error_message=(
            'an item is {"role": ..., "content": ...}, a function_call or a function_call_output; '
            "reasoning is not supported yet, and nothing is stored that could be referred to"
        ),
    ),
]


class Includable(StrEnum):
    """What a reply may tell besides; there is no reasoning to be told."""

    LOGPROBS = "message.output_text.logprobs"
    REASONING = "reasoning.encrypted_content"


class SchemaFormat(Form):
    """JSON that a schema describes."""

    type: Literal["json_schema"]
    name: Name
    described: dict[str, Any] = Field(alias="schema", examples=[{"type": "object"}])


Format = Annotated[
    Annotated[PlainFormat, Tag("a kind")] | Annotated[SchemaFormat, Tag("a schema")],
    Discriminator(
        by_type(text="a kind", json_object="a kind", json_schema="a schema"),
        custom_error_type="format_type",
        custom_error_message=(
            'a format is {"type": "text"}, {"type": "json_object"} or {"type": "json_schema", '
            '"name": ..., "schema": ...}'
        ),
    ),
]


class ResponseText(Form):
    """What the answer's text must be like."""

    model_config = ConfigDict(json_schema_extra=RESPONSE_TEXT.describe_ignored)

    format: Format | None = None


class ResponseTool(Form):
    """A function that the answer may call."""

    type: Literal["function"]
    name: FunctionName
    description: Text | None = None
    parameters: dict[str, Any] | None = Field(
        default=None, description="The JSON schema of its arguments."
    )


class NamedTool(Form):
    """A choice of one function."""

    type: Literal["function"] = "function"
    name: FunctionName


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
    tools: (
        Annotated[tuple[ResponseTool, ...], Field(max_length=MAX_TOOLS, fail_fast=True)] | None
    ) = None
    tool_choice: (
        Annotated[
            Annotated[Literal["none", "auto", "required"], Tag("one")]
            | Annotated[NamedTool, Tag("several")],
            Discriminator(word_or_form),
        ]
        | None
    ) = None
    parallel_tool_calls: Flag | None = None

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
        structure=_structure(form.text),
        tools=_tools(form),
    )
    return with_turns(question, _turns(form))


def _structure(text: ResponseText | None) -> Structure | None:
    match text and text.format:
        case SchemaFormat(described=schema):
            return of_schema(schema, "text.format")
        case PlainFormat(type="json_object"):
            return any_object("text.format")
    return None


def _tools(form: ResponseForm) -> Tools | None:
    functions = tuple(
        Function(it.name, it.description or "", it.parameters or {}, f"tools[{index}].parameters")
        for index, it in enumerate(form.tools or ())
    )
    choice = form.tool_choice
    if isinstance(choice, NamedTool):
        return chosen(functions, "required", form.parallel_tool_calls, choice.name)
    return chosen(functions, choice, form.parallel_tool_calls)


def _turns(form: ResponseForm) -> Iterator[Turn]:
    if form.instructions:
        yield Turn(Role.SYSTEM.value, (form.instructions,))
    if isinstance(form.input, str):
        yield Turn(Role.USER.value, (form.input,))
        return
    yield from _with_calls(_turn(index, item) for index, item in enumerate(form.input))


def _turn(index: int, item: MessageItem | CallItem | OutputItem) -> Turn:
    match item:
        case CallItem(call_id=call_id, name=name, arguments=arguments):
            return Turn(Role.ASSISTANT.value, (), (Call(call_id, name, arguments),))
        case OutputItem(call_id=call_id, output=output):
            texts = (output,) if isinstance(output, str) else tuple(it.text for it in output)
            return Turn(Role.TOOL.value, texts, call_id=call_id)
    role = Role.SYSTEM if item.role is Role.DEVELOPER else item.role
    return Turn(role.value, tuple(_parts(index, item)))


def _with_calls(turns: Iterator[Turn]) -> Iterator[Turn]:
    """Yield turns in which calls are one with what the assistant said just before."""
    last: Turn | None = None
    for turn in turns:
        if last is not None and turn.calls and last.role == turn.role:
            last = replace(last, calls=last.calls + turn.calls)
            continue
        if last is not None:
            yield last
        last = turn
    if last is not None:
        yield last


def _parts(index: int, item: MessageItem) -> Iterator[str | ImageUri]:
    if isinstance(item.content, str):
        yield item.content
        return
    for number, part in enumerate(item.content):
        place = f"input[{index}].content[{number}]"
        if isinstance(part, TextPart):
            yield part.text
        elif isinstance(part, ImagePart):
            yield ImageUri(part.image_url, f"{place}.image_url")
        else:
            yield ImageUri(part.input_audio.uri, f"{place}.input_audio", Modality.AUDIO)
