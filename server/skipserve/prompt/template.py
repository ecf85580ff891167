"""The checkpoint's chat template: messages to one text. Knows no tokens."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from skipserve.errors import InvalidRequestError

# What LLaVA-1.5 was trained with. Source: the model card of llava-hf/llava-1.5-7b-hf.
LLAVA_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] != 'system' %}{{ message['role'] | upper }}: {% endif %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}"
    "{{ part['text'] + ' ' }}{% endfor %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)

# A template that prints a part, where it should look into it, prints this.
_PRINTED = "printed-as-it-is"
_PROBE = "probe"


@dataclass(frozen=True)
class TextPart:
    """A piece of text in a message."""

    text: str


@dataclass(frozen=True)
class ImagePart:
    """The place of an image in a message; the images themselves travel apart, in order."""


@dataclass(frozen=True)
class Call:
    """A call of a function that the assistant has made.

    Attributes:
        id: by which its result names it.
        name: the function's.
        arguments: the text of a JSON object.
    """

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: whose it is; that of a function's result is `tool`.
        parts: what is said.
        calls: what the assistant has called.
        call_id: of the call whose result this is.
    """

    role: str
    parts: tuple[TextPart | ImagePart, ...]
    calls: tuple[Call, ...] = ()
    call_id: str | None = None


class Ending(Enum):
    """Where a prompt ends: where an answer begins, behind the last message, or inside it."""

    ANSWER = "answer"
    MESSAGE = "message"
    CONTINUED = "continued"


class ContentForm(Enum):
    """What a template takes a message's `content` for: a list of parts, or one text."""

    PARTS = "parts"
    TEXT = "text"


