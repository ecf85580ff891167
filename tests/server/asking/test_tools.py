"""Tests of functions that an answer may call, and of reading its calls while they come."""

import json
from collections.abc import Iterator

import pytest

from skipserve.asking.tools import CallPiece, CallReader, Function, Tools, joined
from skipserve.errors import InvalidRequestError
from skipserve.grammar.structure import CallForm, Calls

pytestmark = pytest.mark.fast

ARGUMENTS = ['{"a": "}{\\"]\\\\", "b": [{"c": 1}]}', "{}"]
LIST = ", ".join(f'{{"name": "f{at}", "arguments": {it}}}' for at, it in enumerate(ARGUMENTS))
TAGGED = "\n".join(
    f'<tool_call>\n{{"name": "f{at}", "arguments": {it}}}\n</tool_call>'
    for at, it in enumerate(ARGUMENTS)
)


def cut(text: str, length: int) -> Iterator[str]:
    yield from (text[at : at + length] for at in range(0, len(text), length))


def read(form: CallForm, text: str, length: int) -> tuple[str, tuple[CallPiece, ...], CallReader]:
    reader, shown = CallReader(form), ""
    pieces: list[CallPiece] = []
    for part in cut(text, length):
        more, calls = reader.push(part)
        shown += more
        pieces += calls
    assert [it.is_first for it in pieces].count(True) == len({it.index for it in pieces})
    return shown + reader.finish(), joined(pieces), reader


@pytest.mark.parametrize("length", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    ("form", "text", "shown"),
    [
        (CallForm.LIST, f"[{LIST}]", ""),
        (CallForm.TAGGED, TAGGED, ""),
        (CallForm.TAGGED, f"So <tool:\n{TAGGED}", "So <tool:\n"),
    ],
)
def test_calls_are_told_from_text(form: CallForm, text: str, shown: str, length: int) -> None:
    found, calls, reader = read(form, text, length)
    assert found == shown
    assert [call.arguments for call in calls] == ARGUMENTS
    assert [call.name for call in calls] == ["f0", "f1"]
    assert len({call.id for call in calls}) == 2
    assert reader.has_whole_calls


@pytest.mark.parametrize("length", [1, 5, 1000])
def test_text_that_calls_nothing_is_shown_whole(length: int) -> None:
    text = "Is 1 <tool_call> or </tool_call>? <tool_call"
    found, calls, reader = read(CallForm.TAGGED, text, length)
    assert (found, calls, reader.has_whole_calls) == (text, (), False)


def test_a_call_that_is_cut_off_is_shown_as_far_as_it_came() -> None:
    text = f"[{LIST}]"
    for end in range(len(text)):
        shown, calls, reader = read(CallForm.LIST, text[:end], 4)
        assert shown == ""
        assert all(
            whole.startswith(call.arguments) for whole, call in zip(ARGUMENTS, calls, strict=False)
        )
        is_whole = bool(calls) and calls[-1].arguments == ARGUMENTS[len(calls) - 1]
        assert reader.has_whole_calls is is_whole


F = Function("f", "Does f.", {"properties": {"x": {"type": "integer"}}}, "tools[0].x")
G = Function("g", "", {"type": "object"}, "tools[1].x")


def calls_of(tools: Tools, form: CallForm = CallForm.LIST) -> Calls:
    shape = tools.structure(form).shape
    assert isinstance(shape, Calls)
    return shape


def test_what_an_answer_is_held_to() -> None:
    calls = calls_of(Tools((F, G), must_call=True))
    assert [it.name for it in calls.functions] == ["f", "g"]
    assert (calls.is_forced, calls.is_parallel) == (True, True)
    assert json.loads(calls.functions[0].parameters)["type"] == "object"
    assert calls.functions[1].param == "tools[1].x"
    assert not calls_of(Tools((F, G), must_call=True, is_parallel=False)).is_parallel
    assert not calls_of(Tools((F,)), CallForm.TAGGED).is_forced
    only = calls_of(Tools((F, G), must_call=True, only="g"))
    assert ([it.name for it in only.functions], only.is_parallel) == (["g"], False)


@pytest.mark.parametrize(
    ("tools", "message", "param"),
    [
        (Tools((F, F), must_call=True), "two functions 'f'", "tools"),
        (Tools((F,), must_call=True, only="h"), "names the function 'h'", "tool_choice"),
        (Tools((F,)), "knows no tools", "tool_choice"),
        (Tools((Function("f", "", {"type": "array"}, "p"),), must_call=True), "'object'", "p"),
    ],
)
def test_what_an_answer_cannot_be_held_to(tools: Tools, message: str, param: str) -> None:
    with pytest.raises(InvalidRequestError, match=message) as caught:
        tools.structure(CallForm.LIST)
    assert caught.value.param == param
