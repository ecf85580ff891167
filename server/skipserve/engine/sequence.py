"""A request under way: the engine's only mutable type. Few facts are stored, the rest follows."""

import time
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from skipserve.engine.rows import plan_work
from skipserve.engine.types import FinishReason, Request, Stage
from skipserve_policies.plan import TokenClass


@dataclass(eq=False)
class Sequence:
    """A request and how far it has come.

    Attributes:
        request: what was asked.
        eos_token_ids: tokens that end an answer.
        first_slot: where in the K/V cache its position 0 lives.
        generated_ids: the answer so far.
        num_computed: leading positions whose K/V are in the cache.
        stage_seconds: time spent since the last output, by stage.
    """

    request: Request
    eos_token_ids: frozenset[int] = frozenset()
    first_slot: int = 0
    generated_ids: list[int] = field(default_factory=list)
    num_computed: int = 0
    stage_seconds: dict[Stage, float] = field(default_factory=dict)
    _marked_at: float = field(default_factory=time.perf_counter)

    def mark(self, stage: Stage) -> None:
        """Book the time since the last mark, or since the arrival, to a stage."""
        now = time.perf_counter()
        self.stage_seconds[stage] = self.stage_seconds.get(stage, 0.0) + now - self._marked_at
        self._marked_at = now

    @property
    def num_tokens(self) -> int:
        """Positions that are known: the prompt's and those of the answer so far."""
        return self.request.num_prompt + len(self.generated_ids)

    @property
    def is_prefill(self) -> bool:
        """Whether prompt rows are still to be computed."""
        return self.num_computed < self.request.num_prompt

    @property
    def pending_prompt_ids(self) -> tuple[int, ...]:
        """The prompt tokens that are not computed yet."""
        return self.request.prompt_ids[self.num_computed :]

    @property
    def pending_ids(self) -> tuple[int, ...]:
        """The tokens at the positions that are known but not computed yet."""
        num_done = max(self.num_computed - self.request.num_prompt, 0)
        return (*self.pending_prompt_ids, *self.generated_ids[num_done:])

    @property
    def pending_classes(self) -> tuple[TokenClass, ...]:
        """The classes of the same positions."""
        prompt = self.request.token_classes[self.num_computed :]
        num_generated = self.num_tokens - self.num_computed - len(prompt)
        return (*prompt, *(TokenClass.GENERATED,) * num_generated)

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the answer is complete; None while it is not."""
        if not self.generated_ids:
            return None
        sampling = self.request.sampling
        if sampling.ends_at_eos and self.generated_ids[-1] in self.eos_token_ids:
            return FinishReason.STOP
        if len(self.generated_ids) >= sampling.max_tokens:
            return FinishReason.LENGTH
        return None

    @cached_property
    def work(self) -> NDArray[np.uint8]:
        """What its rows do, as bits: [token classes, layers]."""
        return plan_work(self.request.plan)
