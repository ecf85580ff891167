"""Asks a model questions under policies in this process, and compares what it would say.

Shapes: T tokens of an answer, V vocabulary.
"""

import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, cast

import torch
from torch import Tensor

from skipserve.asking.answer import WholeAnswer
from skipserve.asking.processor import QuestionProcessor
from skipserve.asking.question import Generation, Prepared, Question
from skipserve.engine.engine import Engine
from skipserve.engine.limits import EngineSpec
from skipserve.engine.loading import load
from skipserve.engine.reports import Ready, StepOutput
from skipserve.engine.request import Request
from skipserve.errors import EngineError
from skipserve.model.layers import Layers
from skipserve.model.llava import Llava
from skipserve.model.model import Model
from skipserve.offline.questions import read_image, read_question
from skipserve_client.evaluate.sample import Sample
from skipserve_policies.cost import Saving, saving
from skipserve_policies.flops import Request as Shape
from skipserve_policies.resolve import ResolvedPolicy
from skipserve_training.calibration.anatomy import Anatomy, Sums, WatchedLayers
from skipserve_training.calibration.questions import Drawn

# Requests that the engine is given at a time: each step has rows of many of them.
_AT_ONCE = 64


class Watched:
    """A model whose last logits are kept for whoever looks; all else is the model's own.

    Attributes:
        logits: of the last forward.
        layers: its layers, if they can be watched.
    """

    def __init__(self, model: Model) -> None:
        self.logits: Tensor | None = None
        self.layers: WatchedLayers | None = None
        self._model = model.with_layers(self._watch) if isinstance(model, Llava) else model

    def _watch(self, layers: Layers) -> Layers:
        self.layers = WatchedLayers(layers)
        return cast(Layers, self.layers)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def forward(self, batch: Any, cache: Any) -> Tensor:
        """Run the model's forward."""
        self.logits = self._model.forward(batch, cache)
        return self.logits


@dataclass(frozen=True)
class Reference:
    """What the full model says to one question.

    Attributes:
        token_ids: its answer, the end token among them, [T].
        logprobs: of all tokens before each of them, float32 [T, V].
    """

    token_ids: tuple[int, ...]
    logprobs: Tensor


@dataclass(frozen=True)
class Comparison:
    """How a policy departs from the full model on one question.

    Attributes:
        first: KL divergence of the full model's distribution of the first token from the policy's,
            in nats.
        total: the same summed over the answer, as long as it is the full model's.
        regret: where the answers part, by how many nats the full model finds its own token more
            probable than the policy's; 0 where they do not.
        is_changed: whether they part.
    """

    first: float
    total: float
    regret: float
    is_changed: bool

    @property
    def damage(self) -> float:
        """One number to rank by: a few ruined answers do not outweigh many that are unharmed."""
        return math.log1p(self.total + self.regret)


@dataclass(frozen=True)
class Reply:
    """A whole answer under a policy.

    Attributes:
        text: of it.
        num_tokens: of it, the end token among them.
    """

    text: str
    num_tokens: int


# A question, by its place, under a policy.
Job = tuple[ResolvedPolicy, int]
# Called with how many jobs are done.
Told = Callable[[int], None]


def _nobody(num_done: int) -> None:
    """Hear and do nothing."""


@dataclass
class _Answer:
    """An answer under way.

    Attributes:
        reference: what it is held against; None for nothing.
        rows: the log-probabilities before each of its tokens, where they are wanted, [V] each.
        divergences: of each token from the reference's, in nats.
    """

    index: int
    prepared: Prepared
    reference: Reference | None
    token_ids: list[int] = field(default_factory=list)
    outputs: list[StepOutput] = field(default_factory=list)
    rows: list[Tensor] | None = None
    divergences: list[float] = field(default_factory=list)
    regret: float = 0.0
    is_changed: bool = False

    @property
    def next_logprobs(self) -> Tensor:
        """The reference's, of the token that comes next, [V]."""
        assert self.reference is not None
        return self.reference.logprobs[len(self.token_ids)]

    def follow(self, reference: Reference, token_id: int) -> None:
        """Note whether the next token is the reference's."""
        wanted = reference.token_ids[len(self.token_ids)]
        if token_id != wanted:
            lost = self.next_logprobs[wanted] - self.next_logprobs[token_id]
            self.is_changed, self.regret = True, float(lost)


