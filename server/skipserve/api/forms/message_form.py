"""The form of `POST /v1/messages`, which is Anthropic's, to a question."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from enum import StrEnum
from itertools import groupby
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Discriminator, Field, Tag

from skipserve.api.forms.shared import begin_question, sampling
from skipserve.api.forms.structures import chosen, of_schema
from skipserve.api.forms.tables import COUNT_TOKENS, MESSAGES
from skipserve.api.wire import MAX_TOOLS, BodyForm, Count, Flag, Name, SamplingFields, Stops
from skipserve.asking.messages import (
    MAX_CALL_ID,
    MAX_MESSAGES,
    MAX_PARTS,
    Form,
    FunctionName,
    Text,
    TextContent,
    TextOrParts,
    by_type,
    one_or_several,
)
from skipserve.asking.question import ImageUri, Question
from skipserve.asking.tools import Function, Tools, json_text
from skipserve.asking.turns import Turn, with_turns
from skipserve.errors import InvalidRequestError
from skipserve.grammar.structure import Structure
from skipserve.prompt.template import Call
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


class ToolUse(Form):
    """A call that the assistant has made."""

    type: Literal["tool_use"]
    id: Annotated[str, Field(max_length=MAX_CALL_ID)]
    name: FunctionName
    input: dict[str, Any]


class ToolResult(Form):
    """What came of a call."""

    type: Literal["tool_result"]
    tool_use_id: Annotated[str, Field(max_length=MAX_CALL_ID)]
    content: TextOrParts[TextContent] | None = None
    is_error: Flag | None = None


Block = Annotated[
    Annotated[TextContent, Tag("a text")]
    | Annotated[ImageBlock, Tag("an image")]
    | Annotated[ToolUse, Tag("a call")]
    | Annotated[ToolResult, Tag("a result")],
    Discriminator(
        by_type(text="a text", image="an image", tool_use="a call", tool_result="a result"),
        custom_error_type="block_type",
        custom_error_message=(
            'a block is {"type": "text", "text": ...}, {"type": "image", "source": ...}, a '
            "tool_use or a tool_result; documents and thinking are not supported yet"
        ),
    ),
]
_SYSTEM_PARTS = Field(max_length=MAX_PARTS, fail_fast=True)
_MESSAGES = Field(max_length=MAX_MESSAGES, fail_fast=True, json_schema_extra=MIN_ITEMS)


class MessageTurn(Form):
    """One turn of a conversation."""

    role: MessageRole
    content: TextOrParts[Block]


class MessageTool(Form):
    """A function that the answer may call."""

    type: Literal["custom"] | None = None
    name: FunctionName
    description: Text | None = None
    input_schema: dict[str, Any] = Field(
        description="The JSON schema of its input.", examples=[{"type": "object"}]
    )


class MessageChoice(Form):
    """Whether the answer must call a function, and which."""

    type: Literal["none", "auto", "any", "tool"]
    name: FunctionName | None = None
    disable_parallel_tool_use: Flag | None = None


class MessageFormat(Form):
    """JSON that a schema describes."""

    type: Literal["json_schema"]
    described: dict[str, Any] = Field(alias="schema", examples=[{"type": "object"}])


class OutputConfig(Form):
    """What the answer is held to."""

    format: MessageFormat | None = None


class _Said(BodyForm):
    tools: (
        Annotated[tuple[MessageTool, ...], Field(max_length=MAX_TOOLS, fail_fast=True)] | None
    ) = None
    tool_choice: MessageChoice | None = None
    output_config: OutputConfig | None = None
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
        InvalidRequestError: the last turn is the assistant's, or the form contradicts itself.
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
    question = replace(question, structure=_structure(form), tools=_tools(form))
    return with_turns(question, (*_system(form), *_turns(form.messages)))


def _structure(form: _Said) -> Structure | None:
    held_to = form.output_config and form.output_config.format
    return of_schema(held_to.described, "output_config") if held_to else None


def _tools(form: _Said) -> Tools | None:
    functions = tuple(
        Function(it.name, it.description or "", it.input_schema, f"tools[{index}].input_schema")
        for index, it in enumerate(form.tools or ())
    )
    choice = form.tool_choice
    if choice is None:
        return chosen(functions, None, None)
    if (choice.name is None) == (choice.type == "tool"):
        raise InvalidRequestError(
            "a tool_choice of the type tool has a name, and others have none", param="tool_choice"
        )
    kind = "required" if choice.type in {"any", "tool"} else choice.type
    return chosen(functions, kind, not choice.disable_parallel_tool_use, choice.name)


def _system(form: _Said) -> Iterator[Turn]:
    texts = (form.system,) if isinstance(form.system, str) else form.system or ()
    if texts:
        parts = (text if isinstance(text, str) else text.text for text in texts)
        yield Turn("system", tuple(parts))


def _turns(messages: Sequence[MessageTurn]) -> Iterator[Turn]:
    """Yield the turns; neighbours of one role are one."""
    numbered = enumerate(messages)
    for role, group in groupby(numbered, key=lambda it: it[1].role):
        turns = tuple(group)
        blocks = [
            block for _, it in turns if not isinstance(it.content, str) for block in it.content
        ]
        yield from _results(blocks)
        parts = tuple(part for it in turns for part in _parts(*it))
        calls = tuple(_call(block) for block in blocks if isinstance(block, ToolUse))
        if calls and role is not MessageRole.ASSISTANT:
            raise InvalidRequestError("a tool_use is the assistant's", param="messages")
        if parts or calls:
            yield Turn(role.value, parts, calls)


def _results(blocks: Sequence[Block]) -> Iterator[Turn]:
    """Yield the results of calls, which come before what else the user says."""
    for block in blocks:
        if isinstance(block, ToolResult):
            said = block.content or ""
            texts = (said,) if isinstance(said, str) else tuple(it.text for it in said)
            parts = ("Error: ", *texts) if block.is_error else texts
            yield Turn("tool", parts, call_id=block.tool_use_id)


def _call(block: ToolUse) -> Call:
    return Call(block.id, block.name, json_text(block.input, "messages"))


def _parts(index: int, turn: MessageTurn) -> Iterator[str | ImageUri]:
    if isinstance(turn.content, str):
        yield turn.content
        return
    for number, block in enumerate(turn.content):
        if isinstance(block, TextContent):
            yield block.text
        elif isinstance(block, ImageBlock):
            yield ImageUri(block.source.uri, f"messages[{index}].content[{number}].source")
