"""A model whose steps are split: how it is asked, and what was measured beside its policies."""

from dataclasses import dataclass
from statistics import median
from time import thread_time
from typing import Self

import torch
from checkpoints import checkpoint
from plans import resolved
from questions import Question, QuestionSource, num_text
from splitting.parts import Stage
from splitting.reading import read_bandwidth, weights_read
from splitting.watched import clock_of
from torch.profiler import ProfilerActivity, profile

from skipserve.model.arithmetic import arithmetic_dtype
from skipserve.model.llava import Llava
from skipserve_policies.flops import Request, RequestFlops, request_flops
from skipserve_policies.plan import TokenClass
from skipserve_policies.sizes import ModelSizes

NUM_NEW_TOKENS = 5

# At a time; and rows of a step of the engine on a CPU.
_MOST_REQUESTS = 8
_STEP_ROWS = 512
_CALIBRATING_CALLS = 4000


@dataclass(frozen=True)
class Costs:
    """What was measured beside the policies.

    Attributes:
        profiler_seconds: that the profiler adds to an operation.
        bandwidth: of reading weights, in bytes a second.
        itemsize: of a number of a weight, in bytes.
    """

    profiler_seconds: float
    bandwidth: float
    itemsize: int


@dataclass(frozen=True)
class Subject:
    """A loaded model, and how it is asked.

    Attributes:
        name: as the command line has it.
        model: what runs.
        num_requests: at a time; a step takes all their prompts.
        costs: measured on it.
    """

    name: str
    model: Llava
    num_requests: int
    costs: Costs

    @property
    def sizes(self) -> ModelSizes:
        """The model's."""
        return self.model.config.sizes

    @classmethod
    def load(cls, name: str, device: torch.device, dtype: torch.dtype) -> Self:
        """Load a model and measure what goes with it."""
        with checkpoint(name) as folder:
            model = Llava.load(folder, device, dtype)
        sizes = model.config.sizes
        num_rows = num_text(name) + sizes.rows_per_image
        itemsize = arithmetic_dtype(device, dtype, sizes.decoder.hidden_size).itemsize
        num_weights = weights_read(sizes.decoder, resolved("full", sizes).plan, set(TokenClass))
        costs = Costs(
            profiler_seconds=profiler_seconds(),
            bandwidth=read_bandwidth(num_weights * itemsize, device, clock_of(device)),
            itemsize=itemsize,
        )
        return cls(name, model, max(1, min(_MOST_REQUESTS, _STEP_ROWS // num_rows)), costs)

    def as_json(self) -> dict[str, float]:
        """Return what the record says of it."""
        return {
            "requests": self.num_requests,
            "bandwidth_bytes_per_second": round(self.costs.bandwidth),
            "profiler_seconds_per_operation": self.costs.profiler_seconds,
        }

    def questions(self, source: QuestionSource, policy: str) -> list[Question]:
        """Return new questions, for what was seen before a cache may hold."""
        return [
            source.question(num_text(self.name), NUM_NEW_TOKENS, policy=policy)
            for _ in range(self.num_requests)
        ]

    def planned_flops(self, policy: str, stage: Stage) -> tuple[float, float]:
        """Return a request's planned FLOPs, and the picture's of them.

        Of the prompt; or of each further token, in which there are none of the picture.
        """
        source = QuestionSource(self.model.config, seed=0)
        question = source.question(num_text(self.name), NUM_NEW_TOKENS, policy=policy)
        prompt = _planned(self.sizes, question, 1)
        if stage is Stage.PROMPT:
            return prompt.total, prompt.vision + prompt.projector
        whole = _planned(self.sizes, question, NUM_NEW_TOKENS)
        return (whole.total - prompt.total) / (NUM_NEW_TOKENS - 1), 0

    def reading_seconds(self, policy: str, stage: Stage) -> float:
        """Return what a step takes to read the weights of the layers that run: an estimate."""
        generated = {TokenClass.GENERATED}
        classes = set(TokenClass) - generated if stage is Stage.PROMPT else generated
        numbers = weights_read(self.sizes.decoder, resolved(policy, self.sizes).plan, classes)
        return numbers * self.costs.itemsize / self.costs.bandwidth


def profiler_seconds() -> float:
    """Return what the profiler adds to an operation, of one that does nothing."""
    numbers = torch.ones(8)

    def call() -> float:
        started = thread_time()
        for _ in range(_CALIBRATING_CALLS):
            numbers.view(2, 4)
        return thread_time() - started

    def call_profiled() -> float:
        with profile(activities=[ProfilerActivity.CPU]):
            return call()

    pairs = [(call(), call_profiled()) for _ in range(5)]
    return median(profiled - plain for plain, profiled in pairs) / _CALIBRATING_CALLS


def _planned(sizes: ModelSizes, question: Question, num_tokens: int) -> RequestFlops:
    reduction = question.image.reduction
    request = Request(question.token_classes, num_tokens, num_images=1)
    return request_flops(sizes, question.plan, request, reduction, question.narrowing)