class Probe:
    """A loaded model with some questions.

    Attributes:
        processor: what questions are prepared with.

    Args:
        engine: one that neither looks ahead nor replays graphs, with `watched` as its model.
        watched: the model.
        processor: what questions are prepared with.
        drawn: the questions: those that rank, and then those that confirm.
        max_tokens: an answer may have so many.
    """

    def __init__(
        self,
        engine: Engine,
        watched: Watched,
        processor: QuestionProcessor,
        drawn: Drawn,
        max_tokens: int,
    ) -> None:
        self._engine = engine
        self._watched = watched
        self.processor = processor
        self._ids = map("probe-{}".format, itertools.count())
        self._generation = Generation(max_tokens=max_tokens, temperature=0.0)
        self._questions = [self._read(it) for it in (*drawn.ranking, *drawn.confirming)]
        self._num_ranking = len(drawn.ranking)
        self._references: list[Reference] = []

    def references(self) -> list[Reference]:
        """Return what the full model says to each question that ranks; it is asked once."""
        if not self._references:
            jobs = [(self._full, index) for index in range(self._num_ranking)]
            self._references = [
                Reference(tuple(answer.token_ids), torch.stack(answer.rows or []))
                for answer in self._run(jobs, keeps_rows=True)
            ]
        return self._references

    def compare(self, jobs: Sequence[Job], told: Told = _nobody) -> list[Comparison]:
        """Return how each policy departs from the full model on a question that ranks.

        An answer is followed as long as it is the full model's.
        """
        answers = self._run(jobs, self.references(), told)
        return [
            Comparison(
                first=answer.divergences[0],
                total=sum(answer.divergences),
                regret=answer.regret,
                is_changed=answer.is_changed,
            )
            for answer in answers
        ]

    def reply(self, jobs: Sequence[Job], told: Told = _nobody) -> list[Reply]:
        """Return whole answers."""
        return [self._reply(answer) for answer in self._run(jobs, None, told)]

    def seconds(self, jobs: Sequence[Job]) -> float:
        """Return how long it takes until all of some jobs, asked at once, are answered."""
        began = time.perf_counter()
        self._run(jobs)
        return time.perf_counter() - began

    def saving(self, policy: ResolvedPolicy, shape: Shape) -> Saving:
        """Return what a request of a shape costs under a policy."""
        sizes = self.processor.reporter.sizes
        return saving(sizes, policy.plan, shape, policy.reduction, policy.narrowing)

    def shape(self, index: int, num_tokens: int) -> Shape:
        """Return the shape of a question's request, nothing cached, all rows of its image there.

        Args:
            index: the question.
            num_tokens: of its answer.
        """
        request = self._prepare(self._full, index).request
        return Shape(request.token_classes, num_tokens, num_images=len(request.images))

    def anatomy(self, indexes: Sequence[int]) -> Anatomy | None:
        """Return what the layers do to the rows of some prompts; None where they are not seen.

        Raises:
            EngineError: the engine cannot run one.
        """
        layers = self._watched.layers
        if layers is None:
            return None
        layers.sums = sums = Sums(self.processor.reporter.sizes.decoder.num_layers)
        try:
            for index in indexes:
                request = self._prepare(self._full, index).request
                sums.begin(request.token_classes)
                self._run_alone(
                    replace(
                        request,
                        # In the last layer too, all rows run.
                        plan=self._full.scoring_plan,
                        sampling=replace(request.sampling, max_tokens=1),
                        cache_salt=request.id,  # nothing of it is at hand
                    )
                )
        finally:
            layers.sums = None
        return sums.result()

    def _run_alone(self, request: Request) -> None:
        self._engine.add(request)
        while self._engine.has_work:
            for failed in self._engine.step().failed:
                raise EngineError(f"the engine failed: {failed.message}")

    @property
    def _full(self) -> ResolvedPolicy:
        return self.processor.policies.find("full")

    def _read(self, sample: Sample) -> Question:
        asked = read_question(sample.messages())
        max_pixels = self.processor.terms.images.pixels.image_pixels
        pictures = [read_image(source, max_pixels) for source in asked.images]
        return Question(
            id="",
            messages=asked.messages,
            images=tuple(self.processor.preprocessor.fit(it, sample.name) for it in pictures),
            generation=self._generation,
        )

    def _prepare(self, policy: ResolvedPolicy, index: int) -> Prepared:
        question = replace(self._questions[index], id=next(self._ids), policy=policy)
        return self.processor.prepare(question, None, self._engine.num_cache_tokens)

    def _reply(self, answer: _Answer) -> Reply:
        text = self.processor.answer_text(answer.prepared)
        pieces = [text.push(output) for output in answer.outputs]
        return Reply(WholeAnswer.join(pieces).text, len(answer.token_ids))

    def _run(
        self,
        jobs: Sequence[Job],
        references: Sequence[Reference] | None = None,
        told: Told = _nobody,
        *,
        keeps_rows: bool = False,
    ) -> list[_Answer]:
        """Answer all, some of them at a time; beside references, only as long as they agree.

        Raises:
            EngineError: the engine cannot answer one.
        """
        answers: list[_Answer] = []
        under_way: dict[str, _Answer] = {}
        waiting = iter(jobs)
        try:
            while True:
                for policy, index in islice(waiting, _AT_ONCE - len(under_way)):
                    prepared = self._prepare(policy, index)
                    reference = None if references is None else references[index]
                    rows: list[Tensor] | None = [] if keeps_rows else None
                    answers.append(_Answer(index, prepared, reference, rows=rows))
                    self._engine.add(prepared.request)
                    under_way[prepared.request.id] = answers[-1]
                if not under_way:
                    return answers
                self._step(under_way)
                told(len(answers) - len(under_way))
        except BaseException:
            # Whatever it was, Ctrl-C among it: the engine is left without work.
            for request_id in under_way:
                self._engine.cancel(request_id)
            raise

    def _step(self, under_way: dict[str, _Answer]) -> None:
        result = self._engine.step()
        for failed in result.failed:
            raise EngineError(f"the engine failed: {failed.message}")
        if not result.outputs:
            return
        logits = self._watched.logits
        assert logits is not None, "an engine that replays graphs shows no logits"
        assert len(logits) == len(result.outputs), "an engine that looks ahead is a step behind"
        answers = [under_way[output.request_id] for output in result.outputs]
        _compare(answers, logits.log_softmax(-1).cpu(), result.outputs)
        for answer, output in zip(answers, result.outputs, strict=True):
            if answer.is_changed:
                self._engine.cancel(output.request_id)
            if answer.is_changed or output.finish_reason is not None:
                del under_way[output.request_id]


