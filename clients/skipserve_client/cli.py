"""The `skipserve` command. Imports neither torch nor the server: see `command_group`."""

import time
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from skipserve_client.calls import DEFAULT_URL, ChatOptions
from skipserve_client.chat.command import chat
from skipserve_client.client import SkipserveClient
from skipserve_client.command_group import CommandError, CommandGroup, PlainCommand
from skipserve_client.compare.command import compare
from skipserve_client.load.command import load
from skipserve_client.offline import (
    MODELS,
    PolicyListing,
    listed_policies,
    model_sizes,
    offline_policies,
    request_cost,
    standard_shape,
)
from skipserve_client.options import (
    ApiKey,
    AsJson,
    MaxTokens,
    ModelName,
    PoliciesFile,
    Seed,
    Temperature,
    Url,
    chat_options,
    given_flags,
    print_json,
)
from skipserve_client.policy_choice import SkipPolicyFlag, policy_names, read_policies, read_policy
from skipserve_client.policy_commands import add_policy, remove_policy
from skipserve_client.replies import SavedFor
from skipserve_client.tables import answer_table, flops_table, policies_table

app = typer.Typer(
    cls=CommandGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Serve multimodal LLMs in which each request chooses what the model computes.",
)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        typer.echo(installed_version("skipserve"))
        raise typer.Exit


@app.callback()
def _group(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Take the flags that go before a command."""


@app.command(cls=PlainCommand)
def ask(  # noqa: PLR0913, PLR0917 (an argument a flag)
    file: Annotated[str, typer.Argument(help="A picture, an animation or a WAV file.")],
    question: Annotated[str, typer.Argument(help="What to ask about it.")],
    skip_policy: SkipPolicyFlag = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    model: ModelName = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = 0.0,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Ask a question about a file; show the answer as it comes, then what was computed.

    JPEG, PNG, WebP, GIF and BMP are read, WAV files where the model takes sounds, and animations
    where it takes videos.
    """
    options = chat_options(temperature, model, max_tokens, seed)
    if skip_policy is not None:
        options["skip_policy"] = read_policy(skip_policy, "--skip-policy").value
    with _client(url, api_key) as client:
        if as_json:
            print_json(client.ask(file, question, **options))
        else:
            _ask_streaming(client, file, question, options)


def _ask_streaming(client: SkipserveClient, file: str, question: str, options: ChatOptions) -> None:
    start = time.perf_counter()
    first_token_seconds: float | None = None
    with client.stream_ask(file, question, **options) as stream:
        for piece in stream:
            if first_token_seconds is None:
                first_token_seconds = time.perf_counter() - start
            typer.echo(piece, nl=False)
        total_seconds = time.perf_counter() - start
        typer.echo()
        answer = stream.answer
    Console().print(answer_table(answer, total_seconds, first_token_seconds or total_seconds))


app.command(cls=PlainCommand)(chat)
app.command(cls=PlainCommand)(compare)
app.command(cls=PlainCommand)(load)


@app.command(cls=PlainCommand)
def policies(
    context: typer.Context,
    policy: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[POLICY]...",
            autocompletion=policy_names,
            help="Show these alone: names or, with --model, policies of your own as JSON.",
        ),
    ] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help=f"Ask no server: {MODELS}.",
        ),
    ] = None,
    policies_file: PoliciesFile = None,
    as_json: AsJson = False,
) -> None:
    """List the skip policies, resolved for the server's model or for a model that you name.

    Exits with 1 where a policy that you named, or that stands in your file, does not fit.
    """
    _check_sources(given_flags(context), model, policies_file)
    choices = read_policies(policy or (), "POLICY")
    if model is not None:
        found = offline_policies(model, policies_file, choices)
    else:
        with _client(url, api_key) as client:
            found = listed_policies(client.skip_policies(), choices)
    if as_json:
        print_json(found.as_json())
    else:
        _show_policies(found)
    if found.faults:
        raise CommandError("\n".join(found.faults))


def _check_sources(given: frozenset[str], model: str | None, policies_file: Path | None) -> None:
    """Refuse flags of a server beside those of none."""
    if model is None and policies_file is not None:
        raise CommandError("--policies-file goes with --model: the server has a catalog of its own")
    if model is not None and (idle := sorted(given & {"--url", "--api-key"})):
        raise CommandError(f"{', '.join(idle)}: without effect with --model, which asks no server")


def _show_policies(found: PolicyListing) -> None:
    console = Console()
    console.print(policies_table(found.policies))
    if num_misfits := len(found.misfits):
        console.print(
            f"{num_misfits} of the policies that ship do not fit this model; "
            "--json says which and why",
            style="dim",
        )


app.command("policies add", cls=PlainCommand)(add_policy)
app.command("policies remove", cls=PlainCommand)(remove_policy)


@app.command(cls=PlainCommand)
def flops(  # noqa: PLR0913, PLR0917 (an argument a flag)
    policy: Annotated[
        str,
        typer.Option(
            "--policy",
            "--skip-policy",
            metavar="POLICY",
            autocompletion=policy_names,
            help="A policy's name, or a policy of your own as JSON.",
        ),
    ],
    model: Annotated[
        str,
        typer.Option(metavar="MODEL", help=f"{MODELS}."),
    ] = "llava-1.5-7b",
    prompt: Annotated[
        str | None,
        typer.Option(
            metavar="SHAPE",
            help="Tokens of text and of pictures in turn, text first. Default: 35, a picture of "
            "the model's, 25.",
        ),
    ] = None,
    generate: Annotated[
        int, typer.Option(min=1, metavar="N", help="Tokens that are answered.")
    ] = 10,
    cached: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="Leading tokens of the prompt that were computed before."
        ),
    ] = 0,
    scored: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="Tokens of the prompt whose log-probabilities are told."
        ),
    ] = 0,
    policies_file: PoliciesFile = None,
    as_json: AsJson = False,
) -> None:
    """Count what a request costs under a policy and under the full model, in FLOPs.

    A list of policies quotes what is saved on one standard request, a reply what was saved on its
    own, without what was cached: with that shape, this command counts the same.
    """
    choice = read_policy(policy, "--policy")
    sizes = model_sizes(model)
    shape = SavedFor(
        prompt=standard_shape(sizes).prompt if prompt is None else prompt,
        cached_tokens=cached,
        generated_tokens=generate,
        scored_tokens=scored,
    )
    cost = request_cost(model, choice, shape, policies_file)
    if as_json:
        print_json(cost.as_json())
    else:
        Console().print(flops_table(cost, shape))


@app.command(cls=PlainCommand)
def version(as_json: AsJson = False) -> None:
    """Print the version."""
    found = installed_version("skipserve")
    if as_json:
        print_json({"version": found})
    else:
        typer.echo(found)


def _client(url: str, api_key: str | None) -> SkipserveClient:
    return SkipserveClient(url, api_key)


def main() -> None:
    """Run the command line."""
    app(prog_name="skipserve")
