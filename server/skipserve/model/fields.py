"""Fields of a checkpoint's configuration, checked one by one; what is wrong is a ValueError."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

_Form = TypeVar("_Form", bound=BaseModel)

# How torch calls the types that weights can be declared in, and what this program calls them.
_DTYPES = {
    **{name: name for name in ("float32", "float16", "bfloat16", "float64")},
    "float": "float32",
    "half": "float16",
    "double": "float64",
}


def inner_object(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return a field that is an object; an empty one where it is left out or null."""
    value = values.get(name)
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"{name} is {value!r}; it must be an object")
    return value or {}


def whole_number(values: Mapping[str, Any], name: str, default: int) -> int:
    """Return a field that is a whole number larger than 0."""
    value = values.get(name, default)
    if type(value) is not int or value < 1:
        raise ValueError(f"{name} is {value!r}; it must be a whole number larger than 0")
    return value


def count(values: Mapping[str, Any], name: str, default: int) -> int:
    """Return a field that is a whole number, 0 or larger."""
    value = values.get(name, default)
    if type(value) is not int or value < 0:
        raise ValueError(f"{name} is {value!r}; it must be a whole number, 0 or larger")
    return value


def number(values: Mapping[str, Any], name: str, default: float) -> float:
    """Return a field that is a number larger than 0."""
    value = values.get(name, default)
    if type(value) not in {int, float} or not value > 0:
        raise ValueError(f"{name} is {value!r}; it must be a number larger than 0")
    return float(value)


def flag(values: Mapping[str, Any], name: str, *, default: bool) -> bool:
    """Return a field that is true or false; its default where it is null."""
    value = values.get(name)
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}; it must be true or false")
    return default if value is None else value


def declared_dtype(values: Mapping[str, Any]) -> str | None:
    """Return the type that weights are declared in; None where there is no declaration."""
    name = "torch_dtype" if values.get("dtype") is None else "dtype"
    dtype = values.get(name)
    if dtype is None or dtype == "auto":
        return None
    known = _DTYPES.get(str(dtype).removeprefix("torch."))
    if known is None:
        raise ValueError(f"{name} is {dtype!r}; supported: {', '.join(_DTYPES)}")
    return known


def read_as(form: type[_Form], given: Mapping[str, Any]) -> _Form:
    """Return what a file says as a form has it.

    Raises:
        ValueError: a field cannot be followed; names it, and what it must be by its description.
    """
    try:
        return form.model_validate(dict(given))
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        right = form.model_fields[name].description
        raise ValueError(f"{name} is {given[name]!r}; it must be {right}") from error
