"""From data, an encoder and a language model to a trained projector, its score and its files."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors.torch import save_file

from skipserve.pretrained.places import RECORD
from skipserve_client.evaluate.easy_vqa import read_easy_vqa
from skipserve_training.checkpoint_files import versions, write_checksums, write_record
from skipserve_training.mapping.easy_vqa_lessons import EasyLessons
from skipserve_training.mapping.encoders import TransformersEncoder
from skipserve_training.mapping.encoding import Encoding, ReportFunction, say_nothing
from skipserve_training.mapping.export import (
    CAPTION_TEMPLATE,
    CHAT_TEMPLATE,
    export_trained,
    export_whole,
    projector_tensors,
)
from skipserve_training.mapping.held_out import KindScore, score_held_out
from skipserve_training.mapping.language import load_language_model, load_tokenizer
from skipserve_training.mapping.lessons import CAPTION, PromptForm
from skipserve_training.mapping.parts import Parts
from skipserve_training.mapping.projectors import Projector, make_projector
from skipserve_training.mapping.recipe import MappingRecipe
from skipserve_training.mapping.served import CHECKPOINT_FOLDER, PROJECTOR_WEIGHTS
from skipserve_training.mapping.sources import EASY_VQA, read_source, split_source
from skipserve_training.mapping.training import Checkpoint, Course, make_accelerator, train
from skipserve_training.run_folder import Clock, RunFolder, claim

TRAINED_FOLDER = "trained"
_PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "accelerate", "numpy", "pillow")


@dataclass(frozen=True)
class MappingJob:
    """A training and everything that it stands on, by name.

    Attributes:
        recipe: what the training does.
        data: FORM:FOLDER.
        language_model: a folder that transformers loads.
        encoder: another.
        layer: which of the encoder's hidden states is read; -1 is its output.
        keeps_class: whether the encoder's first row, that of the class, is read.
        views: variants of each picture, which only easy-VQA has.
    """

    recipe: MappingRecipe
    data: str
    language_model: str
    encoder: str
    layer: int = -1
    keeps_class: bool = True
    views: int = 1

    def __post_init__(self) -> None:
        """Refuse what would be ignored.

        Raises:
            ValueError: The data set has no variants of its pictures.
        """
        form = self.form
        if self.views > 1 and form != EASY_VQA:
            raise ValueError(f"views is {self.views}: only {EASY_VQA} has more than 1.")

    @property
    def form(self) -> str:
        """Return the form of the data set."""
        return split_source(self.data)[0]


@dataclass(frozen=True)
class Product:
    """What a finished training leaves.

    Attributes:
        projector: what was trained.
        held_out: the scores, where the data set has a test split.
        checkpoint: the whole model.
        is_told: whether this process is the one that speaks for all.
    """

    projector: Projector
    held_out: dict[str, KindScore]
    checkpoint: Path
    is_told: bool


def produce(
    job: MappingJob,
    out: Path,
    device: torch.device,
    report: ReportFunction,
    features: Path | None = None,
) -> Product:
    """Train, from where an earlier run in `out` stopped, score, and write what was trained.

    Args:
        job: what is done.
        out: the run's folder.
        device: where.
        report: called with what is under way.
        features: a folder of features that runs of one encoder and data set share; None for `out`.

    Raises:
        ValueError: The job names what is not there or does not fit, or `out` is another job's.
    """
    recipe = job.recipe
    accelerator = make_accelerator(device)
    if not accelerator.is_main_process:
        report = say_nothing
    lessons = read_source(job.data)
    language = load_language_model(Path(job.language_model), torch.bfloat16, accelerator.device)
    encoder = TransformersEncoder(Path(job.encoder), accelerator.device, job.layer, job.keeps_class)
    encoding = Encoding(features or out, encoder, accelerator, report)
    claim(out, job)  # not before all is there that the job names: a mistake can be mended
    encoded = encoding.of_lessons(lessons, job.views, recipe.seed)
    torch.manual_seed(recipe.seed)
    projector = make_projector(recipe.projector, encoded.width, language.width, recipe.sizes)
    projector.to(accelerator.device)
    parts = Parts(language, encoder, projector, load_tokenizer(Path(job.language_model)))
    rows = projector.rows(encoded.num_patches)
    prompts = PromptForm(parts.tokenizer, rows, lessons.kinds)
    clock = train(
        recipe,
        Course(language, lessons, encoded, prompts, job.views),
        projector,
        RunFolder(out, Checkpoint),
        accelerator,
        lambda step, loss: report("training", step, recipe.steps, loss),
    )
    projector.bfloat16().float()  # what is scored is what is written
    held_out: dict[str, KindScore] = {}
    if isinstance(lessons, EasyLessons):
        test = read_easy_vqa(split_source(job.data)[1], "test")
        held_out = score_held_out(
            Course(language, lessons, encoding.of_split(test), prompts),
            projector,
            (lessons.split, test),
            lambda done: report("test split", done, len(test.images), 0.0),
        )
    if accelerator.is_main_process:
        template = CAPTION_TEMPLATE if tuple(lessons.kinds) == (CAPTION,) else CHAT_TEMPLATE
        _write(parts, rows, template, out, _record(job, clock, held_out, accelerator))
    return Product(projector, held_out, out / CHECKPOINT_FOLDER, accelerator.is_main_process)


def _write(parts: Parts, rows: int, template: str, out: Path, record: dict[str, object]) -> None:
    """Write what was trained by itself, and the whole model, each with the record."""
    save_file(projector_tensors(parts.projector), out / PROJECTOR_WEIGHTS, {"format": "pt"})
    write_record(out, record)
    trained = out / TRAINED_FOLDER
    export_trained(parts, rows, trained, template)
    write_record(trained, record)
    write_checksums(trained)
    export_whole(trained, parts, out / CHECKPOINT_FOLDER)


def _record(
    job: MappingJob, clock: Clock, held_out: dict[str, KindScore], accelerator: Accelerator
) -> dict[str, object]:
    """Collect everything about one training, ready for JSON; folders by their last names."""
    named = {"language_model": job.language_model, "encoder": job.encoder}
    return {
        "seed": job.recipe.seed,
        "versions": versions(_PACKAGES),
        "device": str(accelerator.device),
        "processes": accelerator.num_processes,
        "threads": torch.get_num_threads(),
        "job": asdict(job)
        | {name: Path(folder).name for name, folder in named.items()}
        | {"data": job.form},
        "wall_seconds": round(clock.wall(), 1),
        "cpu_seconds": round(clock.cpu(), 1),
        "held_out": {kind: asdict(score) for kind, score in held_out.items()},
        "encoder": _own_record(Path(job.encoder)),
    }


def _own_record(folder: Path) -> object:
    """Return what a folder says of its own training, if it does."""
    path = folder / RECORD
    return json.loads(path.read_text()) if path.is_file() else None
