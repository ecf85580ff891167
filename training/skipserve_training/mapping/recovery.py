"""Trains a checkpoint's module on, under a policy or on weights that were zeroed."""

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from skipserve.model.weights import canonical_name, weights_digest
from skipserve_client.evaluate.easy_vqa import EasySplit, read_easy_vqa
from skipserve_client.evaluate.easy_vqa_samples import asking_order
from skipserve_policies.catalog import load_catalog
from skipserve_policies.named import POLICIES_FILE, model_file_text
from skipserve_policies.plan import Plan
from skipserve_policies.resolve import resolve
from skipserve_policies.schema import DropVisual, ReduceVisual, SkipPolicy
from skipserve_policies.sizes import MappingSizes
from skipserve_training.checkpoint_files import versions, write_record
from skipserve_training.mapping.easy_vqa_lessons import EasyLessons
from skipserve_training.mapping.encoding import Encoding, ReportFunction, say_nothing
from skipserve_training.mapping.export import projector_tensors
from skipserve_training.mapping.held_out import KindScore, score_held_out
from skipserve_training.mapping.lessons import LessonSource, PromptForm
from skipserve_training.mapping.projectors import MappingModule, Projector, ProjectorType
from skipserve_training.mapping.recipe import MappingRecipe
from skipserve_training.mapping.rewriting import COMPRESSION_RECORD, rewrite
from skipserve_training.mapping.served import (
    CHECKPOINT_FOLDER,
    PROJECTOR_WEIGHTS,
    ServedModel,
    load_module,
    open_model,
)
from skipserve_training.mapping.sources import read_source, split_source
from skipserve_training.mapping.training import Checkpoint, Course, make_accelerator, train
from skipserve_training.run_folder import RunFolder, claim

_PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "accelerate", "numpy", "pillow")
_VIEWS_SEED = 20  # of all runs, whatever their own: so their features can be shared


@dataclass(frozen=True)
class RecoveryJob:
    """A training that goes on, and everything that it stands on, by name.

    Attributes:
        model: the folder of a checkpoint that the server loads.
        data: FORM:FOLDER.
        policy_name: what the policy is called.
        policy: its rules, as a request spells them.
        questions: to train with, to the next whole step.
        module: a folder whose module is trained on; None for the model's own.
        held_out: questions of the test split to score before and after; None for all.
    """

    model: str
    data: str
    policy_name: str
    policy: Mapping[str, Any]
    questions: int
    module: str | None = None
    seed: int = 20
    pictures: int = 3
    rate: float = 1e-3
    warmup: int = 20
    views: int = 4
    held_out: int | None = None
    save_every: int = 50

    def recipe(self, lessons: LessonSource, projector: Projector) -> MappingRecipe:
        """Return what the training does."""
        kind, sizes = ProjectorType.MLP, MappingSizes()
        if isinstance(projector, MappingModule):
            kind, sizes = ProjectorType.MAPPING, projector.sizes
        return MappingRecipe(
            steps=math.ceil(self.questions / (self.pictures * lessons.questions_a_step)),
            projector=kind,
            sizes=sizes,
            pictures=self.pictures,
            rate=self.rate,
            warmup=self.warmup,
            seed=self.seed,
            save_every=self.save_every,
        )


@dataclass(frozen=True)
class Recovery:
    """What a finished training leaves.

    Attributes:
        before, after: the scores by type under the policy, where the data set has a test split.
        wall_seconds, cpu_seconds: what the training took, without features and scores.
        is_told: whether this process is the one that speaks for all.
    """

    before: dict[str, KindScore]
    after: dict[str, KindScore]
    wall_seconds: float
    cpu_seconds: float
    is_told: bool


def static_plan(name: str, policy: SkipPolicy, depth: int) -> Plan:
    """Return the plan that the server runs for a policy, on models of so many blocks.

    Raises:
        ValueError: The policy does not fit the model, or takes rows of images away.
    """
    if any(isinstance(rule, ReduceVisual | DropVisual) for rule in policy.rules):
        raise ValueError(
            f"policy: {name!r} takes rows of images away: trained under are those that skip alone."
        )
    return resolve(name, policy, depth).plan


def recover(
    job: RecoveryJob,
    out: Path,
    device: torch.device,
    report: ReportFunction,
    features: Path | None = None,
) -> Recovery:
    """Score, train from where an earlier run in `out` stopped, score again, and write all.

    Args:
        job: what is done.
        out: the run's folder.
        device: where.
        report: called with what is under way.
        features: a folder of features that runs of one encoder and data set share; None for `out`.

    Raises:
        ValueError: The job names what is not there or does not fit, or `out` is another job's.
    """
    accelerator = make_accelerator(device)
    report = report if accelerator.is_main_process else say_nothing
    lessons = read_source(job.data)
    model = _open(job, accelerator.device)
    projector, recipe = model.projector, job.recipe(lessons, model.projector)
    claim(out, job)
    encoding = Encoding(features or out, model.encoder, accelerator, report)
    course = _course(job, model, lessons, encoding)
    test = _Test(job, lessons, encoding, report)
    before = _once(out / "before.json", lambda: test.score("before", course, projector))
    clock = train(
        recipe,
        course,
        projector,
        RunFolder(out, Checkpoint),
        accelerator,
        lambda step, loss: report("training", step, recipe.steps, loss),
    )
    projector.bfloat16().float()  # what is scored is what is written
    after = test.score("after", course, projector)
    recovery = Recovery(before, after, clock.wall(), clock.cpu(), accelerator.is_main_process)
    if recovery.is_told:
        _write(job, recipe, model, recovery, out)
    return recovery


