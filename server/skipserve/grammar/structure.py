"""The shapes that an answer can be held to, as whoever asks says them. Compiles nothing."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate

import msgspec

from skipserve.errors import InvalidRequestError

# Source: the limits of vLLM's and of OpenAI's schemas are of this size.
MAX_BYTES = 64 * 1024
# Brackets of a JSON text: a schema has two a level.
MAX_DEPTH = 120
MAX_CHOICES = 1024
MAX_FUNCTIONS = 128

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"?')
_STEPS = {"{": 1, "[": 1, "}": -1, "]": -1}


class CallForm(StrEnum):
    """How a model writes calls of functions.

    LIST is a JSON list, `[{"name": "f", "arguments": {...}}, ...]`, and all of the answer. TAGGED
    is Hermes' form, which Qwen2's templates have too: text, then for each call a line
    `<tool_call>`, `{"name": "f", "arguments": {...}}`, and a line `</tool_call>`.
    """

    LIST = "list"
    TAGGED = "tagged"


class Json(msgspec.Struct, frozen=True, tag="json"):
    """JSON that a schema describes; `schema` is its text."""

    schema: str


class Regex(msgspec.Struct, frozen=True, tag="regex"):
    """A text that an expression matches from its beginning to its end, in Rust's syntax."""

    pattern: str


class Choice(msgspec.Struct, frozen=True, tag="choice"):
    """One of some texts."""

    texts: tuple[str, ...]


class ContextFree(msgspec.Struct, frozen=True, tag="grammar"):
    """A text of a context-free grammar, in the form of GBNF or of Lark."""

    text: str


class FunctionSchema(msgspec.Struct, frozen=True):
    """A function that may be called.

    Attributes:
        name: of letters, digits and `_.-` alone.
        parameters: the text of the schema of its arguments.
        param: the field of the request that holds that, for messages.
    """

    name: str
    parameters: str
    param: str


class Calls(msgspec.Struct, frozen=True, tag="calls"):
    """Calls of functions.

    Attributes:
        functions: those that may be called.
        form: how calls are written.
        is_forced: whether there must be one; else the answer may be free text.
        is_parallel: whether there may be several.
    """

    functions: tuple[FunctionSchema, ...]
    form: CallForm
    is_forced: bool
    is_parallel: bool


Shape = Json | Regex | Choice | ContextFree | Calls


@dataclass(frozen=True)
class Structure:
    """What an answer is held to.

    Attributes:
        shape: what it must be like.
        param: the field of the request that says so, for messages.
    """

    shape: Shape
    param: str

    def check(self) -> None:
        """Refuse what is too large or too deep, before any work that grows with it.

        Raises:
            InvalidRequestError: it is; or nothing is of this shape, for there is nothing to choose.
        """
        match self.shape:
            case Choice(()):
                raise InvalidRequestError("there is nothing to choose from", self.param)
            case Choice(texts) if len(texts) > MAX_CHOICES:
                raise InvalidRequestError(
                    f"there are {len(texts)} choices; at most {MAX_CHOICES} are taken", self.param
                )
            case Calls(functions) if len(functions) > MAX_FUNCTIONS:
                raise InvalidRequestError(
                    f"there are {len(functions)} functions; at most {MAX_FUNCTIONS} are taken",
                    self.param,
                )
        size = sum(len(text.encode(errors="replace")) for text in _texts(self.shape))
        if size > MAX_BYTES:
            raise InvalidRequestError(
                f"what the answer is held to has {size} bytes; at most {MAX_BYTES} are taken",
                self.param,
            )
        for text, param in _schemas(self.shape, self.param):
            if (depth := _depth(text)) > MAX_DEPTH:
                raise InvalidRequestError(
                    f"the schema is nested {depth} deep; at most {MAX_DEPTH} is taken", param
                )


def _texts(shape: Shape) -> Iterator[str]:
    match shape:
        case Json(text) | Regex(text) | ContextFree(text):
            yield text
        case Choice(texts):
            yield from texts
        case Calls(functions):
            yield from (text for it in functions for text in (it.name, it.parameters))


def _schemas(shape: Shape, param: str) -> Iterator[tuple[str, str]]:
    """Yield the JSON schemas in a shape, each with the field that holds it."""
    match shape:
        case Json(schema):
            yield schema, param
        case Calls(functions):
            yield from ((it.parameters, it.param) for it in functions)


def _depth(text: str) -> int:
    """Return how deep the brackets of a JSON text are nested."""
    steps = (_STEPS.get(character, 0) for character in _STRING.sub("", text))
    return max(accumulate(steps), default=0)
