"""Sequences under way that stand still: the same step of theirs can be launched again and again."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from skipserve.engine.page_keys import PageKeys
from skipserve.engine.pages import PagePool
from skipserve.engine.plans import PlanTable
from skipserve.engine.request import Request, SamplingParams
from skipserve.engine.scheduler import Scheduler, Step
from skipserve.engine.sequence import Sequence as EngineSequence
from skipserve.engine.tables import SeatTables
from skipserve.model.config import ModelConfig
from skipserve_policies.flops import prompt_classes
from skipserve_policies.plan import Plan, TokenClass

PAGE_SIZE = 16

_ANY_TOKEN = 7


@dataclass(frozen=True)
class Steps:
    """The steps of sequences that started together.

    Attributes:
        prefill: all rows of all prompts.
        decode: one row of each, behind the prompt.
    """

    prefill: Step
    decode: Step


class Lineup:
    """What an engine knows of its sequences, without the model.

    Attributes:
        num_pages: of the pool.
        tables: what the sequences hold.
        plans: what the columns in the tables mean.
    """

    def __init__(self, config: ModelConfig, num_sequences: int, context: int) -> None:
        # The scheduler leaves a page for each running sequence.
        self.num_pages = num_sequences * (1 + -(-(context + 1) // PAGE_SIZE))
        self.tables = SeatTables(num_sequences, config.max_positions, PAGE_SIZE)
        self.plans = PlanTable(config.sizes.decoder.num_layers)
        self._image_token_id = config.image_token_id
        self._scheduler = Scheduler(
            PagePool(self.num_pages, PAGE_SIZE),
            self.tables,
            max_rows=num_sequences * context,
            reuses_prefixes=False,
        )

    @contextmanager
    def steps(self, plans: Sequence[Plan], context: int) -> Iterator[Steps]:
        """Yield the steps of one sequence a plan; the decoded row sees so many keys."""
        sequences = [self._sequence(plan, context - 1, n) for n, plan in enumerate(plans)]
        for sequence in sequences:
            self._scheduler.add(sequence)
        try:
            prefill = self._scheduler.schedule()
            for sequence in sequences:
                sequence.generated_ids.append(_ANY_TOKEN)
                self.tables.token_ids[sequence.seat, context - 1] = _ANY_TOKEN
            decode = self._scheduler.schedule()
            assert prefill.num_rows == len(plans) * (context - 1)
            assert decode.num_rows == len(plans)
            yield Steps(prefill, decode)
        finally:
            for sequence in sequences:
                self._scheduler.end(sequence)
                self.plans.release(sequence.plan)

    def _sequence(self, plan: Plan, num_prompt: int, number: int) -> EngineSequence:
        request = Request(
            id=str(number),
            # Different ones, and none that shows a picture.
            prompt_ids=tuple(
                (number + row) % (self._image_token_id - 1) for row in range(num_prompt)
            ),
            token_classes=prompt_classes([(TokenClass.TEXT, num_prompt)]),
            images=(),
            sampling=SamplingParams(max_tokens=3, temperature=0.0, ends_at_eos=False),
            policy_name="",
            plan=plan,
        )
        visual = np.zeros(0, dtype=np.int64)
        entry = self.plans.acquire(plan)
        return EngineSequence(
            request,
            keys=PageKeys(request, entry.kv_digests, PAGE_SIZE, visual),
            visual_positions=visual,
            plan=entry,
            arrived=time.perf_counter(),
        )
