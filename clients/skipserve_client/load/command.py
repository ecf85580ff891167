"""The `skipserve load` command."""

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from skipserve_client.calls import DEFAULT_URL, ChatOptions, checked_url
from skipserve_client.command_group import INTERRUPTED, CommandError
from skipserve_client.load.arrivals import read_spacing
from skipserve_client.load.pictures import (
    FolderPictures,
    GeneratedPictures,
    PictureSource,
    Repeats,
    read_repeats,
    read_size,
)
from skipserve_client.load.report import Report
from skipserve_client.load.rows import Row, read_rows
from skipserve_client.load.session import Order, carry_out
from skipserve_client.load.slo import read_slo
from skipserve_client.options import ApiKey, AsJson, given_flags, print_json
from skipserve_client.policy_choice import policy_names, read_weighted_policies

_LOAD, _REQUESTS, _REPORT = "How much, and when", "What is asked", "What is told"
_DEFAULT_REQUESTS = 100
_DEFAULT_CONCURRENCY = 4
# What says when requests are sent: one of these.
_WAYS = ("--concurrency", "--rate", "--arrivals-file")
_SECRET = {"api_key", "as_json"}


def load(  # noqa: PLR0913, PLR0917 (an argument a flag)
    context: typer.Context,
    url: Annotated[
        str,
        typer.Option(
            "--url",
            envvar="SKIPSERVE_URL",
            metavar="URL",
            help="Where the server listens, of skipserve or any that speaks OpenAI's form.",
        ),
    ] = DEFAULT_URL,
    api_key: ApiKey = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Which of the server's models. Default: its first."),
    ] = None,
    concurrency: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="N",
            rich_help_panel=_LOAD,
            help="Closed loop: so many clients, each of which asks again when it is answered.",
        ),
    ] = _DEFAULT_CONCURRENCY,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=100_000,
            metavar="R",
            rich_help_panel=_LOAD,
            help="Open loop: so many requests a second, whether answers come or not. Times count "
            "from when a request was due.",
        ),
    ] = None,
    arrivals: Annotated[
        str,
        typer.Option(
            metavar="KIND",
            rich_help_panel=_LOAD,
            help="With --rate: poisson, uniform, or gamma:CV; above a CV of 1, in bursts.",
        ),
    ] = "poisson",
    arrivals_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=_LOAD,
            help="Open loop, as a CSV or JSONL file says: `seconds` from the beginning and, where "
            "they are given, `picture`, `question`, `policy` and `max_tokens`.",
        ),
    ] = None,
    requests: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            rich_help_panel=_LOAD,
            help=f"End after so many. Default: {_DEFAULT_REQUESTS}, or what the file holds, where "
            "there is no --duration.",
        ),
    ] = None,
    duration: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            metavar="SECONDS",
            rich_help_panel=_LOAD,
            help="Begin none later; those under way end.",
        ),
    ] = None,
    warm_up: Annotated[
        int | None,
        typer.Option(
            "--warmup",
            min=0,
            metavar="N",
            rich_help_panel=_LOAD,
            help="Requests before, one by one, which do not count. Default: one a policy.",
        ),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            min=0.001,
            metavar="SECONDS",
            rich_help_panel=_LOAD,
            help="Give a request up that takes longer.",
        ),
    ] = 120.0,
    retries: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            rich_help_panel=_LOAD,
            help="Send what the server rejects (429, 503) again, after Retry-After; its time goes "
            "on meanwhile. Default: it counts as rejected.",
        ),
    ] = 0,
    pictures: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            rich_help_panel=_REQUESTS,
            help="Show the pictures of a folder, in turn. Default: generated ones of rectangles, "
            "each another, whose files are smaller than photographs.",
        ),
    ] = None,
    picture_size: Annotated[
        str,
        typer.Option(
            metavar="WxH", rich_help_panel=_REQUESTS, help="Of generated pictures, in pixels."
        ),
    ] = "336x336",
    repeat_pictures: Annotated[
        str | None,
        typer.Option(
            metavar="K|zipf:K",
            rich_help_panel=_REQUESTS,
            help="Show K pictures again and again, drawn alike, or the k-th in proportion to 1/k. "
            "Default: a picture comes once, as far as there are others.",
        ),
    ] = None,
    text_only: Annotated[
        bool, typer.Option("--text-only", rich_help_panel=_REQUESTS, help="Show no pictures.")
    ] = False,
    questions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=_REQUESTS,
            help="Ask these, in turn: CSV or JSONL with `question` and, where they are given, "
            "`picture`, `policy` and `max_tokens`. Default: eight general ones.",
        ),
    ] = None,
    policies: Annotated[
        list[str] | None,
        typer.Option(
            metavar="POLICIES",
            autocompletion=policy_names,
            rich_help_panel=_REQUESTS,
            help="Names, or policies of your own as JSON, drawn by their weights: "
            "full=3,exit-after-24=1. Default: the server's.",
        ),
    ] = None,
    max_tokens: Annotated[
        int,
        typer.Option(
            min=1, metavar="N", rich_help_panel=_REQUESTS, help="Answer so many tokens at most."
        ),
    ] = 64,
    ignore_eos: Annotated[
        bool,
        typer.Option(
            "--ignore-eos",
            rich_help_panel=_REQUESTS,
            help="Let every answer have that many; servers of OpenAI itself do not know this.",
        ),
    ] = False,
    seed: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            rich_help_panel=_REQUESTS,
            help="Draw the same arrivals, pictures and policies again. Default: others each time.",
        ),
    ] = None,
    slo: Annotated[
        str | None,
        typer.Option(
            metavar="LIMITS",
            rich_help_panel=_REPORT,
            help="Count what is answered within these milliseconds as goodput, such as "
            "ttft:500,itl:50,e2e:2000; itl is the mean of a request.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=_REPORT,
            help="Write what load it was, then each request, one JSON object a line.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Load a server, and measure times, rates, goodput and errors, in all and by policy.

    Exits with 1 where no request was answered. Ctrl-C shows what was measured so far.
    """
    given = given_flags(context)
    _check_flags(given, questions, pictures)
    rows = _rows(arrivals_file, questions)
    repeats = Repeats() if repeat_pictures is None else read_repeats(repeat_pictures)
    if requests is None and duration is None and arrivals_file is None:
        requests = _DEFAULT_REQUESTS
    options: ChatOptions = {"temperature": 0.0, "max_tokens": max_tokens}
    if ignore_eos:
        options["ignore_eos"] = True
    seed = secrets.randbelow(2**31) if seed is None else seed
    is_open = rate is not None or arrivals_file is not None
    order = Order(
        url=url,
        api_key=api_key,
        model=model,
        options=options,
        weights=read_weighted_policies(policies or (), "--policies"),
        pictures=None if text_only else _pictures(pictures, picture_size, repeats, seed),
        repeats=repeats,
        rows=rows,
        concurrency=None if is_open else concurrency,
        rate=rate,
        spacing=read_spacing(arrivals),
        requests=requests,
        duration_seconds=duration,
        num_warm_up=warm_up,
        timeout_seconds=timeout,
        retries=retries,
        seed=seed,
        slo=None if slo is None else (slo, read_slo(slo)),
        output=output,
        flags=_told_flags(context) | {"url": checked_url(url)},
    )
    report = carry_out(order)
    if as_json:
        print_json(report.as_json())
    else:
        Console().print(report.shown())
    _end(report)


def _told_flags(context: typer.Context) -> dict[str, Any]:
    """Return what was asked for, as records say it."""
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in context.params.items()
        if name not in _SECRET
    }


def _check_flags(given: frozenset[str], questions: Path | None, pictures: Path | None) -> None:
    """Refuse flags that would have no effect beside others."""
    if len(ways := [flag for flag in _WAYS if flag in given]) > 1:
        raise CommandError(f"{', '.join(ways)}: one of these says when requests are sent")
    if "--arrivals" in given and "--rate" not in given:
        raise CommandError("--arrivals goes with --rate")
    if questions is not None and "--arrivals-file" in given:
        raise CommandError("--questions: without effect with --arrivals-file, which has them")
    of_pictures = ("--pictures", "--picture-size", "--repeat-pictures")
    if "--text-only" in given and (idle := [flag for flag in of_pictures if flag in given]):
        raise CommandError(f"{', '.join(idle)}: without effect with --text-only")
    if pictures is not None and "--picture-size" in given:
        raise CommandError("--picture-size: without effect with --pictures")


def _rows(arrivals_file: Path | None, questions: Path | None) -> Sequence[Row]:
    if arrivals_file is not None:
        return read_rows(arrivals_file, "--arrivals-file", with_times=True)
    if questions is not None:
        return read_rows(questions, "--questions", with_times=False)
    return ()


def _pictures(folder: Path | None, size: str, repeats: Repeats, seed: int) -> PictureSource:
    if folder is not None:
        return FolderPictures.read(folder, repeats)
    return GeneratedPictures(*read_size(size), seed)


def _end(report: Report) -> None:
    if report.is_interrupted:
        raise typer.Exit(INTERRUPTED)
    if not any(record.is_answered for record in report.run.records):
        failures = (it.failure for it in report.run.records if it.failure is not None)
        first = next(failures, None)
        reason = "none was sent" if first is None else f"the first: {first.message} ({first.code})"
        raise CommandError(f"no request was answered; {reason}")
