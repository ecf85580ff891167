"""`skipserve calibrate`: finds and measures skip policies for a model and data of one's own."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from skipserve_client.command_group import CommandError
from skipserve_client.offline import SHIPPED
from skipserve_client.options import AsJson

if TYPE_CHECKING:
    from skipserve_training.calibration.calibrating import Calibration, Order

_BUDGETS = (0.9, 0.8, 0.7, 0.6, 0.5)
_JOURNAL = "measurements.jsonl"
_CPU_CACHE = 2**30


def calibrate(  # noqa: PLR0913, PLR0917 (an argument a flag)
    model: Annotated[
        str, typer.Option(metavar="NAME|PATH", help="The model to calibrate: a name or a folder.")
    ] = "demo",
    data: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE",
            help="Which questions, as `skipserve evaluate` takes them: demo, easy-vqa, a published "
            "data set, or a JSONL file of your own. The first ones rank "
            "policies, those behind them confirm what was found.",
        ),
    ] = "demo",
    data_folder: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where a published data set lies.")
    ] = None,
    budget: Annotated[
        list[float] | None,
        typer.Option(
            metavar="SHARE",
            help="Find the best policy that costs this share of the full model or less; several "
            f"by repeating. Default: {', '.join(map(str, _BUDGETS))}.",
        ),
    ] = None,
    cost: Annotated[
        str,
        typer.Option(
            metavar="flops|latency",
            help="What budgets are of: FLOPs by their formula, or time at --concurrency, measured.",
        ),
    ] = "flops",
    samples: Annotated[
        int, typer.Option(min=1, metavar="N", help="Questions that rank policies.")
    ] = 32,
    confirm: Annotated[
        int, typer.Option(min=1, metavar="N", help="Further questions, that confirm them.")
    ] = 400,
    concurrency: Annotated[
        int, typer.Option(min=1, metavar="N", help="Questions at a time, where time is measured.")
    ] = 16,
    max_tokens: Annotated[
        int, typer.Option(min=1, metavar="N", help="Answer so many tokens at most.")
    ] = 16,
    swaps: Annotated[
        int,
        typer.Option(min=0, metavar="N", help="Exchanges that are tried for each budget."),
    ] = 48,
    seed: Annotated[int, typer.Option(metavar="N", help="Draws what is tried.")] = 20,
    output: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write a file of policies, for `serve --policies`."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Write a page, pictures and a record, and keep all measurements: the same "
            "command goes on where it was stopped.",
        ),
    ] = None,
    dtype: Annotated[str, typer.Option(metavar="TYPE", help="As serve takes it.")] = "auto",
    device: Annotated[str, typer.Option(metavar="DEVICE", help="As serve takes it.")] = "auto",
    num_threads: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="CPU threads; torch's choice if not set.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Find skip policies that suit a model and data, and measure what they keep and save."""
    budgets = _checked_budgets(budget or _BUDGETS)
    _check_files(output, report)
    # Torch takes seconds to import, which `skipserve --help` must not.
    from skipserve.engine.limits import EngineLimits, EngineSpec  # noqa: PLC0415
    from skipserve_training.calibration.calibrating import CostKind, Order  # noqa: PLC0415
    from skipserve_training.calibration.questions import draw  # noqa: PLC0415
    from skipserve_training.calibration.search import Effort  # noqa: PLC0415

    if cost not in [*CostKind]:
        raise CommandError(f"--cost is {cost!r}: expected flops or latency")
    with _as_command_error():
        from skipserve.model_folder import model_folder  # noqa: PLC0415

        folder = model_folder(model)
        order = Order(
            model=model if model in SHIPPED else folder.name,
            spec=EngineSpec(
                folder, device, dtype, num_threads, EngineLimits(kv_cache_bytes=_cache(device))
            ),
            drawn=draw(data, data_folder, samples, confirm),
            budgets=budgets,
            cost=CostKind(cost),
            concurrency=concurrency,
            max_tokens=max_tokens,
            effort=Effort(swaps=swaps, seed=seed),
            journal=None if report is None else report / _JOURNAL,
        )
        _run(order, output, report, as_json=as_json)


