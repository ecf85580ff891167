"""From data, an encoder and a language model to a trained projector, its score and its files."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors.torch import save_file

from skipserve.pretrained.joining import join
from skipserve.pretrained.places import RECORD
from skipserve_client.evaluate.easy_vqa import read_easy_vqa
from skipserve_training.checkpoint_files import versions, write_checksums, write_record
from skipserve_training.mapping.easy_vqa_lessons import EasyLessons
from skipserve_training.mapping.encoders import TransformersEncoder
from skipserve_training.mapping.encoding import Encoding, ReportFunction, say_nothing
from skipserve_training.mapping.export import export_trained, projector_tensors
from skipserve_training.mapping.held_out import KindScore, score_held_out
from skipserve_training.mapping.language import load_language_model, load_tokenizer
from skipserve_training.mapping.lessons import PromptForm
from skipserve_training.mapping.projectors import Projector, make_projector
from skipserve_training.mapping.recipe import MappingRecipe
from skipserve_training.mapping.served import CHECKPOINT_FOLDER, PROJECTOR_WEIGHTS
from skipserve_training.mapping.sources import EASY_VQA, read_source, split_source
from skipserve_training.mapping.tower_export import FEATURE_LAYER
from skipserve_training.mapping.training import Checkpoint, Course, make_accelerator, train
from skipserve_training.run_folder import Clock, RunFolder, claim

IMAGE = "<image>"  # the token that stands for a picture's rows in what is served

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

    @property
    def is_servable(self) -> bool:
        """Say whether the server knows models of such parts: CLIP and LLaMA, as LLaVA-1.5's."""
        types = (_type_of(self.encoder), _type_of(self.language_model))
        is_llava = (self.layer, self.keeps_class) == (FEATURE_LAYER, False)
        return is_llava and types == ("clip_vision_model", "llama")


@dataclass(frozen=True)
class Product:
    """What a finished training leaves.

    Attributes:
        projector: what was trained.
        held_out: the scores, where the data set has a test split.
        checkpoint: the whole model, where the server knows models of such parts.
        is_told: whether this process is the one that speaks for all.
    """

    projector: Projector
    held_out: dict[str, KindScore]
    checkpoint: Path | None
    is_told: bool


def produce(job: MappingJob, out: Path, device: torch.device, report: ReportFunction) -> Product:
    """Train, from where an earlier run in `out` stopped, score, and write what was trained."""
    recipe = job.recipe
    accelerator = make_accelerator(device)
    if not accelerator.is_main_process:
        report = say_nothing
    lessons = read_source(job.data)
    language = load_language_model(Path(job.language_model), torch.bfloat16, accelerator.device)
    encoder = TransformersEncoder(Path(job.encoder), accelerator.device, job.layer, job.keeps_class)
    encoding = Encoding(out, encoder, accelerator, report)
    claim(out, job)  # not before all is there that the job names: a mistake can be mended
    features = encoding.of_lessons(lessons, job.views, recipe.seed)
    torch.manual_seed(recipe.seed)
    projector = make_projector(recipe.projector, features.width, language.width, recipe.sizes)
    projector.to(accelerator.device)
    tokenizer = load_tokenizer(Path(job.language_model))
    prompts = PromptForm(tokenizer, projector.rows(features.num_patches), lessons.kinds)
    clock = train(
        recipe,
        Course(language, lessons, features, prompts, job.views),
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
    checkpoint = None
    if job.is_servable and IMAGE in tokenizer.get_vocab():
        checkpoint = out / CHECKPOINT_FOLDER
    if accelerator.is_main_process:
        record = _record(job, clock, held_out, accelerator)
        save_file(projector_tensors(projector), out / PROJECTOR_WEIGHTS, {"format": "pt"})
        write_record(out, record)
        if checkpoint is not None:
            _export(job, projector, tokenizer.get_vocab()[IMAGE], out, record)
    return Product(projector, held_out, checkpoint, accelerator.is_main_process)


def _export(
    job: MappingJob,
    projector: Projector,
    image_id: int,
    out: Path,
    record: dict[str, object],
) -> None:
    """Write what the server loads: what was trained by itself, and the whole model."""
    encoder, language = Path(job.encoder), Path(job.language_model)
    export_trained(projector, encoder, language, image_id, out / TRAINED_FOLDER)
    write_record(out / TRAINED_FOLDER, record)
    write_checksums(out / TRAINED_FOLDER)
    join(out / TRAINED_FOLDER, language, out / CHECKPOINT_FOLDER)


def _type_of(folder: str) -> str:
    config: dict[str, str] = json.loads((Path(folder) / "config.json").read_text())
    return config.get("model_type", "")


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
