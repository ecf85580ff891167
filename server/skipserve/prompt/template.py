"""The checkpoint's chat template: messages to one text. Knows no tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from skipserve.errors import InvalidRequestError
from skipserve.model.config import read_json

# What LLaVA-1.5 was trained with. Source: the model card of llava-hf/llava-1.5-7b-hf.
LLAVA_TEMPLATE = (
    "{% for message in messages %}"
    "{{ message['role'] | upper }}: "
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}"
    "{{ part['text'] + ' ' }}{% endfor %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


@dataclass(frozen=True)
class TextPart:
    """A piece of text in a message."""

    text: str


@dataclass(frozen=True)
class ImagePart:
    """The place of an image in a message; the images themselves travel apart, in order."""


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: str
    parts: tuple[TextPart | ImagePart, ...]


class _GenerationTag(Extension):
    """Takes `{% generation %}`, which marks answers for training, as nothing."""

    tags = {"generation"}  # noqa: RUF012 (declared by Jinja)

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        """Return the body of the tag."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """A chat template in a sandbox, rendered as transformers renders it.

    Args:
        source: the Jinja template.
        variables: what it may use besides the messages: `bos_token`, `eos_token`, ...
    """

    def __init__(self, source: str, variables: dict[str, str]) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_GenerationTag, "jinja2.ext.loopcontrols"],
        )
        environment.globals["raise_exception"] = _refuse
        self._template = environment.from_string(source)
        self._variables = variables

    @classmethod
    def from_folder(cls, folder: Path, variables: dict[str, str]) -> "ChatTemplate":
        """Read the template of a checkpoint; LLaVA-1.5's own where it has none."""
        return cls(_find_source(folder) or LLAVA_TEMPLATE, variables)

    def render(self, messages: Sequence[Message]) -> str:
        """Return the prompt's text, up to where the answer begins.

        Raises:
            InvalidRequestError: the template does not take these messages.
        """
        form = [
            {"role": message.role, "content": [_part_form(part) for part in message.parts]}
            for message in messages
        ]
        try:
            return self._template.render(
                messages=form, add_generation_prompt=True, **self._variables
            )
        except TemplateError as error:
            raise InvalidRequestError(
                f"the model's chat template refuses these messages: {_first_line(error)}",
                param="messages",
            ) from error


def _part_form(part: TextPart | ImagePart) -> dict[str, str]:
    if isinstance(part, TextPart):
        return {"type": "text", "text": part.text}
    return {"type": "image"}


def _refuse(message: str) -> NoReturn:
    raise TemplateError(message)


def _first_line(error: TemplateError) -> str:
    return (error.message or "no reason given").splitlines()[0][:200]


def _find_source(folder: Path) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    for name in ("chat_template.json", "processor_config.json", "tokenizer_config.json"):
        source = read_json(folder / name).get("chat_template")
        if isinstance(source, str):
            return source
    return None