def _run(order: "Order", output: Path | None, report: Path | None, *, as_json: bool) -> None:
    from skipserve_training.calibration.calibrating import calibrate  # noqa: PLC0415
    from skipserve_training.calibration.policies_file import (  # noqa: PLC0415
        MeasuredOn,
        write_policies,
    )
    from skipserve_training.calibration.record import notes_of, policies_json  # noqa: PLC0415
    from skipserve_training.progress import Stages  # noqa: PLC0415

    if report is not None:
        report.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True)
    with Stages(console) as stages:
        found = calibrate(order, stages, stages.say)
    notes = notes_of(found, order.budgets)
    named = {name: it.confirmed for name, it in found.found.items()}
    if as_json:
        typer.echo(json.dumps(policies_json(found) | {"notes": notes}, indent=2))
    else:
        _show(found, notes)
    if output is not None:
        digest = found.conditions["model_digest"]
        measured_on = MeasuredOn(order.model, digest, order.drawn.name)
        write_policies(output, named, found.full, measured_on)
        console.print(f"serve them with --policies {output}", highlight=False, soft_wrap=True)
    if report is not None:
        from skipserve_training.calibration.report import write_report  # noqa: PLC0415

        page = write_report(found, notes, report)
        console.print(f"the report is {page}", highlight=False, soft_wrap=True)


def _show(found: "Calibration", notes: Sequence[str]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    # What is typed next is never cut; a narrow terminal breaks intervals from their shares.
    table.add_column("policy", no_wrap=True)
    for title in ("right", "of full's", "same as full's", "FLOPs", "seconds"):
        table.add_column(title, justify="right", overflow="fold")
    table.add_row("full", str(found.full.accuracy), "", "", "100.0 %", "100.0 %")
    for name, it in found.found.items():
        confirmed = it.confirmed
        table.add_row(
            name,
            str(confirmed.accuracy),
            str(confirmed.retention or ""),
            str(confirmed.agreement),
            f"{100 * confirmed.cost:.1f} %",
            f"{100 * it.time:.1f} %",
        )
    console = Console()
    console.print(table)
    for note in notes:
        console.print(note, style="dim", markup=False)


@contextmanager
def _as_command_error() -> Iterator[None]:
    """Tell of what a user can mend in one line."""
    from skipserve.errors import SkipserveError  # noqa: PLC0415
    from skipserve.model.config import ModelFilesError  # noqa: PLC0415
    from skipserve.model_folder import StartError  # noqa: PLC0415
    from skipserve.prompt.tokenizer_files import TokenizerFilesError  # noqa: PLC0415

    known: Any = (SkipserveError, ModelFilesError, StartError, TokenizerFilesError, OSError)
    try:
        yield
    except known as error:
        raise CommandError(str(error)) from error


def _cache(device: str) -> int | None:
    """Return how much memory keys and values get: on a CPU less than a server takes."""
    from skipserve.engine.loading import resolve_device  # noqa: PLC0415

    return _CPU_CACHE if resolve_device(device).type == "cpu" else None


def _checked_budgets(budgets: Sequence[float]) -> tuple[float, ...]:
    for budget in budgets:
        if not 0 < budget < 1:
            raise CommandError(
                f"--budget is {budget:g}: expected a share of the full model's cost between 0 and 1"
            )
    return tuple(sorted(set(budgets), reverse=True))


def _check_files(output: Path | None, report: Path | None) -> None:
    """Refuse what could not be written in the end, before an hour of work."""
    if output is not None and (output.is_dir() or not output.absolute().parent.is_dir()):
        raise CommandError(f"--output {output}: name a file in a folder that is there")
    if report is not None and report.exists() and not report.is_dir():
        raise CommandError(f"--report {report}: this is a file; name a folder")
