"""The `skipserve evaluate` command."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

_FILE_WIDTH = 160


def evaluate(  # noqa: PLR0913, PLR0917 (an argument a flag)
    data: Annotated[
        str, typer.Option(help="demo, or a JSONL file of questions with pictures beside it.")
    ] = "demo",
    policies: Annotated[str, typer.Option(help="Names with commas between them, or all.")] = "all",
    count: Annotated[int, typer.Option(min=1, help="Ask so many questions.")] = 1000,
    url: Annotated[
        str | None, typer.Option(help="Ask this server; without it, one is started.")
    ] = None,
    api_key: Annotated[
        str | None, typer.Option(envvar="SKIPSERVE_API_KEY", help="The server's API key.")
    ] = None,
    model: Annotated[str, typer.Option(help="Without --url: the model to serve.")] = "demo",
    dtype: Annotated[str, typer.Option(help="Without --url: as serve takes it.")] = "auto",
    device: Annotated[str, typer.Option(help="Without --url: as serve takes it.")] = "auto",
    policies_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Without --url: policies of your own.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Requests at a time.")] = 1,
    max_tokens: Annotated[int, typer.Option(min=1, help="Answer so many tokens at most.")] = 64,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the JSON to a file besides; as skip-quality.json in the model's folder, "
            "the server shows it.",
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw accuracy against FLOPs: an svg, png or pdf."),
    ] = None,
) -> None:
    """Measure what policies do to the answers: accuracy, FLOPs and latency on known questions."""
    serve_flags = ["--host", "127.0.0.1", "--model", model, "--dtype", dtype, "--device", device]
    if policies_file is not None:
        serve_flags += ["--policies", str(policies_file)]
    # The rest needs numpy and scipy, which would slow every other command down.
    from skipserve_client.evaluate import results, session  # noqa: PLC0415

    order = session.Order(
        data=data,
        policies=policies,
        count=count,
        url=url,
        api_key=api_key,
        serve_flags=serve_flags,
        concurrency=concurrency,
        max_tokens=max_tokens,
    )
    evaluation = session.carry_out(order)
    text = json.dumps(results.evaluation_json(evaluation, Path(data).name), indent=2)
    if output is not None:
        output.write_text(text + "\n")
    if plot is not None:
        from skipserve_client.evaluate.plot import draw  # noqa: PLC0415

        draw(evaluation, plot)
    if as_json:
        typer.echo(text)
    else:
        console = Console()
        # A file or a pipe has no width: the rows stay whole.
        results.show(evaluation, console if console.is_terminal else Console(width=_FILE_WIDTH))
