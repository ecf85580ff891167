"""Tests of shapes as grammars: what is drawn within one is of the shape."""

import json
import re

import pytest
from grammar_parts import drawn, matcher_of, vocabulary_of
from tokenizer_forms import EOS, all_forms

from skipserve.grammar.fault import GrammarFaultError
from skipserve.grammar.structure import (
    CallForm,
    Calls,
    Choice,
    ContextFree,
    FunctionSchema,
    Json,
    Regex,
    Shape,
)
from skipserve.grammar.writing import written

pytestmark = pytest.mark.fast

SCHEMA = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["é", 'a"b', 7, None]},
        "list": {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
    },
    "required": ["kind"],
    "additionalProperties": False,
}
ONE = '{"type": "object", "properties": {"x": {"enum": [1, "}"]}}, "required": ["x"], '
ONE += '"additionalProperties": false}'
NONE = '{"type": "object", "additionalProperties": false}'
FUNCTIONS = (FunctionSchema("f", ONE, "tools[0]"), FunctionSchema("g-2", NONE, "tools[1]"))


@pytest.mark.parametrize("form", all_forms())
def test_json_of_a_schema_in_every_form_of_tokenizer(form: str) -> None:
    for seed in range(4):
        text = drawn(Json(json.dumps(SCHEMA)), seed, form)
        assert text is not None
        value = json.loads(text)
        assert value["kind"] in SCHEMA["properties"]["kind"]["enum"]  # type: ignore[index]
        # In one spelling: free white space would have no end.
        assert text == json.dumps(value, ensure_ascii=False)


@pytest.mark.parametrize(
    ("shape", "pattern"),
    [
        (Regex("[ab]{2,3}-[0-9]"), r"[ab]{2,3}-\d"),
        (Regex("^ab?$"), "ab?"),
        (Regex(r"a\$"), r"a\$"),
        (Choice(("yes", 'n"o\n', "b/\\c", "€")), 'yes|n"o\n|b/\\\\c|€'),
        (ContextFree('root ::= "a" tail\ntail ::= "b" | "c" tail'), "ac*b"),
        (ContextFree('start: "a" tail\ntail: "b" | "c" tail'), "ac*b"),
    ],
)
def test_texts(shape: Shape, pattern: str) -> None:
    for seed in range(6):
        text = drawn(shape, seed)
        assert text is not None
        assert re.fullmatch(pattern, text)


def calls_in(text: str, form: CallForm) -> list[dict[str, object]]:
    if form is CallForm.TAGGED:
        lines = text.split("\n")
        assert {lines[place] for place in range(0, len(lines), 3)} <= {"<tool_call>"}
        assert {lines[place] for place in range(2, len(lines), 3)} <= {"</tool_call>"}
        return [json.loads(lines[place]) for place in range(1, len(lines), 3)]
    calls: list[dict[str, object]] = json.loads(text)
    return calls


@pytest.mark.parametrize("is_parallel", [False, True])
@pytest.mark.parametrize("form", CallForm)
def test_calls_that_must_be_made(form: CallForm, is_parallel: bool) -> None:
    numbers = set()
    for seed in range(8):
        text = drawn(Calls(FUNCTIONS, form, is_forced=True, is_parallel=is_parallel), seed)
        assert text is not None
        calls = calls_in(text, form)
        for call in calls:
            assert call["arguments"] in ([{"x": 1}, {"x": "}"}] if call["name"] == "f" else [{}])
        numbers.add(len(calls))
    assert (max(numbers) > 1) is is_parallel
    assert min(numbers) == 1


@pytest.mark.parametrize(
    ("text", "is_taken"),
    [
        ("Hello <tool", True),
        ('So:<tool_call>\n{"name": "g-2", "arguments": {}}\n</tool_call>', True),
        ('<tool_call>\n{"name": "h", "arguments": {}}\n</tool_call>', False),
        ("<tool_call>\nHello", False),
        ('<tool_call>\n{"name": "g-2", "arguments": {}}\n</tool_call> and', False),
    ],
)
def test_calls_that_may_be_made(text: str, is_taken: bool) -> None:
    matcher = matcher_of(Calls(FUNCTIONS, CallForm.TAGGED, is_forced=False, is_parallel=True))
    tokenizer, _ = vocabulary_of()

    def take() -> None:
        matcher.advance([*tokenizer.encode(text, adds_special=False), EOS])

    if is_taken:
        take()
    else:
        with pytest.raises(GrammarFaultError):
            take()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (Json("[1]"), "a schema is an object"),
        (Json("{"), "no JSON"),
        (Json('{"type": "string", "pattern": "a{1000000}"}'), "repeats something 1000000 times"),
        (Json('{"patternProperties": {"a{20000}": {}}}'), "repeats something 20000 times"),
        (Regex("a{" + "9" * 5000 + "}"), "repeats something 999999999 times"),
        (Calls((*FUNCTIONS, FunctionSchema("h", '{"enum": []}', "third")), CallForm.LIST,
               is_forced=True, is_parallel=True), "no text satisfies it"),
    ],
)  # fmt: skip
def test_what_has_no_grammar(shape: Shape, message: str) -> None:
    with pytest.raises(GrammarFaultError, match=message) as caught:
        written(shape)
    assert caught.value.param == ("third" if isinstance(shape, Calls) else None)


def test_a_schema_does_not_choose_its_spelling() -> None:
    schema = {"const": {"a": 1}, "x-guidance": {"item_separator": "#", "key_separator": "#"}}
    assert drawn(Json(json.dumps(schema)), 0) == '{"a": 1}'
