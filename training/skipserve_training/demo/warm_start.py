"""Begins a run where a checkpoint of the recipe's first stages ended."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from skipserve.pretrained.places import RECORD
from skipserve_training.demo.imports import read_checkpoint
from skipserve_training.demo.model import ModelSizes
from skipserve_training.demo.recipe import Recipe
from skipserve_training.demo.run_folder import Checkpoint, Origin, StageFolder, StageSummary
from skipserve_training.demo.tokenizer import train_tokenizer

_MEASURING = ("stages", "held_out_questions")  # of a recipe: compared apart, or free to change


@dataclass(frozen=True)
class Predecessor:
    """A checkpoint with what its record says of the stages that made it."""

    folder: Path
    stages: tuple[StageSummary, ...]
    recipe: dict[str, Any]

    @property
    def origin(self) -> Origin:
        """What a later record says of it."""
        digest = hashlib.sha256((self.folder / "model.safetensors").read_bytes()).hexdigest()
        return Origin(digest, tuple(stage.name for stage in self.stages))


def read_predecessor(folder: Path) -> Predecessor:
    """Read the record of a checkpoint.

    Raises:
        ValueError: There is none, or it is not one of this recipe's.
    """
    path = folder / RECORD
    try:
        record = json.loads(path.read_text())
        stages = tuple(StageSummary(**stage) for stage in record["stages"])
        return Predecessor(folder, stages, record["recipe"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no record of a demo's training: {error}") from error


def begin_after(predecessor: Predecessor, recipe: Recipe, folder: StageFolder) -> None:
    """Put a new run behind the stages of a predecessor; a run that has begun goes on.

    Raises:
        ValueError: The predecessor is not made by the first stages of this recipe, or the run
            began elsewhere.
    """
    origin = predecessor.origin
    if folder.origin() is not None or folder.load() is not None:
        if folder.origin() != origin:
            raise ValueError(
                f"{folder.path} holds a run that did not begin from {predecessor.folder}: "
                "give another --out, or leave out --from."
            )
        return
    _check(predecessor, recipe)
    done = len(predecessor.stages)
    sizes = ModelSizes(recipe.vocabulary, recipe.stages[done - 1].layers)
    state = read_checkpoint(predecessor.folder, sizes)
    folder.save(Checkpoint(done, 0, 0.0, 0.0, model=state, optimizers=[]))
    for stage in predecessor.stages:
        folder.add_summary(stage)
    folder.note_origin(origin)


def _check(predecessor: Predecessor, recipe: Recipe) -> None:
    if len(predecessor.stages) >= len(recipe.stages):
        raise ValueError(f"{predecessor.folder} went through all stages: nothing is left to train.")
    ours: dict[str, Any] = json.loads(json.dumps(asdict(recipe)))
    theirs = predecessor.recipe
    shared = [name for name in theirs if name in ours and name not in _MEASURING]
    different = [name for name in shared if theirs[name] != ours[name]]
    for number, stage in enumerate(theirs["stages"][: len(predecessor.stages)]):
        mine = ours["stages"][number]
        different += [f"stages[{number}].{key}" for key in stage if stage[key] != mine.get(key)]
    if different:
        raise ValueError(
            f"{predecessor.folder} was trained by another recipe: {', '.join(different)} differ."
        )
    words = Tokenizer.from_file(str(predecessor.folder / "tokenizer.json"))
    if words.get_vocab() != train_tokenizer(recipe.vocabulary).get_vocab():
        raise ValueError(f"{predecessor.folder} has another tokenizer than this recipe makes.")
