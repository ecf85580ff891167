"""An engine whose steps are timed and marked for the profiler, and what the model takes of them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from contenders import make_request
from questions import Question
from splitting.parts import Stage
from torch import Tensor
from torch.profiler import record_function

from skipserve.engine.engine import Engine
from skipserve.engine.limits import EngineLimits
from skipserve.engine.reports import StepReport
from skipserve.model.batch import Batch
from skipserve.model.config import ModelConfig
from skipserve.model.layers import KVCache
from skipserve.model.model import Model
from skipserve_policies.reduction import Reduction

T = TypeVar("T")

# Gives seconds.
Clock = Callable[[], float]

STEP, FORWARD, PICTURE = "the step", "the forward", "the picture"


@dataclass(frozen=True)
class StepTime:
    """What a step took.

    Attributes:
        stage: prompt if it has rows of prompts.
        seconds: of the processor for this thread; of the clock where a GPU computes.
        forward_seconds: of these, in the language model.
        picture_seconds: of these, in the vision tower and behind it.
        clock_seconds: by the clock on the wall.
    """

    stage: Stage
    seconds: float
    forward_seconds: float
    picture_seconds: float
    clock_seconds: float


@dataclass
class WatchedModel:
    """A model that marks and times what it does.

    Attributes:
        inner: the model.
        clock: gives seconds.
        seconds: taken so far, by FORWARD and PICTURE.
    """

    inner: Model
    clock: Clock
    seconds: dict[str, float] = field(default_factory=lambda: {FORWARD: 0.0, PICTURE: 0.0})

    @property
    def config(self) -> ModelConfig:
        """What the checkpoint says of itself."""
        return self.inner.config

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self.inner.device

    @property
    def uses_triton(self) -> bool:
        """Whether the decoder runs in Triton kernels."""
        return self.inner.uses_triton

    @property
    def weights_digest(self) -> str:
        """The sha256 of the weight files."""
        return self.inner.weights_digest

    def encode_images(self, pixels: Tensor) -> Tensor:
        """Encode pictures."""
        return self._watch(PICTURE, lambda: self.inner.encode_images(pixels))

    def encode_reduced(
        self, pixels: Tensor, reductions: Sequence[Reduction | None]
    ) -> list[Tensor]:
        """Encode pictures, and reduce their rows."""
        return self._watch(PICTURE, lambda: self.inner.encode_reduced(pixels, reductions))

    def new_cache(self, num_pages: int, page_size: int) -> KVCache:
        """Return room for keys and values."""
        return self.inner.new_cache(num_pages, page_size)

    def warm_up(self, cache: KVCache) -> None:
        """Compile what a forward may launch."""
        self.inner.warm_up(cache)

    def cache_bytes_per_token(self) -> int:
        """Return what the keys and values of one position take."""
        return self.inner.cache_bytes_per_token()

    def forward(self, batch: Batch, cache: KVCache) -> Tensor:
        """Run one batch."""
        return self._watch(FORWARD, lambda: self.inner.forward(batch, cache))

    def _watch(self, name: str, work: Callable[[], T]) -> T:
        started = self.clock()
        with record_function(name):
            result = work()
        self.seconds[name] += self.clock() - started
        return result


class WatchedEngine:
    """An engine whose steps are timed, driven without processes or HTTP.

    Args:
        model: what it runs.
    """

    def __init__(self, model: Model) -> None:
        self._clock = clock_of(model.device)
        self._model = WatchedModel(model, self._clock)
        # A step is to be over when it returns.
        self._engine = Engine(self._model, EngineLimits(looks_ahead=False))

    def answer(self, questions: Sequence[Question]) -> list[StepTime]:
        """Answer questions, all at a time; return what each step took."""
        for question in questions:
            self._engine.add(make_request(question))
        times = []
        while self._engine.has_work:
            times.append(self._step())
        return times

    def _step(self) -> StepTime:
        inside, started, began = dict(self._model.seconds), self._clock(), time.perf_counter()
        with record_function(STEP):
            report = self._engine.step().report
        seconds, clock_seconds = self._clock() - started, time.perf_counter() - began
        taken = {name: total - inside[name] for name, total in self._model.seconds.items()}
        assert report is not None
        return StepTime(
            stage=_stage(report),
            seconds=seconds,
            forward_seconds=taken[FORWARD],
            picture_seconds=taken[PICTURE],
            clock_seconds=clock_seconds,
        )


def clock_of(device: torch.device) -> Clock:
    """Return what times a device: this thread's processor time on a CPU, else the wall's."""
    return time.thread_time if device.type == "cpu" else time.perf_counter


def _stage(report: StepReport) -> Stage:
    return Stage.PROMPT if report.num_rows > report.num_sequences else Stage.DECODE
