"""Flags that several commands have, and what was given on the command line."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel

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
