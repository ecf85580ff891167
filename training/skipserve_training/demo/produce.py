"""From nothing to a checkpoint: trains, answers the held-out questions, writes the files."""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from skipserve_client.evaluate.scoring import Score, score
from skipserve_training.checkpoint_files import write_checksums, write_record
from skipserve_training.demo.export import export
from skipserve_training.demo.held_out import answer_held_out
from skipserve_training.demo.model import DemoModel
from skipserve_training.demo.ranks import started
from skipserve_training.demo.recipe import Recipe
from skipserve_training.demo.record import Environment, make_record
from skipserve_training.demo.run_folder import StageFolder
from skipserve_training.demo.similarity import sibling_cosines
from skipserve_training.demo.tokenizer import train_tokenizer
from skipserve_training.demo.training import ProgressFunction, can_compile, train_rank
from skipserve_training.demo.warm_start import Predecessor, begin_after
from skipserve_training.run_folder import claim

CHECKPOINT_FOLDER = "checkpoint"
_CPU_RANKS = 2  # fixed: the number of ranks changes the sums, and so the model


@dataclass(frozen=True)
class Product:
    """What a finished training leaves."""

    checkpoint: Path
    held_out: Score


def produce(
    recipe: Recipe,
    path: Path,
    device: torch.device,
    progress: ProgressFunction,
    predecessor: Predecessor | None = None,
) -> Product:
    """Make the checkpoint `path/checkpoint`, from where an earlier run stopped if there is one.

    Raises:
        ValueError: The run's folder or the predecessor belongs to another recipe.
    """
    folder = StageFolder(path)
    claim(path, recipe)
    if predecessor is not None:
        begin_after(predecessor, recipe, folder)
    ranks = _CPU_RANKS if device.type == "cpu" else 1
    with started(ranks, train_rank, recipe, path, device) as this_rank:
        model = train_rank(this_rank, recipe, path, device, progress)
    environment = Environment(device.type, ranks, torch.get_num_threads(), can_compile(device))
    return _finish(recipe, folder, model, environment)


def _finish(
    recipe: Recipe, folder: StageFolder, model: DemoModel, environment: Environment
) -> Product:
    tokenizer = train_tokenizer(recipe.vocabulary)
    held_out = score(answer_held_out(model, tokenizer, recipe.held_out_questions))
    cosines = sibling_cosines(model, recipe.stages[-1].layers // recipe.stages[0].layers)
    checkpoint = folder.path / CHECKPOINT_FOLDER
    export(model, tokenizer, checkpoint)
    record = make_record(recipe, environment, folder.summaries(), held_out, cosines)
    origin = folder.origin()
    write_record(checkpoint, record | {"began_from": None if origin is None else asdict(origin)})
    write_checksums(checkpoint)
    return Product(checkpoint, held_out)
