"""A shape as a grammar of llguidance's. Source of its syntax: docs/syntax.md of llguidance 1.9."""

import json
import re
from collections.abc import Iterator
from typing import Any

from llguidance import LLMatcher, LLParserLimits, grammar_from

from skipserve.grammar.fault import GrammarFaultError, in_words
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

# Free white space would let a model go on with it for ever.
_JSON_FORM = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
    "whitespace_pattern": None,
    "lenient": False,
    "coerce_one_of": False,
}
# Each bounds what a step may cost, and with the number of states what a matcher may hold: however
# ambiguous a grammar is, a step of it is over in some milliseconds, or it fails.
LIMITS = LLParserLimits(
    max_items_in_row=500,
    step_max_items=5_000,
    step_lexer_fuel=100_000,
    initial_lexer_fuel=1_000_000,
    max_lexer_states=50_000,
    max_grammar_size=100_000,
    verbose_errors=False,
)

OPEN_TAG, CLOSE_TAG = "<tool_call>\n", "\n</tool_call>"
CALL_HEAD, CALL_MIDDLE, CALL_TAIL = '{"name": "', '", "arguments": ', "}"

# A lexeme of so many repetitions is built at once, 0.3 us each: no limit of llguidance's sees it.
_MAX_REPETITIONS = 10_000
_REPETITIONS = re.compile(r"\{(\d+)?,?(\d+)?\}")

_FREE_TEXT = r"TEXT: /(?s:.*)/"


def written(shape: Shape) -> str:
    """Return the grammar of a shape, which may turn out not to compile.

    Raises:
        GrammarFaultError: there can be none.
    """
    match shape:
        case Json(schema):
            return _of_schema(schema)
        case Regex(pattern):
            _check_repetitions(pattern)
            return LLMatcher.grammar_from_regex(_without_anchors(pattern))
        case Choice(texts):
            # As one lexeme: a row of the parser has not so many items.
            return LLMatcher.grammar_from_lark(
                "start: ONE\nONE: " + " | ".join(map(_quoted, texts))
            )
        case ContextFree(text):
            return _of_grammar(text)
        case Calls():
            return LLMatcher.grammar_from_lark("\n".join(_of_calls(shape)))


def _of_schema(schema: str) -> str:
    return LLMatcher.grammar_from_json_schema(_with_form(schema))


def _of_grammar(text: str) -> str:
    _check_repetitions(text)
    try:
        return grammar_from("grammar", text)
    except ValueError as error:
        raise GrammarFaultError(_first_line(error)) from error


def _of_calls(calls: Calls) -> Iterator[str]:
    """Yield the lines of a Lark grammar.

    Each function's schema is tried alone first, so that a fault has its place.
    """
    for function in calls.functions:
        _try_function(function)
    one = '"<tool_call>\\n" call "\\n</tool_call>"' if calls.form is CallForm.TAGGED else "call"
    several = {CallForm.TAGGED: '("\\n" one)*', CallForm.LIST: '(", " one)*'}[calls.form]
    more = f" {several}" if calls.is_parallel else ""
    if calls.form is CallForm.LIST:
        yield f'start: "[" one{more} "]"'
    elif calls.is_forced:
        yield f"start: one{more}"
    else:
        # The text before the first call ends where its mark does: a lazy lexeme takes no more.
        yield f'start: TEXT | opened call "\\n</tool_call>"{more}'
        yield 'opened[lazy]: TEXT "<tool_call>\\n"'
        yield _FREE_TEXT
    yield f"one: {one}"
    yield "call: " + " | ".join(f"call_{index}" for index in range(len(calls.functions)))
    for index, function in enumerate(calls.functions):
        head = _quoted(CALL_HEAD + function.name + CALL_MIDDLE)
        yield f"call_{index}: {head} %json {_with_form(function.parameters)} {_quoted(CALL_TAIL)}"


def _try_function(function: FunctionSchema) -> None:
    schema = _of_schema(function.parameters)
    is_fault, faults = LLMatcher.validate_grammar_with_warnings(schema, None, limits=LIMITS)
    if is_fault:
        raise GrammarFaultError(in_words(*faults), function.param)


def _with_form(schema: str) -> str:
    """Return a schema that says itself how its JSON is spelt, whatever it said of that."""
    try:
        described = json.loads(schema)
    except ValueError as error:
        raise GrammarFaultError(f"the schema is no JSON: {_first_line(error)}") from error
    if not isinstance(described, dict):
        raise GrammarFaultError("a schema is an object")
    for pattern in _patterns(described):
        _check_repetitions(pattern)
    return json.dumps(described | {"x-guidance": _JSON_FORM})


def _patterns(schema: Any) -> Iterator[str]:
    """Yield the expressions in a schema."""
    if isinstance(schema, dict):
        if isinstance(pattern := schema.get("pattern"), str):
            yield pattern
        if isinstance(patterns := schema.get("patternProperties"), dict):
            yield from patterns
    inner = schema.values() if isinstance(schema, dict) else schema
    if isinstance(schema, dict | list):
        for value in inner:
            yield from _patterns(value)


def _check_repetitions(pattern: str) -> None:
    for count in (count for found in _REPETITIONS.findall(pattern) for count in found if count):
        # Python reads no number of thousands of digits.
        if len(count) > 9 or int(count) > _MAX_REPETITIONS:
            raise GrammarFaultError(
                f"it repeats something {count[:9]} times; at most {_MAX_REPETITIONS} are taken"
            )


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _without_anchors(pattern: str) -> str:
    """Return an expression without the anchors at its ends: it matches whole texts as it is."""
    pattern = pattern.removeprefix("^")
    return re.sub(r"(?<!\\)((?:\\\\)*)\$\Z", r"\1", pattern)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:300]
