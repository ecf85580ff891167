"""Says in plain words what pydantic finds wrong with a form. Knows no form of its own."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from re import findall
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core.core_schema import ErrorType

Place = tuple[int | str, ...]

# By the kind of fault, what would be right; the names in braces are pydantic's limits.
_WORDS = {
    "missing": "this field is missing",
    "invalid_key": "the names of fields must be texts",
    "string_type": "this must be a text",
    "string_unicode": "this text is not valid Unicode",
    "string_too_short": "this must have at least {min_length} characters",
    "string_too_long": "this may have at most {max_length} characters",
    "too_short": "this must have at least {min_length} items",
    "too_long": "this may have at most {max_length} items",
    "list_type": "this must be a list",
    "tuple_type": "this must be a list",
    "bool_type": "this must be true or false",
    "bool_parsing": "this must be true or false",
    "int_type": "this must be a whole number",
    "int_parsing": "this must be a whole number",
    "int_from_float": "this must be a whole number",
    "int_parsing_size": "this number is too large",
    "float_type": "this must be a number",
    "float_parsing": "this must be a number",
    "finite_number": "this must be a finite number",
    "greater_than": "this must be more than {gt}",
    "greater_than_equal": "this must be at least {ge}",
    "less_than": "this must be below {lt}",
    "less_than_equal": "this must be at most {le}",
    "path_type": "this must be a path",
    "value_error": "{error}",
    "json_invalid": "this is not valid JSON: {error}",
}
_EMPTY = "this must not be empty"
_UNKNOWN = "this field is not known"
_OF_FIELDS = {"model_type", "model_attributes_type", "dict_type"}
_CHOICES = {"enum", "literal_error"}
_PYDANTICS = frozenset(get_args(ErrorType))
# What is less alike is no slip of the pen.
_ALIKE = 0.7
_MAX_FIELDS = 6


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a form.

    Attributes:
        place: the way to it from the form, in what was given: names of fields and indexes.
        message: what would be right; never what was given.
    """

    place: Place
    message: str

    def __str__(self) -> str:
        """Return the message behind its place."""
        place = ".".join(map(str, self.place))
        return f"{place}: {self.message}" if place else self.message


def faults_of(error: ValidationError, form: type[BaseModel], given: object = None) -> list[Fault]:
    """Return what is wrong with what was given for a form, as `plain_faults` does."""
    return plain_faults(error.errors(), form, given)


def plain_cause(error: BaseException) -> str | None:
    """Return what is wrong where pydantic's finding is the cause of another error; else None.

    typer raises such errors for values of flags, in pydantic's words.
    """
    cause = error.__cause__
    if not isinstance(cause, ValidationError):
        return None
    return "; ".join(map(str, faults_of(cause, BaseModel)))


def plain_faults(
    found: Sequence[Mapping[str, Any]], form: type[BaseModel], given: object = None
) -> list[Fault]:
    """Return what pydantic has found wrong with a form, in words that do not need pydantic's.

    Args:
        found: pydantic's errors; their places begin at the form.
        form: what was to be read.
        given: what was read, which tells its own fields from the variants that pydantic tried;
            None where that is not at hand, and the form has none.
    """
    faults: list[Fault] = []
    misspelt: set[Place] = set()
    for each in found:
        place = each["loc"] if given is None else tuple(_path(each, given))
        if each["type"] == "extra_forbidden":
            near = _nearest(str(each["loc"][-1]), _fields(form, place[:-1]))
            misspelt |= {(*place[:-1], name) for name in near}
            faults.append(Fault(place, _UNKNOWN + _guess(near)))
        else:
            faults.append(Fault(place, _describe(each, _fields(form, place))))
    # A field that is missing because its name is misspelt is one fault.
    missing = {Fault(place, _WORDS["missing"]) for place in misspelt}
    return [fault for fault in faults if fault not in missing]


def _path(fault: Mapping[str, Any], given: object) -> Iterator[int | str]:
    """Yield the way to a fault in what was given; pydantic's names the variants that it tried."""
    for number, part in enumerate(fault["loc"], start=1):
        is_key = isinstance(given, Mapping) and part in given
        is_index = isinstance(given, list | tuple) and isinstance(part, int) and part < len(given)
        if is_key or is_index:
            given = given[part]  # type: ignore[index]
            yield part
        elif fault["type"] == "missing" and number == len(fault["loc"]):
            yield part


def _describe(fault: Mapping[str, Any], fields: Sequence[str]) -> str:
    kind, limits = fault["type"], _readable(fault.get("ctx", {}))
    if kind in _CHOICES:
        return _name_choices(limits["expected"], fault["input"])
    if kind in _OF_FIELDS:
        names = f" with the fields {', '.join(fields[:_MAX_FIELDS])}" if fields else ""
        return f"this must be a mapping{names}"
    if kind in {"string_too_short", "too_short"} and limits["min_length"] == 1:
        return _EMPTY
    if kind in _WORDS:
        return _WORDS[kind].format(**limits)
    # Those that are not pydantic's are ours, in our own words.
    return "this value cannot be used" if kind in _PYDANTICS else str(fault["msg"])


def _readable(limits: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: f"{limit:g}" if isinstance(limit, float) else limit for name, limit in limits.items()
    }


def _name_choices(expected: str, given: object) -> str:
    choices = findall(r"'([^']*)'", expected)
    near = _nearest(given, choices) if isinstance(given, str) else []
    words = f"one of {', '.join(choices)}" if len(choices) > 1 else expected
    return f"this must be {words}{_guess(near)}"


def _nearest(name: str, names: Sequence[str]) -> list[str]:
    return get_close_matches(name[:100].lower(), names, n=1, cutoff=_ALIKE)


def _guess(near: Sequence[str]) -> str:
    return f"; is it {near[0]}?" if near else ""


def _fields(form: type[BaseModel], place: Place) -> list[str]:
    """Return the names that fields may have at a place, in whichever form is meant there."""
    forms = [form]
    for part in place:
        if isinstance(part, str):
            forms = [
                inner
                for outer in forms
                for name, field in outer.model_fields.items()
                if part == (field.alias or name)
                for inner in _forms_in(field.annotation)
            ]
    return [field.alias or name for each in forms for name, field in each.model_fields.items()]


def _forms_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _forms_in(argument)
