"""What an answer is to be held to, in the fields of OpenAI's and of vLLM's forms."""

from typing import Any

from skipserve.api.wire import (
    ChatForm,
    FunctionChoice,
    JsonSchemaFormat,
    OpenAiFields,
    PlainFormat,
    ResponseFormat,
    StructuredOutputs,
)
from skipserve.asking.tools import Function, Tools, json_text
from skipserve.errors import InvalidRequestError
from skipserve.grammar.structure import Choice, ContextFree, Json, Regex, Shape, Structure

_ANY_OBJECT = '{"type": "object"}'


def structure_of(form: OpenAiFields) -> Structure | None:
    """Return what a form's answer is to be held to; None for nothing.

    Raises:
        InvalidRequestError: the form says it twice, or not whole.
    """
    found = [
        each
        for each in (
            _of_response_format(form.response_format),
            _of_structured_outputs(form.structured_outputs),
        )
        if each is not None
    ]
    if len(found) > 1:
        raise InvalidRequestError(
            "response_format and structured_outputs both say what the answer is held to; send one "
            "of them",
            param="structured_outputs",
        )
    return found[0] if found else None


def of_schema(schema: Any, param: str) -> Structure:
    """Return what holds an answer to a JSON schema, which a field of the request has.

    Raises:
        InvalidRequestError: it is nested too deep.
    """
    return Structure(Json(json_text(schema, param)), param)


def any_object(param: str) -> Structure:
    """Return what holds an answer to be a JSON object, which a field of the request asks for."""
    return Structure(Json(_ANY_OBJECT), param)


def _of_response_format(form: ResponseFormat | None) -> Structure | None:
    match form:
        case JsonSchemaFormat():
            return of_schema(form.json_schema.described, "response_format")
        case PlainFormat(type="json_object"):
            return any_object("response_format")
    return None


def _of_structured_outputs(form: StructuredOutputs | None) -> Structure | None:
    if form is None:
        return None
    shapes = [shape for shape in _shapes(form) if shape is not None]
    if len(shapes) != 1:
        raise InvalidRequestError(
            "structured_outputs must hold one of json, json_object: true, regex, choice and "
            f"grammar; it holds {len(shapes)}",
            param="structured_outputs",
        )
    return Structure(shapes[0], "structured_outputs")


def _shapes(form: StructuredOutputs) -> tuple[Shape | None, ...]:
    schema = form.described
    if schema is not None and not isinstance(schema, str):
        schema = json_text(schema, "structured_outputs")
    return (
        None if schema is None else Json(schema),
        Json(_ANY_OBJECT) if form.json_object else None,
        None if form.regex is None else Regex(form.regex),
        None if form.choice is None else Choice(form.choice),
        None if form.grammar is None else ContextFree(form.grammar),
    )


def tools_of(form: ChatForm) -> Tools | None:
    """Return the functions that a chat's answer may call; None where there are none to be called.

    Raises:
        InvalidRequestError: one must be called, and there are none.
    """
    functions = tuple(
        Function(
            it.function.name,
            it.function.description or "",
            it.function.parameters or {},
            f"tools[{index}].function.parameters",
        )
        for index, it in enumerate(form.tools or ())
    )
    choice = form.tool_choice
    if isinstance(choice, FunctionChoice):
        return chosen(functions, "required", form.parallel_tool_calls, choice.function.name)
    return chosen(functions, choice, form.parallel_tool_calls)


def chosen(
    functions: tuple[Function, ...],
    choice: str | None,
    is_parallel: bool | None,
    only: str | None = None,
) -> Tools | None:
    """Return the functions that an answer may call; None where there are none to be called.

    Args:
        functions: all that there are.
        choice: `none`, `auto` or `required`.
        is_parallel: whether there may be several calls; None for yes.
        only: the one that must be called.

    Raises:
        InvalidRequestError: one must be called, and there are none.
    """
    must_call = choice == "required"
    if must_call and not functions:
        raise InvalidRequestError("tool_choice needs tools", param="tool_choice")
    if not functions or choice == "none":
        return None
    is_parallel = is_parallel is not False
    return Tools(functions, must_call=must_call, only=only, is_parallel=is_parallel)