def _compare(answers: Sequence[_Answer], logprobs: Tensor, outputs: Sequence[StepOutput]) -> None:
    """Enter the next token of each answer, and how it departs from its reference; [A, V]."""
    beside = [place for place, answer in enumerate(answers) if answer.reference is not None]
    if beside:
        wanted = torch.stack([answers[place].next_logprobs for place in beside])
        terms = wanted.exp() * (wanted - logprobs[beside])
        for place, divergence in zip(beside, terms.sum(-1).clamp(min=0).tolist(), strict=True):
            answers[place].divergences.append(divergence)
    for answer, row, output in zip(answers, logprobs, outputs, strict=True):
        assert output.token_id is not None
        if answer.rows is not None:
            answer.rows.append(row)
        if answer.reference is not None:
            answer.follow(answer.reference, output.token_id)
        answer.token_ids.append(output.token_id)
        answer.outputs.append(output)


def load_probe(
    spec: EngineSpec, processor: QuestionProcessor, drawn: Drawn, max_tokens: int
) -> tuple[Probe, Ready]:
    """Load a model and some questions.

    Args:
        spec: the model, and how to run it.
        processor: what questions to it are prepared with.
        drawn: the questions.
        max_tokens: an answer may have so many.

    Raises:
        ModelFilesError: the folder does not hold a model that can be run.
        EngineError: there is no such device, or its memory is too small.
        SkipserveError: a picture cannot be read.
    """
    watched: list[Watched] = []

    def watch(model: Model) -> Model:
        watched.append(Watched(model))
        return cast(Model, watched[0])

    limits = replace(spec.limits, looks_ahead=False, uses_graphs=False, max_running=_AT_ONCE)
    engine, ready = load(replace(spec, limits=limits), wrap=watch)
    return Probe(engine, watched[0], processor, drawn, max_tokens), ready
