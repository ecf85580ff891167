"""Tests of the limits on what an answer is held to."""

import pytest

from skipserve.errors import InvalidRequestError
from skipserve.grammar.structure import (
    MAX_BYTES,
    MAX_CHOICES,
    MAX_DEPTH,
    MAX_FUNCTIONS,
    CallForm,
    Calls,
    Choice,
    ContextFree,
    FunctionSchema,
    Json,
    Regex,
    Shape,
    Structure,
)

pytestmark = pytest.mark.fast


def calls(*schemas: str) -> Calls:
    functions = tuple(FunctionSchema("f", it, f"tools[{at}]") for at, it in enumerate(schemas))
    return Calls(functions, CallForm.LIST, is_forced=True, is_parallel=True)


def nested(depth: int) -> str:
    return "[" * depth + '"\\"[[["' + "]" * depth


@pytest.mark.parametrize(
    "shape",
    [
        Json(nested(MAX_DEPTH)),
        Regex("[" * 1000),
        Choice(("a",) * MAX_CHOICES),
        ContextFree("{" * 1000),
        calls(*["{}"] * MAX_FUNCTIONS),
    ],
)
def test_what_is_within_limits(shape: Shape) -> None:
    Structure(shape, "field").check()


@pytest.mark.parametrize(
    ("shape", "message", "param"),
    [
        (Json(nested(MAX_DEPTH + 1)), "nested 121 deep", "field"),
        (calls("{}", nested(MAX_DEPTH + 1)), "nested 121 deep", "tools[1]"),
        (Json('"' + "x" * MAX_BYTES + '"'), "bytes", "field"),
        (Regex("\u20ac" * (MAX_BYTES // 2)), "bytes", "field"),
        (ContextFree("x" * (MAX_BYTES + 1)), "bytes", "field"),
        (Choice(()), "nothing to choose from", "field"),
        (Choice(("a",) * (MAX_CHOICES + 1)), "1025 choices", "field"),
        (Choice(("a" * 1000,) * 100), "bytes", "field"),
        (calls(*["{}"] * (MAX_FUNCTIONS + 1)), "129 functions", "field"),
    ],
)
def test_what_is_over_a_limit(shape: Shape, message: str, param: str) -> None:
    with pytest.raises(InvalidRequestError, match=message) as caught:
        Structure(shape, "field").check()
    assert caught.value.param == param
