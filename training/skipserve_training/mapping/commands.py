"""`skipserve train tower`, `mapping`, `recover`, `export` and `ask`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from skipserve_policies.catalog import nearest_names
from skipserve_policies.named import load_policies
from skipserve_training.progress import Bars, progress_bars

if TYPE_CHECKING:
    from skipserve_training.mapping.held_out import KindScore

_OUT = typer.Option(help="The run's folder; an earlier run there goes on.")
_EasyVqa = typer.Option(help="The unpacked package easy-vqa, or its folder 'data'.")


def tower(
    easy_vqa: Annotated[Path, _EasyVqa],
    out: Annotated[Path, _OUT],
    steps: Annotated[int, typer.Option(min=1, help="Steps of 64 pictures.")] = 1500,
    seed: Annotated[int, typer.Option(help="Draws the weights and the pictures.")] = 20,
) -> None:
    """Train a small vision tower on easy-VQA's labels, to be frozen before a mapping module."""
    # Torch takes seconds to import, which `skipserve --help` must not.
    from skipserve_training.mapping.produce_tower import produce_tower  # noqa: PLC0415
    from skipserve_training.mapping.tower_training import TowerRecipe  # noqa: PLC0415

    console = Console()
    try:
        with progress_bars(console) as progress:
            recipe = TowerRecipe(steps=steps, seed=seed)
            score = produce_tower(recipe, easy_vqa, out, Bars(progress))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    console.print(
        f"Pictures of the test split: {score.n}; colour {score.colour:.1%}, shape {score.shape:.1%}"
    )
    console.print(f"The tower is in {out / 'checkpoint'}")


