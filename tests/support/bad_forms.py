"""Spoils a good form in every place, and holds what is told of it against pydantic's own words."""

import copy
from collections.abc import Iterator
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core.core_schema import ErrorType

from skipserve_policies.faults import faults_of

# What a field may hold by mistake.
BAD_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 7, 10**30, 1.5, float("nan"), float("inf")),
    *("", "x", "\u00e9 \n", "\ud800", "x" * 2**21, b"x", object()),
    *([], [None], ["x"] * 2000, {}, {"x": 1}, {1: 1}, {"from": 2, "to": 1}),
)
# These are ours, or hold our words.
_OWN = {"value_error", "assertion_error"}


def spoilt(form: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield copies of a form: a value in it is bad, a field is missing, a name is not known."""
    for place in _places(form):
        for value in BAD_VALUES:
            yield _with(form, place, value)
        if isinstance(place[-1], str):
            yield _without(form, place)
            *outer, name = place
            yield _with(form, (*outer, name + "s"), 1)
            yield _with(_without(form, place), (*outer, name[:-1]), 1)


def check_words(error: ValidationError, form: type[BaseModel], given: object) -> set[str]:
    """Check that nothing of what is told is in pydantic's words; return the kinds of faults."""
    told = "\n".join(map(str, faults_of(error, form, given)))
    assert told
    assert "cannot be used" not in told
    for fault in error.errors():
        if fault["type"] in get_args(ErrorType) and fault["type"] not in _OWN:
            assert fault["msg"] not in told
    for words in ("Input should", "Value error", "Extra inputs", "Field required", "should have"):
        assert words not in told
    return {fault["type"] for fault in error.errors()}


def _places(value: object, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if place:
        yield place
    inner: Any = {}
    if isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    for name, part in inner:
        yield from _places(part, (*place, name))


def _with(form: dict[str, Any], place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(form)
    _outer(changed, place)[place[-1]] = value
    return changed


def _without(form: dict[str, Any], place: tuple[Any, ...]) -> dict[str, Any]:
    changed = copy.deepcopy(form)
    del _outer(changed, place)[place[-1]]
    return changed


def _outer(form: Any, place: tuple[Any, ...]) -> Any:
    for part in place[:-1]:
        form = form[part]
    return form
