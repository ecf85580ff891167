"""`skipserve train paper`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from skipserve_training.paper.work import RECORDS, RUNS, own_work, run, shipped_work

if TYPE_CHECKING:
    from skipserve_training.paper.own import Own

_OWN = "A model of your own"


def paper(  # noqa: PLR0913, PLR0917 (an argument a flag)
    only: Annotated[
        str, typer.Option(metavar="PATTERN", help="Cells whose names fit, as 'training-*'.")
    ] = "*",
    has_extra: Annotated[
        bool, typer.Option("--all", help="Long cells too, which six hours do not hold.")
    ] = False,
    lists: Annotated[
        bool, typer.Option("--list", help="Say what would be run; run nothing.")
    ] = False,
    records: Annotated[
        Path | None,
        typer.Option(help=f"The folder of records; without: {RECORDS}, or RUNS/records."),
    ] = None,
    runs: Annotated[
        Path | None, typer.Option(help=f"Where trainings go on from; without: {RUNS}...")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="FORM:FOLDER, as of `train mapping`; without: the easy-vqa that `fetch` brought."
        ),
    ] = None,
    beams: Annotated[
        int, typer.Option(min=1, help="Of the search for an answer; 1 is greedy, the paper has 3.")
    ] = 1,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    llm: Annotated[
        Path | None,
        typer.Option(help="A language model of LLaMA's or OPT's type.", rich_help_panel=_OWN),
    ] = None,
    encoder: Annotated[
        Path | None,
        typer.Option(help="An encoder: CLIP, ViT, TimeSformer, AST.", rich_help_panel=_OWN),
    ] = None,
    test: Annotated[
        str | None,
        typer.Option(
            help="What is asked about, FORM:FOLDER; without: a tenth of the data's media.",
            rich_help_panel=_OWN,
        ),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(help="What else alpha-SubNet keeps weights for.", rich_help_panel=_OWN),
    ] = None,
    layer: Annotated[
        int | None,
        typer.Option(help="Which hidden state is read; -1: the output.", rich_help_panel=_OWN),
    ] = None,
    drop_class: Annotated[
        bool, typer.Option("--drop-class", help="Leave out row 0.", rich_help_panel=_OWN)
    ] = False,
    asked: Annotated[
        int | None,
        typer.Option(min=1, help="Questions that each cell is asked.", rich_help_panel=_OWN),
    ] = None,
    questions: Annotated[
        int | None,
        typer.Option(min=1, help="To train with; without: 20 epochs.", rich_help_panel=_OWN),
    ] = None,
    more_questions: Annotated[
        int | None,
        typer.Option(
            min=1, help="To train each cell on with; without: a tenth.", rich_help_panel=_OWN
        ),
    ] = None,
    pictures: Annotated[
        int | None, typer.Option(min=1, help="Media a step.", rich_help_panel=_OWN)
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.0, help="The peak of the rates.", rich_help_panel=_OWN)
    ] = None,
    warmup: Annotated[
        int | None, typer.Option(min=0, help="Steps up to the peak.", rich_help_panel=_OWN)
    ] = None,
    calibration: Annotated[
        int | None,
        typer.Option(min=1, help="Media that Wanda looks at.", rich_help_panel=_OWN),
    ] = None,
) -> None:
    """Measure what the paper claims, cell by cell; what has a record is not measured again.

    On the models that ship, or with --llm, --encoder and --data on any others.
    """
    given = {
        "test": test, "tasks": None if task is None else tuple(task), "layer": layer,
        "keeps_class": False if drop_class else None, "asked": asked, "questions": questions,
        "more_questions": more_questions, "pictures": pictures, "rate": rate, "warmup": warmup,
        "media": calibration,
    }  # fmt: skip
    options = {name: value for name, value in given.items() if value is not None}
    try:
        if llm is None:
            _check_unused(encoder=encoder, **options)
            work = shipped_work(data, beams, device, records or RECORDS, runs or RUNS)
        else:
            own = _own(llm, encoder, data, options | {"num_beams": beams})
            work = own_work(own, device, records, runs)
        run(work, only, has_extra=has_extra, lists=lists)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _check_unused(**options: object) -> None:
    """Refuse what would have no effect on the models that ship."""
    for name, value in options.items():
        if value is not None:
            raise ValueError(
                f"--{_FLAGS.get(name, name.replace('_', '-'))} has no effect without --llm."
            )


# Options whose names are not those of what they set.
_FLAGS = {"tasks": "task", "keeps_class": "drop-class", "media": "calibration"}


def _own(llm: Path, encoder: Path | None, data: str | None, options: dict[str, Any]) -> "Own":
    from skipserve_training.paper.own import Own  # noqa: PLC0415

    if encoder is None or data is None:
        missing = "encoder" if encoder is None else "data"
        raise ValueError(f"--{missing} is missing: --llm takes --encoder and --data with it.")
    return Own(llm, encoder, data, **options)
