"""Measures one cell: zeroes weights, asks, trains on, asks again."""

import json
import os
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

import torch
from accelerate import Accelerator

from skipserve.model.weights import weights_digest
from skipserve.pretrained.places import RECORD
from skipserve_policies.resolve import resolve
from skipserve_policies.schema import SkipPolicy
from skipserve_training.checkpoint_files import versions
from skipserve_training.compression.produce import CompressionJob, produce_compressed
from skipserve_training.compression.recipe import Method
from skipserve_training.mapping.encoding import Encoding
from skipserve_training.mapping.features import Features
from skipserve_training.mapping.lessons import LessonSource, PromptForm
from skipserve_training.mapping.projectors import Projector
from skipserve_training.mapping.recovery import RecoveryJob, recover
from skipserve_training.mapping.served import (
    CHECKPOINT_FOLDER,
    ServedModel,
    load_module,
    open_model,
)
from skipserve_training.mapping.sources import read_source
from skipserve_training.mapping.speaking import Tokens
from skipserve_training.mapping.training import Course, make_accelerator
from skipserve_training.paper.answering import MAX_TOKENS, Judge, Question, Verdict
from skipserve_training.paper.asking import (
    WORTH_MORE,
    Asked,
    ask,
    draw_questions,
    loss,
    make_captioning,
    make_question,
    tell,
)
from skipserve_training.paper.cells import FULL, Cell, Training
from skipserve_training.paper.exam import Exam, read_exam
from skipserve_training.paper.perplexity import held_out_text, perplexity
from skipserve_training.paper.records import (
    Record,
    Score,
    TrainingFigures,
    as_bits,
    as_grades,
)
from skipserve_training.paper.setup import SHIPPED, Scoring, Setup
from skipserve_training.paper.tally import tally

_PACKAGES = ("torch", "transformers", "tokenizers", "numpy")
_KEPT_IN_MEMORY = 1  # models
_CAPTION_TOKENS = 30

