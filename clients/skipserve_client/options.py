"""Flags that several commands have, and what was given on the command line."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from skipserve_client.calls import ChatOptions

Url = Annotated[
    str,
    typer.Option("--url", envvar="SKIPSERVE_URL", metavar="URL", help="Where the server listens."),
]
ApiKey = Annotated[
    str | None,
    typer.Option(
        "--api-key", envvar="SKIPSERVE_API_KEY", metavar="KEY", help="The server's API key, if any."
    ),
]
ModelName = Annotated[
    str | None, typer.Option(metavar="NAME", help="A model name that the server knows.")
]
MaxTokens = Annotated[int | None, typer.Option(min=1, metavar="N", help="Answer so many at most.")]
Temperature = Annotated[float, typer.Option(min=0, metavar="T", help="0 is the likeliest answer.")]
Seed = Annotated[int | None, typer.Option(metavar="N", help="Makes sampling repeatable.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
PoliciesFile = Annotated[
    Path | None,
    typer.Option(
        "--policies-file",
        "--policies",
        metavar="FILE",
        help="A YAML file with policies of your own.",
    ),
]


def chat_options(
    temperature: float, model: str | None, max_tokens: int | None, seed: int | None = None
) -> ChatOptions:
    """Return what flags say of how a chat is to be answered; what they do not say is left out."""
    options: ChatOptions = {"temperature": temperature}
    if model is not None:
        options["model"] = model
    if max_tokens is not None:
        options["max_tokens"] = max_tokens
    if seed is not None:
        options["seed"] = seed
    return options


def print_json(value: BaseModel | dict[str, Any]) -> None:
    """Print a value as `--json` has it."""
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    typer.echo(json.dumps(plain, indent=2, ensure_ascii=False))


def given_flags(context: typer.Context) -> frozenset[str]:
    """Return the flags that stand on the command line: not the environment's, not defaults."""
    return frozenset(
        flag
        for parameter in context.command.params
        if _is_given(context, parameter.name)
        for flag in parameter.opts
    )


def _is_given(context: typer.Context, name: str | None) -> bool:
    source = context.get_parameter_source(name) if name else None
    return source is not None and source.name == "COMMANDLINE"
