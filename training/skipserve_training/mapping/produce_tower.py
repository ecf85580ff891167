"""From easy-VQA to an exported tower and its score."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from skipserve_client.evaluate.easy_vqa import read_easy_vqa
from skipserve_training.checkpoint_files import versions, write_record
from skipserve_training.mapping.tower import TowerScore, score_tower
from skipserve_training.mapping.tower_export import export_tower
from skipserve_training.mapping.tower_training import (
    TowerCheckpoint,
    TowerRecipe,
    load_pictures,
    train_tower,
)
from skipserve_training.run_folder import RunFolder, claim

CHECKPOINT_FOLDER = "checkpoint"
_PACKAGES = ("torch", "transformers", "safetensors", "numpy", "pillow")


def produce_tower(
    recipe: TowerRecipe,
    easy_vqa: Path,
    out: Path,
    report: Callable[[str, int, int, float], None],
) -> TowerScore:
    """Make the tower `out/checkpoint`, from where an earlier run stopped if there is one."""
    folder = RunFolder(out, TowerCheckpoint)
    pictures = load_pictures(read_easy_vqa(easy_vqa, "train"))
    claim(folder.path, recipe)
    tower, clock = train_tower(
        recipe, pictures, folder, lambda step, loss: report("tower", step, recipe.steps, loss)
    )
    export_tower(tower, out / CHECKPOINT_FOLDER)
    score = score_tower(tower, load_pictures(read_easy_vqa(easy_vqa, "test")))
    write_record(
        out / CHECKPOINT_FOLDER,
        {
            "seed": recipe.seed,
            "versions": versions(_PACKAGES),
            "recipe": asdict(recipe),
            "wall_seconds": round(clock.wall(), 1),
            "cpu_seconds": round(clock.cpu(), 1),
            "held_out": asdict(score),
        },
    )
    return score
