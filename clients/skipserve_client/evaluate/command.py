"""The `skipserve evaluate` command."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from skipserve_client.command_group import CommandError
from skipserve_client.offline import SHIPPED
from skipserve_client.options import ApiKey, AsJson, given_flags
from skipserve_client.policy_choice import policy_names, read_policies
from skipserve_policies.quality import QUALITY_FILE, read_summaries, with_summary

if TYPE_CHECKING:
    from skipserve_client.evaluate.results import Evaluation

_FILE_WIDTH = 160
_PICTURE_ENDINGS = (".svg", ".png", ".pdf")
# What only a server of our own has a use for, and what only a given one has.
_OF_OWN_SERVER = ("--model", "--dtype", "--device", "--policies-file")
_OF_OTHER_SERVER = ("--api-key", "--model-name")
# What only asking has a use for.
_OF_ASKING = (
    "--data",
    "--data-folder",
    "--policies",
    "--count",
    "--url",
    *_OF_OWN_SERVER,
    *_OF_OTHER_SERVER,
    "--concurrency",
    "--max-tokens",
    "--output",
    "--baseline",
)


def evaluate(  # noqa: PLR0913, PLR0917 (an argument a flag)
    context: typer.Context,
    data: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE",
            help="Which questions: demo; demo-steps, which take several steps; the test split of "
            "easy-vqa; a published data set, asked and scored as published: vqav2, ok-vqa, gqa, "
            "textvqa, textvqa-ocr, pope, scienceqa, mme, mmbench, coco-captions, coco-karpathy; or "
            "a JSONL file of your own. "
            "Each line holds `image` (a picture's path, from the file's folder), `question` and "
            "`answer` (a text or a number, or a list of those that are right); it may hold `type`, "
            "which accuracy is broken down by, and `id`.",
        ),
    ] = "demo",
    data_folder: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where the data set lies, in the files that its authors publish; what is missing "
            "is told by name. Default for easy-vqa: where it is kept.",
        ),
    ] = None,
    policies: Annotated[
        list[str] | None,
        typer.Option(
            metavar="POLICIES",
            autocompletion=policy_names,
            help="Names, or policies of your own as JSON, with commas between them or by "
            "repeating the flag; all are those of the server. Default: all.",
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Ask the first so many questions, of mme so many pictures, of mmbench so many "
            "questions in all rotations; published sets are shuffled first, always alike. Default: "
            "all there are, 1000 of demo.",
        ),
    ] = None,
    url: Annotated[
        str | None,
        typer.Option(
            envvar="SKIPSERVE_URL",
            metavar="URL",
            help="Ask this server, of skipserve or any that speaks OpenAI's form; without it, one "
            "is started.",
        ),
    ] = None,
    model_name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="With --url: which of the server's models. Default: its first."
        ),
    ] = None,
    api_key: ApiKey = None,
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME|PATH",
            help=f"Without --url: the model to serve: {', '.join(SHIPPED)}, or a folder.",
        ),
    ] = "demo",
    dtype: Annotated[
        str, typer.Option(metavar="TYPE", help="Without --url: as serve takes it.")
    ] = "auto",
    device: Annotated[
        str, typer.Option(metavar="DEVICE", help="Without --url: as serve takes it.")
    ] = "auto",
    policies_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Without --url: policies of your own.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, metavar="N", help="Requests at a time.")] = 1,
    max_tokens: Annotated[
        int, typer.Option(min=1, metavar="N", help="Answer so many tokens at most.")
    ] = 64,
    as_json: AsJson = False,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write each answer as it comes, one JSON object a line. What the file holds "
            "already is not asked again: the same command goes on where it was stopped.",
        ),
    ] = None,
    records: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Ask nothing: score the answers anew that --output wrote to this file.",
        ),
    ] = None,
    baseline: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Hold answers against those that another model gave to the same questions under "
            "full, as --output wrote them: for a model that was made of that one. Default: "
            "against this model's own under full.",
        ),
    ] = None,
    summary: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the results of the policies as JSON, beside those of other data sets that "
            "the file holds; as skip-quality.json in the model's folder, the server shows them.",
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw accuracy against FLOPs: an svg, png or pdf."),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a page with the table, the plot, and the answers that became wrong or "
            "right, with their pictures: one HTML file that needs nothing else.",
        ),
    ] = None,
) -> None:
    """Measure what policies do to the answers: accuracy, FLOPs and latency on known questions."""
    given = given_flags(context)
    if "--model" in given and "--url" not in given:
        url = None  # flags go before the environment
    if records is not None:
        _check_idle(given, records)
    _check_server_flags(given, url)
    _check_files(
        {
            "--data": Path(data),
            "--baseline": baseline,
            "--output": output,
            "--records": records,
            "--summary": summary,
            "--plot": plot,
            "--page": page,
        }
    )
    serve_flags = ["--host", "127.0.0.1", "--model", model, "--dtype", dtype, "--device", device]
    if policies_file is not None:
        serve_flags += ["--policies", str(policies_file)]
    choices = read_policies(policies or ["all"], "--policies")
    # The rest needs numpy and scipy, which would slow every other command down.
    from skipserve_client.evaluate import results, session  # noqa: PLC0415

    if records is not None:
        evaluation = session.scored_again(records)
    else:
        order = session.Order(
            data=data,
            data_folder=data_folder,
            policies=choices,
            count=count,
            url=url,
            api_key=api_key,
            serve_flags=serve_flags,
            concurrency=concurrency,
            max_tokens=max_tokens,
            output=output,
            model_name=model_name,
            baseline=baseline,
        )
        evaluation = session.carry_out(order)
    kept = output or records
    found = results.evaluation_json(evaluation) | {"records": None if kept is None else str(kept)}
    # First what cannot be lost any more, should the files not be written.
    if as_json:
        answers = {} if kept is not None else {"answers": results.answers_json(evaluation)}
        typer.echo(_text(found | answers))
    else:
        results.show(evaluation, _console())
    write_files(evaluation, found, summary, plot, page)


def write_files(
    evaluation: "Evaluation",
    found: Mapping[str, Any],
    summary: Path | None,
    plot: Path | None,
    page: Path | None,
) -> None:
    """Write the files that are named: a summary of the results, a picture, a page.

    Raises:
        CommandError: one cannot be written.
    """
    if summary is not None:
        with _writing(summary, "--summary"):
            text = _text(with_summary(read_summaries(summary), found))
            summary.write_text(text + "\n", "utf-8")
    if plot is not None:
        from skipserve_client.evaluate.plot import draw  # noqa: PLC0415

        with _writing(plot, "--plot"):
            draw(evaluation, plot)
    if page is not None:
        from skipserve_client.evaluate.page import page_of  # noqa: PLC0415

        with _writing(page, "--page"):
            page.write_text(page_of(evaluation), "utf-8")


@contextmanager
def _writing(path: Path, flag: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CommandError(f"{flag} {path} cannot be written: {error.strerror or error}") from error


def _text(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)


def _console() -> Console:
    """Return where the table goes; a file or a pipe has no width: there, rows stay whole."""
    console = Console()
    has_width = console.is_terminal or "COLUMNS" in os.environ
    return console if has_width else Console(width=_FILE_WIDTH)


def _check_idle(given: frozenset[str], records: Path) -> None:
    """Refuse flags that would have no effect where nothing is asked."""
    if idle := [flag for flag in _OF_ASKING if flag in given]:
        raise CommandError(
            f"{', '.join(idle)}: without effect with --records {records}, which asks nothing"
        )


def _check_server_flags(given: frozenset[str], url: str | None) -> None:
    """Refuse flags that would have no effect."""
    if url is not None:
        if idle := [flag for flag in _OF_OWN_SERVER if flag in given]:
            where = "--url" if "--url" in given else "SKIPSERVE_URL, which is set"
            raise CommandError(
                f"{', '.join(idle)}: without effect on a server that runs already, which is "
                f"named by {where}"
            )
    elif idle := [flag for flag in _OF_OTHER_SERVER if flag in given]:
        raise CommandError(
            f"{', '.join(idle)}: without effect on a server that evaluate starts itself"
        )


def _check_files(files: Mapping[str, Path | None]) -> None:
    """Refuse files that could not be written in the end, before hours of work."""
    named = {flag: path for flag, path in files.items() if path is not None}
    for flag, path in named.items():
        for other, same in named.items():
            if flag < other and path.resolve() == same.resolve():
                raise CommandError(f"{flag} and {other} name the same file, {path}")
    for flag in ("--output", "--summary", "--plot", "--page"):
        if flag in named:
            _check_writable(named[flag], flag)
    if (plot := files["--plot"]) is not None and plot.suffix.lower() not in _PICTURE_ENDINGS:
        raise CommandError(f"--plot {plot}: the name must end in {', '.join(_PICTURE_ENDINGS)}")
    if (output := files["--output"]) is not None and output.name == QUALITY_FILE:
        raise CommandError(
            f"--output takes a line an answer; {QUALITY_FILE} holds their summary: "
            f"--summary {output}"
        )


def _check_writable(path: Path, flag: str) -> None:
    if path.is_dir():
        raise CommandError(f"{flag} {path}: this is a folder; give the name of a file in it")
    if not path.parent.is_dir():
        raise CommandError(f"{flag} {path}: there is no folder {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise CommandError(f"{flag} {path}: may not be written")
