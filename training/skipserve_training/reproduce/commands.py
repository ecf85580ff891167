"""`skipserve reproduce`: all tables of quality for a model, in one command."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from skipserve_client.command_group import CommandError
from skipserve_client.policy_choice import policy_names, read_policies

_TABLES = "README.md"


def reproduce(  # noqa: PLR0913, PLR0917 (an argument a flag)
    model: Annotated[str, typer.Option(metavar="PATH", help="The folder of a LLaVA checkpoint.")],
    data: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER",
            help="Holds data sets as `skipserve evaluate --data-folder` takes them, each in a "
            "folder called by its name (vqav2, gqa, pope, ...), and files of questions, *.jsonl.",
        ),
    ],
    report: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where tables, pages and answers go.")
    ] = Path("reproduced"),
    policies: Annotated[
        list[str] | None,
        typer.Option(
            metavar="POLICIES", autocompletion=policy_names, help="Which to compare. Default: all."
        ),
    ] = None,
    count: Annotated[
        int, typer.Option(min=1, metavar="N", help="Questions of each data set.")
    ] = 1000,
    samples: Annotated[
        int, typer.Option(min=0, metavar="N", help="Questions to calibrate by; 0 leaves it out.")
    ] = 32,
    concurrency: Annotated[int, typer.Option(min=1, metavar="N", help="Requests at a time.")] = 32,
    max_tokens: Annotated[
        int, typer.Option(min=1, metavar="N", help="Answer so many tokens at most.")
    ] = 64,
    dtype: Annotated[str, typer.Option(metavar="TYPE", help="As serve takes it.")] = "auto",
    device: Annotated[str, typer.Option(metavar="DEVICE", help="As serve takes it.")] = "auto",
) -> None:
    """Evaluate all policies on all data sets of a folder, and find policies for the model.

    The same command goes on where it was stopped.
    """
    choices = read_policies(policies or ["all"], "--policies")
    # The rest needs numpy and scipy, which would slow every other command down.
    from skipserve_client.evaluate.session import Order  # noqa: PLC0415
    from skipserve_training.calibration.commands import calibrate  # noqa: PLC0415
    from skipserve_training.reproduce import reproducing  # noqa: PLC0415

    if report.exists() and not report.is_dir():
        raise CommandError(f"--report {report}: this is a file; name a folder")
    console = Console(stderr=True)
    sources = reproducing.sources_in(data)
    order = Order(
        data="",
        data_folder=None,
        policies=choices,
        count=count,
        url=None,
        api_key=None,
        serve_flags=[
            "--host", "127.0.0.1", "--model", model, "--dtype", dtype, "--device", device,
        ],
        concurrency=concurrency,
        max_tokens=max_tokens,
        output=None,
    )  # fmt: skip
    found = reproducing.evaluate_all(
        sources, order, report, lambda name: console.rule(name, align="left")
    )
    # Where answers are not right or wrong, policies cannot be confirmed.
    fitting = [it for it in sources if samples and found[it.name].metric.tells_right]
    if fitting:
        console.rule(f"policies for this model, on {fitting[0].name}", align="left")
        calibrate(
            model=model,
            data=fitting[0].data,
            data_folder=fitting[0].folder,
            budget=None,
            samples=samples,
            confirm=count,
            concurrency=concurrency,
            max_tokens=max_tokens,
            output=report / "policies.yaml",
            report=report / "calibration",
            dtype=dtype,
            device=device,
        )
    tables = report / _TABLES
    tables.write_text(reproducing.tables(found, fitting[0].name if fitting else None), "utf-8")
    console.print(f"all tables are in {tables}", highlight=False, soft_wrap=True)