def write_default(folder: Path, name: str, policy: SkipPolicy) -> None:
    """Have a model run a policy where nobody names one; one without rules goes without saying.

    Args:
        folder: the model's, or what ships of it.
        name: what the policy is called; one that does not ship is the model's own.
        policy: what it says.
    """
    file = folder / POLICIES_FILE
    if policy.rules:
        own = {} if name in load_catalog() else {name: policy}
        file.write_text(model_file_text(name, own), "utf-8")
    else:
        file.unlink(missing_ok=True)


def _open(job: RecoveryJob, device: torch.device) -> ServedModel:
    """Open the model under the policy, with the module that is trained on."""
    model = open_model(Path(job.model), torch.bfloat16, device)
    policy = SkipPolicy.model_validate(job.policy)
    plan = static_plan(job.policy_name, policy, model.depth)
    if job.module is not None:
        load_module(model.projector, Path(job.module))
    return replace(model, language=model.language.under(plan))


def _course(
    job: RecoveryJob, model: ServedModel, lessons: LessonSource, encoding: Encoding
) -> Course:
    features = encoding.of_lessons(lessons, job.views, _VIEWS_SEED)
    rows = model.projector.rows(features.num_patches)
    prompts = PromptForm(model.tokenizer, rows, lessons.kinds)
    return Course(model.language, lessons, features, prompts, len(features) // len(lessons))


class _Test:
    """The questions that are scored; none where the data set has no test split."""

    def __init__(
        self, job: RecoveryJob, lessons: LessonSource, encoding: Encoding, report: ReportFunction
    ) -> None:
        self._report = report
        self._splits: tuple[EasySplit, EasySplit] | None = None
        if isinstance(lessons, EasyLessons):
            test = read_easy_vqa(split_source(job.data)[1], "test")
            chosen = asking_order(test.questions)[: job.held_out]
            asked = replace(test, questions=tuple(test.questions[index] for index in chosen))
            self._splits = lessons.split, asked
            self._features = encoding.of_split(test)

    def score(self, stage: str, course: Course, projector: Projector) -> dict[str, KindScore]:
        """Score a projector in the course's model."""
        if self._splits is None:
            return {}
        pictures = len({question.image for question in self._splits[1].questions})
        return score_held_out(
            replace(course, features=self._features, views=1),
            projector,
            self._splits,
            lambda done: self._report(stage, done, pictures, 0.0),
        )


def _once(path: Path, make: Callable[[], dict[str, KindScore]]) -> dict[str, KindScore]:
    """Read scores that an earlier run wrote, or make and write them."""
    if path.exists():
        return {kind: KindScore(**score) for kind, score in json.loads(path.read_text()).items()}
    scores = make()
    draft = path.with_suffix(f".{os.getpid()}")
    draft.write_text(json.dumps(_plain(scores), indent=2) + "\n")
    os.replace(draft, path)
    return scores


def _plain(scores: dict[str, KindScore]) -> dict[str, dict[str, float]]:
    return {kind: asdict(score) for kind, score in scores.items()}


def _write(
    job: RecoveryJob, recipe: MappingRecipe, model: ServedModel, recovery: Recovery, out: Path
) -> None:
    """Write the module, the whole checkpoint, and the record of both."""
    tensors = projector_tensors(model.projector)
    save_file(tensors, out / PROJECTOR_WEIGHTS, {"format": "pt"})
    trained = {canonical_name(name): value for name, value in tensors.items()}
    folder = out / CHECKPOINT_FOLDER
    rewrite(model.folder, folder, lambda name, value: trained.get(name, value).to(value.dtype))
    record = {
        "job": asdict(job)
        | {"model": model.name, "data": split_source(job.data)[0]}
        | {"module": None if job.module is None else Path(job.module).name},
        "recipe": asdict(recipe),
        "model_sha256": weights_digest(model.folder),
        "weights_sha256": weights_digest(folder),
        "versions": versions(_PACKAGES),
        "threads": torch.get_num_threads(),
        "wall_seconds": round(recovery.wall_seconds, 1),
        "cpu_seconds": round(recovery.cpu_seconds, 1),
        "before": _plain(recovery.before),
        "after": _plain(recovery.after),
    }
    write_record(out, record)
    write_record(folder, record)
    write_default(folder, job.policy_name, SkipPolicy.model_validate(job.policy))
    (folder / "README.md").write_text(_card(job, model, recovery))


_CARD = """\
# {model}, its module trained on

The module between picture and language model was trained on {questions:,} more questions (seed
{seed}); language model and vision tower are `{model}`'s, unchanged.{zeroed}

Trained and scored under the skip policy `{policy}`, which it runs where a request names none: it
answers as told below under that policy alone.

{scores}

Greedy, exact answers with their ends; 95 % intervals (Wilson) over questions, one training. "Blind"
is what whoever only reads the question answers. Figures, seed, versions and digests:
`training-record.json`.
"""

_ZEROED = """ Weights of that
language model had been set to zero: `compression.json`."""


def _card(job: RecoveryJob, model: ServedModel, recovery: Recovery) -> str:
    lines = [
        "| type | before | after | interval | blind | questions |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {kind} | {recovery.before[kind].accuracy:.1%} | {after.accuracy:.1%} | "
        f"{after.low:.1%} to {after.high:.1%} | {after.blind:.1%} | {after.n:,} |"
        for kind, after in recovery.after.items()
    ]
    return _CARD.format(
        model=model.name,
        questions=job.questions,
        seed=job.seed,
        policy=job.policy_name,
        zeroed=_ZEROED if (model.folder / COMPRESSION_RECORD).is_file() else "",
        scores="\n".join(lines) if recovery.after else "No accuracy was measured.",
    )
