"""The record that ships beside a checkpoint: what made it, what it took, what it reached."""

import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from skipserve_client.evaluate.scoring import Score
from skipserve_training.checkpoint_files import versions
from skipserve_training.demo.recipe import Recipe
from skipserve_training.demo.run_folder import StageSummary

_PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "numpy", "pillow")


@dataclass(frozen=True)
class Environment:
    """Where a training ran; equal ones give equal models."""

    device: str
    ranks: int
    threads_per_rank: int
    is_compiled: bool


def make_record(
    recipe: Recipe,
    environment: Environment,
    stages: Sequence[StageSummary],
    held_out: Score,
    neighbour_cosines: dict[str, float],
) -> dict[str, object]:
    """Collect everything about one training, ready for JSON."""
    below = [name for name, kind in held_out.types.items() if not kind.is_above_majority]
    return {
        "seed": recipe.seed,
        "versions": versions(_PACKAGES),
        "machine": platform.machine(),
        "surroundings": asdict(environment),
        "recipe": asdict(recipe),
        "stages": [asdict(stage) for stage in stages],
        "steps": sum(stage.steps for stage in stages),
        "wall_seconds": round(sum(stage.wall_seconds for stage in stages), 1),
        "cpu_seconds": round(sum(stage.cpu_seconds for stage in stages), 1),
        "held_out": asdict(held_out),
        "types_too_near_their_majority": below,
        "neighbour_cosines": neighbour_cosines,
        "trained_with_skip_policies": False,
    }
