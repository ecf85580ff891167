"""The `skipserve compare` command."""

import asyncio
from typing import Annotated

import typer
from rich.console import Console

from skipserve_client.calls import DEFAULT_URL, checked_url
from skipserve_client.client import AsyncSkipserveClient
from skipserve_client.command_group import CommandError
from skipserve_client.compare.asking import Answers, Comparison
from skipserve_client.compare.results import PolicyResult, as_json, results_of, results_shown
from skipserve_client.discovery import check_choices, policies_of
from skipserve_client.messages import question_messages
from skipserve_client.options import (
    ApiKey,
    AsJson,
    MaxTokens,
    ModelName,
    Url,
    chat_options,
    print_json,
)
from skipserve_client.policy_choice import PolicyChoice, policy_names, read_policies
from skipserve_policies.named import FULL


def compare(  # noqa: PLR0913, PLR0917 (an argument a flag)
    picture: Annotated[str, typer.Argument(help="A JPEG, PNG, WebP, GIF or BMP file.")],
    question: Annotated[str, typer.Argument(help="What to ask about it.")],
    policies: Annotated[
        list[str],
        typer.Option(
            metavar="POLICIES",
            autocompletion=policy_names,
            help="Names, or policies of your own as JSON, with commas between them or by "
            "repeating the flag.",
        ),
    ],
    add_full: Annotated[
        bool,
        typer.Option(
            "--full/--no-full",
            help="Ask under full first, and hold the others against it; without, against the "
            "first policy that is named.",
        ),
    ] = True,
    repeat: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", help="Ask so often under each policy; times are the medians."
        ),
    ] = 1,
    at_once: Annotated[
        bool,
        typer.Option(
            "--at-once", help="Ask under all policies at the same time, and not one by one."
        ),
    ] = False,
    warm: Annotated[
        bool,
        typer.Option(
            "--warm",
            help="Let answers share what the server has computed for others. Else each has a "
            "cache of its own: the second would be quicker only for coming second.",
        ),
    ] = False,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = None,
    model: ModelName = None,
    max_tokens: MaxTokens = None,
    require_agreement: Annotated[
        bool,
        typer.Option("--require-agreement", help="Exit with 1 where an answer is another one."),
    ] = False,
    as_json_: AsJson = False,
) -> None:
    """Ask one question under several policies: answers, agreement, times and FLOPs side by side.

    Answers are greedy. Under each policy two tokens are asked for first, which do not count.
    Times are the client's; FLOPs saved are the plan's share of what full computes for the request.
    """
    options = chat_options(0.0, model, max_tokens)
    comparison = Comparison(
        question_messages(picture, question),
        options,
        _in_order(read_policies(policies, "--policies"), add_full),
        repeat,
        is_warm=warm,
        is_at_once=at_once,
    )
    with Console(stderr=True).status("Asking ..."):
        results = results_of(asyncio.run(_ask(comparison, url, api_key)))
    if as_json_:
        conditions = {
            "url": checked_url(url),
            "picture": picture,
            "question": question,
            "repeats": repeat,
            "is_warm": warm,
            "is_at_once": at_once,
        }
        print_json(as_json(results, conditions))
    else:
        Console().print(results_shown(results, _caption(comparison)))
    if require_agreement:
        _check_agreement(results)


def _in_order(choices: tuple[PolicyChoice, ...], add_full: bool) -> list[PolicyChoice]:
    if not add_full and not choices:
        raise CommandError("--policies: there is none to ask under")
    if not add_full:
        return list(choices)
    others = [choice for choice in choices if choice.label != FULL]
    return [PolicyChoice(FULL, FULL), *others]


async def _ask(comparison: Comparison, url: str, api_key: str | None) -> Answers:
    # Not asked again where it is refused: the wait would be in its times.
    async with AsyncSkipserveClient(url, api_key, max_retries=0) as client:
        check_choices(comparison.policies, await policies_of(client), "--policies")
        return await comparison.ask(client)


def _caption(comparison: Comparison) -> str:
    way = "all at once" if comparison.is_at_once else "one by one"
    shared = "caches shared" if comparison.is_warm else "each with an empty cache"
    times = f"medians of {comparison.repeats}" if comparison.repeats > 1 else "one answer each"
    return (
        f"First token and end as the client saw them: {times}, asked {way}, {shared}. Saved: the "
        "share of full's FLOPs."
    )


def _check_agreement(results: list[PolicyResult]) -> None:
    if others := [result.label for result in results if result.difference is not None]:
        raise CommandError(f"{', '.join(others)}: not the answer of {results[0].label}")
