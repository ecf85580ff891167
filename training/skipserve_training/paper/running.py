"""Measures one cell: zeroes weights, asks, trains on, asks again."""

import json
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import torch
from accelerate import Accelerator

from skipserve.model.weights import weights_digest
from skipserve_client.evaluate.easy_vqa import EasySplit, blind_answers, read_easy_vqa
from skipserve_policies.resolve import resolve
from skipserve_policies.schema import SkipPolicy
from skipserve_training.checkpoint_files import versions
from skipserve_training.compression.produce import CompressionJob, produce_compressed
from skipserve_training.compression.recipe import Method
from skipserve_training.mapping.easy_vqa_lessons import EasyLessons
from skipserve_training.mapping.encoding import Encoding
from skipserve_training.mapping.lessons import PromptForm
from skipserve_training.mapping.projectors import Projector
from skipserve_training.mapping.recovery import RecoveryJob, recover
from skipserve_training.mapping.served import (
    CHECKPOINT_FOLDER,
    ServedModel,
    load_module,
    open_model,
)
from skipserve_training.mapping.sources import EASY_CAPTIONS, EASY_VQA
from skipserve_training.mapping.training import Course, make_accelerator
from skipserve_training.paper.answering import Judge, Verdict
from skipserve_training.paper.asking import WORTH_MORE, Asked, ask, draw_questions
from skipserve_training.paper.cells import Cell, Training
from skipserve_training.paper.perplexity import held_out_text, perplexity
from skipserve_training.paper.records import Record, Score, TrainingFigures, as_bits, tally

_PACKAGES = ("torch", "transformers", "tokenizers", "numpy")
_KEPT_IN_MEMORY = 1  # models

# Called with what is under way, how much of it is done, and how much there is.
StageFunction = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Place:
    """Where everything is, and how much is asked.

    Attributes:
        models: the folder of each model that cells name.
        data: easy-VQA's folder.
        runs: where trainings and zeroed models are written.
        few: questions of a first look.
        many: questions of what keeps more than half of the answers there.
        media: what Wanda looks at, of each task.
        views: variants of each picture that trainings see.
    """

    models: Callable[[str], Path]
    data: Path
    runs: Path
    device: torch.device
    few: int = 300
    many: int = 1000
    media: int = 128
    views: int = 4


