"""Functions that an answer may call, and how the model writes and the server reads the calls."""

import json
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from skipserve.errors import InvalidRequestError
from skipserve.grammar.structure import CallForm, Calls, FunctionSchema, Structure

_HEAD = re.compile(r'\{"name": "([^"]*)", "arguments": ')
_OPEN_TAG = "<tool_call>\n"
_BRACKETS = {"{": 1, "[": 1, "}": -1, "]": -1}


@dataclass(frozen=True)
class Function:
    """A function that an answer may call.

    Attributes:
        name: its name.
        description: what it does, for the model.
        parameters: the schema of its arguments, which are an object.
        param: the field of the request that holds that schema, for messages.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    param: str

    @property
    def shown(self) -> dict[str, Any]:
        """What the model is shown of it, in OpenAI's form."""
        return {
            "type": "function",
            "function": {
                "name": self.name,
                "description": self.description,
                "parameters": dict(self.parameters),
            },
        }


@dataclass(frozen=True)
class Tools:
    """The functions of a question.

    Attributes:
        functions: all of them.
        must_call: whether the answer must be calls; else it may be text.
        only: the one that alone may be called, once; None for any.
        is_parallel: whether there may be several calls.
        param: the field that says how they are chosen, for messages.
    """

    functions: tuple[Function, ...]
    must_call: bool = False
    only: str | None = None
    is_parallel: bool = True
    param: str = "tool_choice"

    @property
    def shown(self) -> tuple[dict[str, Any], ...]:
        """What the model is shown of them."""
        return tuple(function.shown for function in self.functions)

    def structure(self, form: CallForm) -> Structure:
        """Return what holds the answer to calls of these functions.

        Raises:
            InvalidRequestError: the one that must be called is none of them, two have one name, or
                a call may be made and calls in this form are not told from text.
        """
        names = [function.name for function in self.functions]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise InvalidRequestError(f"there are two functions {twice!r}", "tools")
        if self.only is not None and self.only not in names:
            raise InvalidRequestError(
                f"{self.param} names the function {self.only!r}, which is not among the tools",
                self.param,
            )
        if not self.must_call and form is CallForm.LIST:
            raise InvalidRequestError(
                f"{self.param} is auto, or left out, and the model's chat template knows no tools: "
                "have a call required, name a function, or send none",
                self.param,
            )
        callable_ = (it for it in self.functions if self.only in (None, it.name))
        calls = Calls(
            tuple(FunctionSchema(it.name, _text_of(it), it.param) for it in callable_),
            form,
            is_forced=self.must_call,
            is_parallel=self.is_parallel and self.only is None,
        )
        return Structure(calls, "tools")


def _text_of(function: Function) -> str:
    """Return the text of the schema of a function's arguments, an object whatever it says.

    Raises:
        InvalidRequestError: it says that they are something else, or is nested too deep.
    """
    kind = function.parameters.get("type", "object")
    if kind != "object":
        raise InvalidRequestError(
            f"{function.param}.type must be 'object': arguments have names", function.param
        )
    return json_text({**function.parameters, "type": "object"}, function.param)


def json_text(value: Any, param: str) -> str:
    """Return JSON as text.

    Raises:
        InvalidRequestError: it is nested too deep.
    """
    try:
        return json.dumps(value, ensure_ascii=False)
    except RecursionError as error:
        raise InvalidRequestError("the schema is nested too deep", param) from error


@dataclass(frozen=True)
class CallPiece:
    """What is known next of a call.

    Attributes:
        index: which of the answer's calls it is.
        id: made by the server.
        name: the function's.
        arguments: goes on where the last piece of this call ended.
        is_first: whether it begins the call.
    """

    index: int
    id: str
    name: str
    arguments: str
    is_first: bool = False


def joined(pieces: Iterable[CallPiece]) -> tuple[CallPiece, ...]:
    """Return calls whole, of their pieces."""
    calls: dict[int, CallPiece] = {}
    for piece in pieces:
        begun = calls.setdefault(piece.index, replace(piece, arguments=""))
        calls[piece.index] = replace(begun, arguments=begun.arguments + piece.arguments)
    return tuple(calls.values())


class _State(Enum):
    TEXT = "text"
    BETWEEN = "between"
    ARGUMENTS = "arguments"


class CallReader:
    """Tells calls from text while an answer comes, which its grammar has held to a form.

    Args:
        form: how calls are written.
    """

    def __init__(self, form: CallForm) -> None:
        self._state = _State.TEXT if form is CallForm.TAGGED else _State.BETWEEN
        self._held = ""
        self._call = CallPiece(-1, "", "", "")
        self._depth = 0
        self._is_in_string = self._is_escaped = False

    @property
    def has_whole_calls(self) -> bool:
        """Whether there were calls, and the last one is whole."""
        return self._call.index >= 0 and self._state is _State.BETWEEN

    def push(self, text: str) -> tuple[str, tuple[CallPiece, ...]]:
        """Take what comes next; return what of it is text, and the pieces of calls."""
        self._held += text
        shown, pieces = "", []
        if self._state is _State.TEXT:
            shown = self._take_text()
        while self._state is not _State.TEXT and (piece := self._take_call()) is not None:
            pieces.append(piece)
        return shown, tuple(pieces)

    def finish(self) -> str:
        """Return the text that was held back because it might have begun a call."""
        held, self._held = self._held, ""
        return held if self._state is _State.TEXT else ""

    def _take_text(self) -> str:
        shown, mark, behind = self._held.partition(_OPEN_TAG)
        if mark:
            self._state, self._held = _State.BETWEEN, behind
            return shown
        length = next(
            it for it in range(len(_OPEN_TAG), -1, -1) if self._held.endswith(_OPEN_TAG[:it])
        )
        shown = self._held[: len(self._held) - length]
        self._held = self._held[len(shown) :]
        return shown

    def _take_call(self) -> CallPiece | None:
        if self._state is _State.ARGUMENTS:
            return self._take_arguments()
        found = _HEAD.search(self._held)
        if found is None:
            return None
        self._held = self._held[found.end() :]
        self._state = _State.ARGUMENTS
        index = self._call.index + 1
        self._call = CallPiece(index, f"call_{secrets.token_hex(12)}", found[1], "")
        return replace(self._call, is_first=True)

    def _take_arguments(self) -> CallPiece | None:
        length = next(self._ends(), len(self._held))
        arguments, self._held = self._held[:length], self._held[length:]
        return replace(self._call, arguments=arguments) if arguments else None

    def _ends(self) -> Iterator[int]:
        """Yield where the arguments end, if they do in what is held."""
        for place, character in enumerate(self._held):
            if self._is_in_string:
                self._read_in_string(character)
            elif character == '"':
                self._is_in_string = True
            else:
                self._depth += _BRACKETS.get(character, 0)
                if self._depth == 0:
                    self._state = _State.BETWEEN
                    yield place + 1

    def _read_in_string(self, character: str) -> None:
        if self._is_escaped:
            self._is_escaped = False
        elif character == "\\":
            self._is_escaped = True
        elif character == '"':
            self._is_in_string = False