# Called with what is under way, how much of it is done, and how much there is.
StageFunction = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Place:
    """Where everything is.

    Attributes:
        models: the folder of each model that cells name.
        trained_on: what modules are trained on, FORM:FOLDER.
        asked: what is asked about, FORM:FOLDER.
        tasks: what alpha-SubNet keeps weights for, FORM:FOLDER each; Wanda looks at the first.
        runs: where trainings and zeroed models are written.
        setup: whose answers are measured.
        module: the run that the model came of; None for what ships.
        command: what makes a cell anew, with the flags in the place of {}.
        views: variants of each picture that trainings see.
    """

    models: Callable[[str], Path]
    trained_on: str
    asked: str
    tasks: tuple[str, ...]
    runs: Path
    device: torch.device
    setup: Setup = SHIPPED
    module: Path | None = None
    command: str = "make paper ARGS='{}'"
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
        trained, training = None, self._own_training(cell)
        if cell.training is not None:
            training = self._train(cell, cell.training, folder)
            projector = deepcopy(planned.projector)
            load_module(projector, self._run(cell))
            trained = self._score("trained", cell, planned, projector)
        return Record(
            cell=asdict(cell),
            command=self._place.command.format(
                f"--only {cell.name}{' --all' if cell.is_extra else ''}"
            ),
            untrained=untrained,
            trained=trained,
            training=training,
            perplexity=perplexity(planned.language, planned.tokenizer, held_out_text()),
            layers=sorted({layer for layers in resolved.layers.values() for layer in layers}),
            sparsity=sparsity,
            made_with=versions(_PACKAGES)
            | {"threads": torch.get_num_threads(), "weights_sha256": digest},
            setup=None if self._setup == SHIPPED else self._setup,
        )

    @property
    def _setup(self) -> Setup:
        return self._place.setup

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
            tasks = self._place.tasks[:1]
        elif recipe.method is Method.ALPHA_SUBNET:
            tasks = self._place.tasks
        out = self._place.runs / f"{cell.model}-{recipe.method}-{recipe.pattern}".replace(":", "-")
        report = produce_compressed(
            CompressionJob(recipe, str(model), tasks, self._setup.media),
            out,
            self._place.device,
            lambda task, done, total: self._report(f"zeroing for {task}", done, total),
        )
        return out / CHECKPOINT_FOLDER, report.sparsity

    def _train(self, cell: Cell, training: Training, folder: Path) -> TrainingFigures:
        job = RecoveryJob(
            model=str(folder),
            data=self._place.trained_on,
            policy_name="full" if cell.policy is None else cell.name,
            policy=cell.policy or {},
            questions=training.questions,
            seed=training.seed,
            pictures=self._setup.pictures,
            rate=self._setup.rate,
            warmup=self._setup.warmup,
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
        return _figures(run, recovered.cpu_seconds, recovered.wall_seconds)

    def _own_training(self, cell: Cell) -> TrainingFigures | None:
        """Tell of the training that the full model's own module came of, where it was done here."""
        run = self._place.module
        if run is None or cell.name != FULL:
            return None
        record = json.loads((run / RECORD).read_text())
        return _figures(run, record["cpu_seconds"], record["wall_seconds"])

    def _score(self, stage: str, cell: Cell, model: ServedModel, projector: Projector) -> Score:
        """Ask a few questions and, of what knows more than half of the answers, the rest."""
        judge = self._judge(cell, model, projector)
        questions = self._questions(judge)
        few = len(self._first)
        began = time.process_time()
        verdicts = self._ask(stage, judge, questions[:few])
        if sum(verdict.accepted for verdict in verdicts) > WORTH_MORE * len(verdicts):
            verdicts += self._ask(stage, judge, questions[few:])
        seconds = time.process_time() - began
        asked = self._asked[: len(verdicts)]
        blind = [self._blind(*each) for each in zip(asked, questions[: len(asked)], strict=True)]
        return Score(
            types=tally(asked, verdicts, blind, self._exam.kinds),
            exact=as_bits([verdict.exact for verdict in verdicts]),
            accepted=as_grades([verdict.accepted for verdict in verdicts]),
            cpu_seconds=round(seconds, 1),
            loss=None if self._setup.is_shipped else loss(judge, asked, self._setup.scoring),
        )

    def _ask(self, stage: str, judge: Judge, questions: Sequence[Question]) -> list[Verdict]:
        return ask(judge, questions, lambda done, total: self._report(stage, done, total))

    def _blind(self, asked: Asked, question: Question) -> float:
        said = self._exam.blind(asked.probe)
        return 0 if said is None else question.grade(said)

    def _questions(self, judge: Judge) -> list[Question]:
        if self._setup.scoring is Scoring.CAPTIONS:
            pairs = zip(self._asked, self._captions, strict=True)
            return [make_captioning(each, judge, said) for each, said in pairs]
        prompts, scoring = judge.course.prompts, self._setup.scoring
        return [make_question(each, prompts, scoring) for each in self._asked]

    @cached_property
    def _captions(self) -> list[Tokens]:
        """Let the full model tell of what is asked about, once."""
        path = self._place.runs / f"captions-{self._setup.many}-beams-{self._setup.num_beams}.json"
        if not path.exists():
            cell = Cell(FULL, "", self._setup.model)
            model, _ = self._open(self._place.models(cell.model))
            judge = self._judge(cell, model, model.projector)
            said = tell(judge, self._asked, lambda *done: self._report("captions", *done))
            draft = path.with_suffix(f".{os.getpid()}")
            draft.write_text(json.dumps(said))
            os.replace(draft, path)
        return [tuple(tokens) for tokens in json.loads(path.read_text())]

    def _judge(self, cell: Cell, model: ServedModel, projector: Projector) -> Judge:
        features = self._features_of(cell, model)
        prompts = PromptForm(
            model.tokenizer, projector.rows(features.num_patches), self._exam.kinds
        )
        course = Course(model.language, self._lessons, features, prompts)
        is_caption = self._setup.scoring is Scoring.CAPTIONS
        limit = _CAPTION_TOKENS if is_caption else MAX_TOKENS
        return Judge(
            course, projector, model.tokenizer, self._setup.num_beams, limit, not is_caption
        )

    def _features_of(self, cell: Cell, model: ServedModel) -> Features:
        encoding = Encoding(
            self._features(cell),
            model.encoder,
            self._accelerator,
            lambda stage, done, total, _: self._report(stage, done, total),
        )
        return encoding.of_media("test-features", len(self._exam), self._exam.media)

    def _features(self, cell: Cell) -> Path:
        return self._place.runs / "features" / cell.model

    def _run(self, cell: Cell) -> Path:
        return self._place.runs / cell.name

    @cached_property
    def _accelerator(self) -> Accelerator:
        return make_accelerator(self._place.device)

    @cached_property
    def _lessons(self) -> LessonSource:
        return read_source(self._place.trained_on)

    @cached_property
    def _exam(self) -> Exam:
        return read_exam(self._lessons, self._place.asked)

    @cached_property
    def _first(self) -> list[Asked]:
        return draw_questions(self._exam, self._setup.few)

    @cached_property
    def _asked(self) -> list[Asked]:
        return draw_questions(self._exam, self._setup.many)


def _figures(run: Path, cpu_seconds: float, wall_seconds: float) -> TrainingFigures:
    last = json.loads((run / "log.jsonl").read_text().splitlines()[-1])
    return TrainingFigures(
        steps=last["step"],
        loss=last["loss"],
        cpu_seconds=round(cpu_seconds, 1),
        wall_seconds=round(wall_seconds, 1),
    )
