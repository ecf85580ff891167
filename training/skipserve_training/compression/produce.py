"""From a checkpoint to one with real zeros: calibrates, zeroes, writes, and says what was done."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from skipserve.model.weights import canonical_name, weights_digest
from skipserve_training.checkpoint_files import versions
from skipserve_training.compression.calibration import Calibration, draw_calibration
from skipserve_training.compression.card import write_card
from skipserve_training.compression.compress import Report, check, compress
from skipserve_training.compression.mask_files import Masks, write_masks
from skipserve_training.compression.recipe import CompressionRecipe
from skipserve_training.mapping.rewriting import COMPRESSION_RECORD, rewrite
from skipserve_training.mapping.served import CHECKPOINT_FOLDER, ServedModel, open_model
from skipserve_training.mapping.sources import read_source, split_source
from skipserve_training.run_folder import claim

MASKS = "masks.safetensors"
_LAYERS = "layers"
_PACKAGES = ("torch", "transformers", "safetensors", "numpy")


@dataclass(frozen=True)
class CompressionJob:
    """A compression and everything that it stands on, by name.

    Attributes:
        model: the folder of a checkpoint that the server loads.
        tasks: FORM:FOLDER each, what is calibrated on.
        media: of each task, how many are looked at.
        mask_file: which weights stay, where a file says so.
    """

    recipe: CompressionRecipe
    model: str
    tasks: tuple[str, ...] = ()
    media: int = 128
    mask_file: str | None = None


def produce_compressed(
    job: CompressionJob,
    out: Path,
    device: torch.device,
    progress: Callable[[str, int, int], None] = lambda task, done, total: None,
) -> Report:
    """Write `out/checkpoint` and `out/masks.safetensors`, from where an earlier run stopped.

    Raises:
        ValueError: The job names what is not there or does not fit, or `out` is another job's.
    """
    model = open_model(Path(job.model), torch.bfloat16, device)
    calibrations = _calibrations(job, model)
    mask_file = None if job.mask_file is None else Path(job.mask_file)
    check(model.language, job.recipe, calibrations, mask_file=mask_file)
    claim(out, job)  # not before all fits that the job names: a mistake can be mended
    masks, report = compress(
        model.language,
        job.recipe,
        calibrations,
        mask_file=mask_file,
        folder=out / _LAYERS,
        progress=progress,
    )
    write_masks(masks, out / MASKS)
    _write(job, model, masks, report, out)
    return report


def _calibrations(job: CompressionJob, model: ServedModel) -> Sequence[Calibration]:
    return [
        draw_calibration(
            split_source(task)[0], model, read_source(task), job.media, job.recipe.seed
        )
        for task in job.tasks
    ]


def _write(
    job: CompressionJob, model: ServedModel, masks: Masks, report: Report, out: Path
) -> None:
    """Write the checkpoint, with what was done beside it."""
    source, folder = model.folder, out / CHECKPOINT_FOLDER
    kept = {canonical_name(name): mask.cpu() for name, mask in masks.items()}
    rewrite(
        source,
        folder,
        lambda name, value: value.masked_fill(~kept[name], 0) if name in kept else value,
    )
    media = job.media if job.tasks else 0
    record = {
        "recipe": asdict(job.recipe),
        "model": {"name": model.name, "weights_sha256": weights_digest(source)},
        "tasks": [split_source(task)[0] for task in job.tasks],
        "media": media,
        "masks": None if job.mask_file is None else Path(job.mask_file).name,
        "report": asdict(report) | {"sparsity": report.sparsity},
        "weights_sha256": weights_digest(folder),
        "versions": versions(_PACKAGES),
    }
    (folder / COMPRESSION_RECORD).write_text(json.dumps(record, indent=2) + "\n")
    write_card(folder, model.name, job.recipe, report, media)
