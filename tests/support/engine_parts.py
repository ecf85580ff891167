"""The host side of the engine without a model: sequences, seats, pages and the scheduler."""

import time

from fake_decoder import CONFIG, IMAGE_ID, NUM_LAYERS

from skipserve.engine.drops import Drops
from skipserve.engine.page_keys import PageKeys, find_visual
from skipserve.engine.pages import PagePool
from skipserve.engine.plans import PlanTable
from skipserve.engine.request import Request
from skipserve.engine.scheduler import Scheduler, Step
from skipserve.engine.sequence import Sequence
from skipserve.engine.tables import SeatTables


def make_sequence(request: Request, page_size: int = 4, plans: PlanTable | None = None) -> Sequence:
    """Return a request that has not started."""
    visual = find_visual(request, IMAGE_ID)
    plan = (PlanTable(NUM_LAYERS) if plans is None else plans).acquire(request.plan)
    return Sequence(
        request,
        keys=PageKeys(request, plan.kv_digests, page_size, visual),
        visual_positions=visual,
        plan=plan,
        arrived=time.perf_counter(),
        drops=Drops.of(request),
    )


class EngineParts:
    """What an engine has besides its model, with tokens that the test chooses."""

    def __init__(
        self,
        *,
        num_pages: int = 64,
        page_size: int = 4,
        max_rows: int = 64,
        max_running: int = 8,
        reuses_prefixes: bool = True,
    ) -> None:
        self.pool = PagePool(num_pages, page_size)
        self.tables = SeatTables(max_running, CONFIG.max_positions, page_size)
        self.plans = PlanTable(NUM_LAYERS)
        self.scheduler = Scheduler(
            self.pool, self.tables, max_rows, reuses_prefixes=reuses_prefixes
        )

    def add(self, request: Request) -> Sequence:
        """Line a request up."""
        sequence = make_sequence(request, self.tables.page_size, self.plans)
        self.scheduler.add(sequence)
        return sequence

    def finish(self, step: Step, token_id: int = 7, *, publishes: bool = False) -> None:
        """Give each sequence that samples a token, and take those out that are complete."""
        if publishes:
            self.scheduler.publish(step)
        for chunk in step.chunks:
            sequence = chunk.sequence
            sequence.started = sequence.started or 1.0
            if chunk.samples:
                sequence.generated_ids.append(token_id)
                self.tables.token_ids[sequence.seat, sequence.num_tokens - 1] = token_id
                if sequence.finish_reason(frozenset()) is not None:
                    self.scheduler.end(sequence)