class _GenerationTag(Extension):
    """Takes `{% generation %}`, which marks answers for training, as nothing."""

    tags = {"generation"}  # noqa: RUF012 (declared by Jinja)

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        """Return the body of the tag."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """A chat template in a sandbox, rendered as transformers renders it.

    Templates of multimodal models take a message's content as a list of parts, those of text models
    as one text. Which it is, is found out once for each role by rendering. In one text, images come
    first, a line each, as vLLM puts them.

    Attributes:
        literals: the texts that the template itself may write.
        takes_system: whether it shows what the system says.
        shows_tools: whether it shows functions, calls in Hermes' form, and their results.

    Args:
        source: the Jinja template.
        variables: what it may use besides the messages: `bos_token`, `eos_token`, ...
        image_token: what stands for an image in a text.

    Raises:
        TemplateError: the source is no template.
    """

    def __init__(
        self, source: str, variables: Mapping[str, str], image_token: str = "<image>"
    ) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_GenerationTag, "jinja2.ext.loopcontrols"],
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = _strftime_now
        self.literals = _literals(environment.parse(source))
        self._template = environment.from_string(source)
        self._variables = dict(variables)
        self._image_token = image_token
        self._forms: dict[str, ContentForm] = {}
        # Others' turns are tried with one of the user's before or behind them.
        self._forms["user"] = self._form_of("user") or ContentForm.PARTS
        for role in ("system", "assistant"):
            self._forms[role] = self._form_of(role) or self._forms["user"]
        self._forms["tool"] = ContentForm.TEXT
        self.takes_system = self._form_of("system") is not None
        self.shows_tools = self._tries_tools()

    def render(
        self,
        messages: Sequence[Message],
        ending: Ending = Ending.ANSWER,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        """Return the prompt's text, up to where the answer begins or goes on.

        Args:
            messages: what is said.
            ending: where the prompt ends.
            tools: functions that may be called, in OpenAI's form.

        Raises:
            InvalidRequestError: the template does not take these messages, or there is none to go
                on with.
        """
        try:
            forms = [self._form(message) for message in messages]
            text = self._render(forms, ending, tools)
            return _cut_behind(text, messages[-1]) if ending is Ending.CONTINUED else text
        except InvalidRequestError:
            raise
        except TemplateError as error:
            reason = f"refuses these messages: {_first_line(error)}"
        except Exception as error:  # noqa: BLE001 (a template may do anything)
            reason = f"fails on these messages: {type(error).__name__}: {_first_line(error)}"
        raise InvalidRequestError(f"the model's chat template {reason}", param="messages")

    def _render(
        self,
        messages: Sequence[Mapping[str, Any]],
        ending: Ending = Ending.ANSWER,
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> str:
        return self._template.render(
            messages=messages,
            tools=list(tools) or None,
            documents=None,
            add_generation_prompt=ending is Ending.ANSWER,
            **self._variables,
        )

    def _form(self, message: Message) -> dict[str, Any]:
        form = self._forms.get(message.role, self._forms["user"])
        shown = {"role": message.role, "content": self._content(message.parts, form)}
        if message.calls:
            shown["tool_calls"] = [_call_form(call) for call in message.calls]
        if message.call_id is not None:
            shown["tool_call_id"] = message.call_id
        return shown

    def _content(self, parts: Sequence[TextPart | ImagePart], form: ContentForm) -> Any:
        if form is ContentForm.PARTS:
            return [_part_form(part) for part in parts]
        images = [self._image_token for part in parts if isinstance(part, ImagePart)]
        return "\n".join(images + [part.text for part in parts if isinstance(part, TextPart)])

    def _tries_tools(self) -> bool:
        """Return whether a conversation with a function shows all that there is to it."""
        function = {"name": _PROBE + "-f", "description": "", "parameters": {"type": "object"}}
        said = (TextPart("?"),)
        talk = (
            Message("user", said),
            Message("assistant", (), (Call("0", _PROBE + "-called", '{"x": 1}'),)),
            Message("tool", (TextPart(_PROBE + "-result"),), call_id="0"),
        )
        try:
            text = self.render(talk, tools=[{"type": "function", "function": function}])
        except InvalidRequestError:
            return False
        shown = (f"{_PROBE}-f", f"{_PROBE}-called", f"{_PROBE}-result", "<tool_call>")
        return all(part in text for part in shown)

    def _form_of(self, role: str) -> ContentForm | None:
        """Return the first form in which a turn of a role renders whole; None if none does."""
        bare = {form: self._tried(role, form, ()) for form in ContentForm}
        whole = [form for form, text in bare.items() if text is not None]
        if role == "user" and len(whole) > 1:
            shown = self._tried(role, ContentForm.PARTS, (ImagePart(),))
            # Templates of text models may take parts, and leave those out that are images.
            return ContentForm.TEXT if shown == bare[ContentForm.PARTS] else ContentForm.PARTS
        return whole[0] if whole else None

    def _tried(self, role: str, form: ContentForm, images: tuple[ImagePart, ...]) -> str | None:
        """Return what a turn of a role renders to; None if not to what it says."""
        content = self._content((*images, TextPart(_PROBE)), form)
        if form is ContentForm.PARTS:
            content = [part | {_PRINTED: ""} for part in content]
        turn = {"role": role, "content": content}
        try:
            text = self._render(self._around(role, turn))
        except Exception:  # noqa: BLE001 (then it does not take this form)
            return None
        return text if _PROBE in text.lower() and _PRINTED not in text else None

    def _around(self, role: str, turn: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the shortest conversation with a turn of a role that templates may take."""
        if role == "user":
            return [turn]
        user = self._form(Message("user", (TextPart("?"),)))
        return [turn, user] if role == "system" else [user, turn, user]


def _cut_behind(text: str, message: Message) -> str:
    """Return a prompt up to the end of what its last message says, as transformers does.

    Raises:
        InvalidRequestError: the message is not the assistant's, says nothing, or is not shown.
    """
    said = [part.text for part in message.parts if isinstance(part, TextPart)]
    if message.role != "assistant" or not said or not said[-1].strip():
        raise InvalidRequestError(
            "continue_final_message needs a last message of the assistant's that says something",
            param="messages",
        )
    # Templates may strip what is said.
    for shown in (said[-1], said[-1].rstrip(), said[-1].strip()):
        if (at := text.rfind(shown)) >= 0:
            return text[: at + len(shown)]
    raise InvalidRequestError(
        "the model's chat template does not show the last message as it is, so that it cannot be "
        "continued",
        param="continue_final_message",
    )


def _part_form(part: TextPart | ImagePart) -> dict[str, str]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    return {"type": "image"}


def _call_form(call: Call) -> dict[str, Any]:
    try:
        arguments = json.loads(call.arguments)
    except (ValueError, RecursionError):
        arguments = call.arguments
    function = {"name": call.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function}


def _literals(tree: nodes.Template) -> tuple[str, ...]:
    texts = [found.data for found in tree.find_all(nodes.TemplateData)]
    constants = [found.value for found in tree.find_all(nodes.Const)]
    return (*texts, *(value for value in constants if isinstance(value, str)))


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Write JSON as transformers' filter does: Jinja's own would escape HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _first_line(error: Exception) -> str:
    return (str(error) or "no reason given").splitlines()[0][:200]
