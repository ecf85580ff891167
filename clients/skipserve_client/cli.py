"""The `skipserve` command. Imports neither torch nor the server: see `command_group`."""

import json
import time
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from rich.console import Console

from skipserve_client.calls import DEFAULT_URL, ChatOptions
from skipserve_client.client import SkipserveClient
from skipserve_client.command_group import CommandError, CommandGroup
from skipserve_client.offline import model_sizes, offline_policies, request_cost
from skipserve_client.tables import answer_table, flops_table, policies_table

app = typer.Typer(
    cls=CommandGroup,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Serve multimodal LLMs in which each request chooses what the model computes.",
)

Url = Annotated[
    str, typer.Option("--url", envvar="SKIPSERVE_URL", help="Where the server listens.")
]
ApiKey = Annotated[
    str | None,
    typer.Option("--api-key", envvar="SKIPSERVE_API_KEY", help="The server's API key, if any."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")]
PoliciesFile = Annotated[
    Path | None,
    typer.Option("--policies", metavar="FILE", help="A YAML file with policies of your own."),
]


@app.command()
def ask(  # noqa: PLR0913, PLR0917 (an argument a flag)
    picture: Annotated[str, typer.Argument(help="A JPEG, PNG, WebP, GIF or BMP file.")],
    question: Annotated[str, typer.Argument(help="What to ask about it.")],
    skip_policy: Annotated[
        str | None, typer.Option(help="A policy's name, or a policy of your own as JSON.")
    ] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    model: Annotated[str | None, typer.Option(help="A model name that the server knows.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="Answer so many at most.")] = None,
    temperature: Annotated[float, typer.Option(min=0, help="0 is the likeliest answer.")] = 0.0,
    seed: Annotated[int | None, typer.Option(help="Makes sampling repeatable.")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask a question about a picture; show the answer as it comes, then what was computed."""
    options: ChatOptions = {"temperature": temperature}
    if model is not None:
        options["model"] = model
    if skip_policy is not None:
        options["skip_policy"] = _policy_of(skip_policy)
    if max_tokens is not None:
        options["max_tokens"] = max_tokens
    if seed is not None:
        options["seed"] = seed
    with _client(url, api_key) as client:
        if as_json:
            _print_json(client.ask(picture, question, **options))
        else:
            _ask_streaming(client, picture, question, options)


def _policy_of(text: str) -> str | dict[str, Any]:
    if not text.lstrip().startswith("{"):
        return text
    try:
        policy: dict[str, Any] = json.loads(text)
    except ValueError as error:
        raise CommandError(f"--skip-policy is neither a name nor valid JSON: {error}") from error
    return policy


def _ask_streaming(
    client: SkipserveClient, picture: str, question: str, options: ChatOptions
) -> None:
    start = time.perf_counter()
    first_token_seconds: float | None = None
    with client.stream_ask(picture, question, **options) as stream:
        for piece in stream:
            if first_token_seconds is None:
                first_token_seconds = time.perf_counter() - start
            typer.echo(piece, nl=False)
        total_seconds = time.perf_counter() - start
        typer.echo()
        answer = stream.answer
    Console().print(answer_table(answer, total_seconds, first_token_seconds or total_seconds))


@app.command()
def policies(
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    model: Annotated[
        str | None,
        typer.Option(help="Ask no server: llava-1.5-7b, llava-1.5-13b, demo, or a folder."),
    ] = None,
    policies_file: PoliciesFile = None,
    as_json: AsJson = False,
) -> None:
    """List the skip policies, resolved for the server's model or for a model that you name."""
    if model is not None:
        found, misfits = offline_policies(model, policies_file)
    elif policies_file is not None:
        raise CommandError("--policies goes with --model: the server has a catalog of its own")
    else:
        with _client(url, api_key) as client:
            found, misfits = client.skip_policies(), {}
    if as_json:
        _print_json({"object": "list", "data": [_plain(policy) for policy in found]})
        return
    console = Console()
    console.print(policies_table(found))
    for name, reason in misfits.items():
        console.print(f"{name} does not fit: {reason}", style="dim", markup=False)


@app.command()
def flops(
    policy: Annotated[str, typer.Option(help="A policy of the catalog.")],
    model: Annotated[
        str, typer.Option(help="llava-1.5-7b, llava-1.5-13b, demo, or a folder.")
    ] = "llava-1.5-7b",
    prompt: Annotated[
        str, typer.Option(help="Tokens of text and of pictures in turn, text first.")
    ] = "35+576+25",
    generate: Annotated[int, typer.Option(min=1, help="Tokens that are answered.")] = 10,
    policies_file: PoliciesFile = None,
    as_json: AsJson = False,
) -> None:
    """Count what a request costs under a policy and under the full model, in FLOPs."""
    cost = request_cost(model_sizes(model), policy, prompt, generate, policies_file)
    if as_json:
        _print_json(cost.as_json())
    else:
        Console().print(flops_table(cost))


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(installed_version("skipserve"))


def _client(url: str, api_key: str | None) -> SkipserveClient:
    return SkipserveClient(url, api_key)


def _plain(value: BaseModel) -> dict[str, Any]:
    return value.model_dump(mode="json")


def _print_json(value: BaseModel | dict[str, Any]) -> None:
    plain = _plain(value) if isinstance(value, BaseModel) else value
    typer.echo(json.dumps(plain, indent=2, ensure_ascii=False))


def main() -> None:
    """Run the command line."""
    app(prog_name="skipserve")