def mapping(  # noqa: PLR0913, PLR0917 (an argument a flag)
    data: Annotated[str, typer.Option(help="FORM:FOLDER, as easy-vqa, vqa, captions.")],
    llm: Annotated[Path, typer.Option(help="The frozen language model: LLaMA's or OPT's type.")],
    encoder: Annotated[Path, typer.Option(help="The frozen encoder: CLIP, ViT, TimeSformer, AST.")],
    out: Annotated[Path, _OUT],
    steps: Annotated[int, typer.Option(min=1, help="Steps of the optimizer.")],
    projector: Annotated[str, typer.Option(help="mapping or mlp.")] = "mapping",
    pictures: Annotated[int, typer.Option(min=1, help="Media a step, over all processes.")] = 8,
    rate: Annotated[float, typer.Option(min=0.0, help="The peak of the rates.")] = 2e-4,
    warmup: Annotated[int, typer.Option(min=0, help="Steps up to the peak.")] = 100,
    layer: Annotated[int, typer.Option(help="Which hidden state is read; -1: the output.")] = -1,
    drop_class: Annotated[bool, typer.Option("--drop-class", help="Leave out row 0.")] = False,
    views: Annotated[int, typer.Option(min=1, help="Variants of a picture (easy-vqa).")] = 1,
    seed: Annotated[int, typer.Option(help="Draws weights, order and questions.")] = 20,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train a projector between a frozen encoder and a frozen language model.

    On several GPUs: accelerate launch $(which skipserve) train mapping ...
    """
    from skipserve_training.devices import find_device  # noqa: PLC0415
    from skipserve_training.mapping.produce import MappingJob, produce  # noqa: PLC0415
    from skipserve_training.mapping.projectors import ProjectorType  # noqa: PLC0415
    from skipserve_training.mapping.recipe import MappingRecipe  # noqa: PLC0415

    console = Console()
    try:
        recipe = MappingRecipe(
            steps, ProjectorType(projector), pictures=pictures, rate=rate, warmup=warmup, seed=seed
        )
        job = MappingJob(recipe, data, str(llm), str(encoder), layer, not drop_class, views)
        with progress_bars(console) as progress:
            product = produce(job, out, find_device(device), Bars(progress))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if not product.is_told:
        return
    if product.held_out:
        console.print(_score_table(product.held_out, "trained"))
    console.print(f"What was trained is in {product.checkpoint}")


def recover(  # noqa: PLR0913, PLR0917 (an argument a flag)
    model: Annotated[
        str,
        typer.Option(help="A model that the server loads: a name such as smolvqa, or a folder."),
    ],
    data: Annotated[str, typer.Option(help="FORM:FOLDER, as of `train mapping`.")],
    questions: Annotated[int, typer.Option(min=1, help="To train with, to the next whole step.")],
    out: Annotated[Path, _OUT],
    policy: Annotated[str, typer.Option(help="The skip policy that it is trained under.")] = "full",
    policies: Annotated[
        Path | None, typer.Option(help="A YAML file that adds policies, as `serve` takes it.")
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option("--from", help="A folder whose module is trained on; without: the model's."),
    ] = None,
    pictures: Annotated[int, typer.Option(min=1, help="Media a step, over all processes.")] = 3,
    rate: Annotated[float, typer.Option(min=0.0, help="The peak of the rates.")] = 1e-3,
    warmup: Annotated[int, typer.Option(min=0, help="Steps up to the peak.")] = 20,
    views: Annotated[int, typer.Option(min=1, help="Variants of a picture (easy-vqa).")] = 4,
    held_out: Annotated[
        int | None, typer.Option(min=1, help="Questions to score before and after; without: all.")
    ] = None,
    features: Annotated[
        Path | None, typer.Option(help="A folder of features that runs share; without: --out.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws order and questions.")] = 20,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train a model's module on, under a skip policy or on compressed weights."""
    from skipserve.model_folder import StartError, model_folder  # noqa: PLC0415
    from skipserve_training.devices import find_device  # noqa: PLC0415
    from skipserve_training.mapping import recovery  # noqa: PLC0415
    from skipserve_training.mapping.served import CHECKPOINT_FOLDER  # noqa: PLC0415

    console = Console()
    try:
        folder = model_folder(model)
        job = recovery.RecoveryJob(
            model=str(folder),
            data=data,
            policy_name=policy,
            policy=_rules(policy, folder, policies),
            questions=questions,
            module=None if source is None else str(source),
            seed=seed,
            pictures=pictures,
            rate=rate,
            warmup=warmup,
            views=views,
            held_out=held_out,
        )
        with progress_bars(console) as progress:
            result = recovery.recover(job, out, find_device(device), Bars(progress), features)
    except (ValueError, StartError) as error:
        raise typer.BadParameter(str(error)) from error
    if not result.is_told:
        return
    for title, scores in (("before", result.before), ("after", result.after)):
        if scores:
            console.print(_score_table(scores, f"{title}, under {policy}"))
    console.print(f"What was trained is in {out / CHECKPOINT_FOLDER}")


def export(
    run: Annotated[Path, typer.Option(help="The folder of a finished `train recover`.")],
    out: Annotated[Path, typer.Option(help="Where what ships goes; card and quality there stay.")],
    base: Annotated[
        str,
        typer.Option(help="The model that it goes on from: a name such as smolvqa, or a folder."),
    ] = "smolvqa",
    masks: Annotated[
        Path | None,
        typer.Option(help="Of weights that were zeroed: the masks that `train compress` wrote."),
    ] = None,
    policy: Annotated[
        str | None, typer.Option(help="What the policy is called; without: as in the run.")
    ] = None,
    description: Annotated[
        str, typer.Option(help="What the policy does, for lists.")
    ] = "What this model's module was trained under.",
) -> None:
    """Write what differs of a model that was trained on from another, and is built of that."""
    from skipserve.model_folder import StartError, model_folder  # noqa: PLC0415
    from skipserve_training.mapping.shipping import Shipment, ship  # noqa: PLC0415

    try:
        shipment = Shipment(run, model_folder(base), masks, policy, description)
        ship(shipment, out)
    except (ValueError, StartError) as error:
        raise typer.BadParameter(str(error)) from error
    typer.echo(f"What ships is in {out}; with {base} it makes the weights that were trained")


def ask(  # noqa: PLR0913, PLR0917 (an argument a flag)
    model: Annotated[str, typer.Option(help="What `train mapping` left: RUN/checkpoint.")],
    media: Annotated[Path, typer.Option(help="A picture, a folder of frames, or a .wav sound.")],
    question: Annotated[
        str | None, typer.Option(help="What is asked; without: the medium is told of.")
    ] = None,
    policy: Annotated[str, typer.Option(help="The skip policy that it answers under.")] = "full",
    policies: Annotated[
        Path | None, typer.Option(help="A YAML file that adds policies, as `serve` takes it.")
    ] = None,
    beams: Annotated[int, typer.Option(min=1, help="Of the search; 1 is greedy.")] = 1,
    max_tokens: Annotated[int, typer.Option(min=1, help="Of the answer.")] = 30,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Let a model answer about a file, in the training's own forward: sounds and videos, too."""
    import torch  # noqa: PLC0415

    from skipserve.model_folder import StartError, model_folder  # noqa: PLC0415
    from skipserve_training.devices import find_device  # noqa: PLC0415
    from skipserve_training.mapping import ask as asking  # noqa: PLC0415
    from skipserve_training.mapping.served import open_model  # noqa: PLC0415

    try:
        folder = model_folder(model)
        opened = open_model(folder, torch.bfloat16, find_device(device))
        planned = asking.under(opened, policy, _rules(policy, folder, policies))
        said = asking.ask(planned, media, question, limit=max_tokens, num_beams=beams)
    except (ValueError, StartError) as error:
        raise typer.BadParameter(str(error)) from error
    typer.echo(said)


def _rules(name: str, folder: Path, file: Path | None) -> dict[str, Any]:
    """Spell out a policy of the catalog, of the model, or of a file."""
    catalog = load_policies(folder, file).by_name
    if name not in catalog:
        nearest = ", ".join(nearest_names(name, catalog))
        raise ValueError(f"policy: {name!r} is unknown; the nearest: {nearest}.")
    return catalog[name].model_dump(
        mode="json", by_alias=True, exclude_defaults=True, include={"rules", "num_layers"}
    )


def _score_table(held_out: "dict[str, KindScore]", which: str) -> Table:
    table = Table(title=f"easy-VQA's test split, {which}: greedy, exact answers with their end")
    for column in ("type", "accuracy", "interval", "blind", "questions"):
        table.add_column(column, justify="left" if column == "type" else "right")
    for name, kind in held_out.items():
        interval = f"{kind.low:.1%} to {kind.high:.1%}"
        table.add_row(name, f"{kind.accuracy:.1%}", interval, f"{kind.blind:.1%}", str(kind.n))
    return table