class Bench:
    """Measures cells at a place; what they share is read once."""

    def __init__(self, place: Place, report: StageFunction) -> None:
        self._place = place
        self._report = report
        self._open = lru_cache(_KEPT_IN_MEMORY)(self._load)

    def measure(self, cell: Cell) -> Record:
        """Measure a cell, from where an earlier call stopped.

        Raises:
            ValueError: The model or the data do not fit the cell.
        """
        folder, sparsity = self._weights(cell)
        model, digest = self._open(folder)
        resolved = resolve(cell.name, SkipPolicy.model_validate(cell.policy or {}), model.depth)
        planned = replace(model, language=model.language.under(resolved.plan))
        untrained = self._score("untrained", cell, planned, planned.projector)
        trained, training = None, None
        if cell.training is not None:
            training = self._train(cell, cell.training, folder)
            projector = deepcopy(planned.projector)
            load_module(projector, self._run(cell))
            trained = self._score("trained", cell, planned, projector)
        return Record(
            cell=asdict(cell),
            command=f"make paper ARGS='--only {cell.name}{' --all' if cell.is_extra else ''}'",
            untrained=untrained,
            trained=trained,
            training=training,
            perplexity=perplexity(planned.language, planned.tokenizer, held_out_text()),
            layers=sorted({layer for layers in resolved.layers.values() for layer in layers}),
            sparsity=sparsity,
            made_with=versions(_PACKAGES)
            | {"threads": torch.get_num_threads(), "weights_sha256": digest},
        )

    def _load(self, folder: Path) -> tuple[ServedModel, str]:
        model = open_model(folder, torch.bfloat16, self._place.device)
        return model, weights_digest(folder)

    def _weights(self, cell: Cell) -> tuple[Path, float | None]:
        """Return the folder of the cell's model, and which share of its weights was zeroed."""
        model = self._place.models(cell.model)
        recipe = cell.compression
        if recipe is None:
            return model, None
        tasks: tuple[str, ...] = ()
        if recipe.method is Method.WANDA:
            tasks = (self._source(EASY_VQA),)
        elif recipe.method is Method.ALPHA_SUBNET:
            tasks = (self._source(EASY_VQA), self._source(EASY_CAPTIONS))
        out = self._place.runs / f"{cell.model}-{recipe.method}-{recipe.pattern}".replace(":", "-")
        report = produce_compressed(
            CompressionJob(recipe, str(model), tasks, self._place.media),
            out,
            self._place.device,
            lambda task, done, total: self._report(f"zeroing for {task}", done, total),
        )
        return out / CHECKPOINT_FOLDER, report.sparsity

    def _train(self, cell: Cell, training: Training, folder: Path) -> TrainingFigures:
        job = RecoveryJob(
            model=str(folder),
            data=self._source(EASY_VQA),
            policy_name="full" if cell.policy is None else cell.name,
            policy=cell.policy or {},
            questions=training.questions,
            seed=training.seed,
            views=self._place.views,
            held_out=0,  # whole pictures are asked about instead
        )
        run = self._run(cell)
        recovered = recover(
            job,
            run,
            self._place.device,
            lambda stage, done, total, _: self._report(stage, done, total),
            self._features(cell),
        )
        last = json.loads((run / "log.jsonl").read_text().splitlines()[-1])
        return TrainingFigures(
            steps=last["step"],
            loss=last["loss"],
            cpu_seconds=round(recovered.cpu_seconds, 1),
            wall_seconds=round(recovered.wall_seconds, 1),
        )

    def _score(self, stage: str, cell: Cell, model: ServedModel, projector: Projector) -> Score:
        """Ask a few questions and, of what knows more than half of the answers, the rest."""
        judge = Judge(self._course(cell, model), projector, model.tokenizer)
        began = time.process_time()
        asked = self._questions[: len(self._first)]
        verdicts = self._ask(stage, judge, asked)
        if sum(verdict.accepted for verdict in verdicts) > WORTH_MORE * len(verdicts):
            verdicts += self._ask(stage, judge, self._questions[len(asked) :])
            asked = self._questions
        return Score(
            types=tally(asked, verdicts, self._blind),
            exact=as_bits([verdict.exact for verdict in verdicts]),
            accepted=as_bits([verdict.accepted for verdict in verdicts]),
            cpu_seconds=round(time.process_time() - began, 1),
        )

    def _ask(self, stage: str, judge: Judge, asked: Sequence[Asked]) -> list[Verdict]:
        return ask(judge, asked, lambda done, total: self._report(stage, done, total))

    def _course(self, cell: Cell, model: ServedModel) -> Course:
        encoding = Encoding(
            self._features(cell),
            model.encoder,
            self._accelerator,
            lambda stage, done, total, _: self._report(stage, done, total),
        )
        features = encoding.of_split(self._test)
        rows = model.projector.rows(features.num_patches)
        prompts = PromptForm(model.tokenizer, rows, self._lessons.kinds)
        return Course(model.language, self._lessons, features, prompts)

    def _features(self, cell: Cell) -> Path:
        return self._place.runs / "features" / cell.model

    def _run(self, cell: Cell) -> Path:
        return self._place.runs / cell.name

    def _source(self, form: str) -> str:
        return f"{form}:{self._place.data}"

    @cached_property
    def _accelerator(self) -> Accelerator:
        return make_accelerator(self._place.device)

    @cached_property
    def _lessons(self) -> EasyLessons:
        return EasyLessons(read_easy_vqa(self._place.data, "train"))

    @cached_property
    def _blind(self) -> dict[str, str]:
        return blind_answers(self._lessons.split)

    @cached_property
    def _test(self) -> EasySplit:
        return read_easy_vqa(self._place.data, "test")

    @cached_property
    def _first(self) -> list[Asked]:
        return draw_questions(self._test, self._place.few)

    @cached_property
    def _questions(self) -> list[Asked]:
        return draw_questions(self._test, self._place.many)
