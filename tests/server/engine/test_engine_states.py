"""A state machine over scheduler and pages: whatever happens, the bookkeeping is sound.

Requests come, run, are given up and put back while pages are short. After each event: each page is
held as often as the sequences say, is in one place, and holds for all that share it the same rows.
"""

from dataclasses import replace
from typing import Any

import pytest
from engine_parts import EngineParts
from fake_decoder import IMAGE_ID, NUM_LAYERS, make_image, make_request
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from plan_strategies import plans

from skipserve.engine.scheduler import Step
from skipserve.engine.sequence import Sequence
from skipserve_policies.plan import IDLE, Pair, Plan, TokenClass, trim

pytestmark = pytest.mark.fast

MAX_ROWS = 9
PAGE_SIZE = 2

# What a row's stored K/V are: its token, what it shows, and what it has been through.
Row = tuple[Any, ...]


class EngineStates(RuleBasedStateMachine):
    """Drives the host side of the engine with tokens of its own choice."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = EngineParts(
            num_pages=18, page_size=PAGE_SIZE, max_rows=MAX_ROWS, max_running=4
        )
        self.known: list[Sequence] = []
        self.num_requests = 0
        # A step that was launched and is not read yet, when the machine looks ahead.
        self.launched: Step | None = None
        # What was written into each page, by the rows that are there.
        self.content: dict[int, list[Row | None]] = {}

    @rule(
        plan=plans(NUM_LAYERS),
        num_text=st.integers(0, 4),
        brightness=st.lists(st.sampled_from([50, 60]), max_size=2),
        max_tokens=st.integers(1, 8),
        salt=st.sampled_from(["", "", "salt"]),
    )
    def add(
        self, plan: Plan, num_text: int, brightness: list[int], max_tokens: int, salt: str
    ) -> None:
        """Line a request up."""
        self.num_requests += 1
        request = make_request(
            str(self.num_requests),
            num_text=num_text,
            num_images=len(brightness),
            max_tokens=max_tokens,
            plan=trim(plan),
        )
        images = tuple(map(make_image, brightness))
        self.known.append(self.parts.add(replace(request, images=images, cache_salt=salt)))

    @rule(token_id=st.sampled_from([7, 8]), looks_ahead=st.booleans())
    def step(self, token_id: int, looks_ahead: bool) -> None:
        """Launch a step, and read it or the one before."""
        step = self.parts.scheduler.schedule()
        assert step.num_rows == sum(c.stop - c.start for c in step.chunks) <= MAX_ROWS
        self._read(self.launched, token_id)
        self.launched = step
        if not looks_ahead:
            self._read(step, token_id)

    @rule(token_id=st.sampled_from([7, 8]))
    def lose(self, token_id: int) -> None:
        """Launch a step that does not run, and read the one before."""
        step = self.parts.scheduler.schedule()
        self._read(self.launched, token_id)
        for chunk in step.chunks:
            chunk.sequence.is_over = chunk.sequence not in self.known
        self.parts.scheduler.take_back(step)

    def _read(self, step: Step | None, token_id: int) -> None:
        self.launched = None
        if step is None:
            return
        known = set(self.known)
        alive = Step([c for c in step.chunks if c.sequence in known and c.sequence.pages])
        self._write(alive)
        self._give_tokens_to_preempted(step, token_id)
        self.parts.finish(alive, token_id, publishes=True)
        self.known = [s for s in self.known if s in set(self.parts.scheduler)]

    def _give_tokens_to_preempted(self, step: Step, token_id: int) -> None:
        """Read the tokens of those that lost their pages while the step was under way."""
        for sequence in step.sampling:
            if sequence in self.known and not sequence.pages:
                sequence.generated_ids.append(token_id)
                if sequence.finish_reason(frozenset()) is not None:
                    self.parts.scheduler.end(sequence)

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        """Give a request up wherever it is."""
        sequence = data.draw(st.sampled_from(self.known))
        self.known.remove(sequence)
        self.parts.scheduler.end(sequence)

    @precondition(lambda self: self.parts.pool.num_available)
    @rule(data=st.data())
    def press(self, data: st.DataObject) -> None:
        """Take pages away for a moment, so that cached ones are given up."""
        pool = self.parts.pool
        pages = pool.allocate(data.draw(st.integers(1, pool.num_available)))
        pool.release(pages)

    def _write(self, step: Step) -> None:
        """Note what a step writes where; a page that others see must stay as it is."""
        for chunk in step.chunks:
            sequence = chunk.sequence
            rows = _rows(sequence)
            for position in range(chunk.start, min(chunk.stop, len(rows))):
                page, offset = sequence.pages[position // PAGE_SIZE], position % PAGE_SIZE
                assert position // PAGE_SIZE >= sequence.num_published, "a shared page is written"
                self.content.setdefault(page, [None] * PAGE_SIZE)[offset] = rows[position]

    @invariant()
    def pages_are_accounted_for(self) -> None:
        """Nothing is lost, held twice, or shared between seats."""
        assert self.parts.scheduler.check(self.known) == []

    @invariant()
    def what_is_found_is_what_would_have_been_computed(self) -> None:
        """All rows behind a sequence were written for just its tokens, images and plan."""
        done = {chunk.sequence for chunk in self.launched.chunks} if self.launched else set()
        for sequence in self.known:
            if not sequence.pages or sequence in done:
                continue
            rows = _rows(sequence)
            for position in range(sequence.num_computed):
                page, offset = sequence.pages[position // PAGE_SIZE], position % PAGE_SIZE
                assert self.content[page][offset] == rows[position]

    def teardown(self) -> None:
        """Let all that is left run to its end: everything is given back."""
        self._read(self.launched, 7)
        while self.known:
            self.step(7, looks_ahead=False)
            self.pages_are_accounted_for()
        assert self.parts.pool.num_used == 0
        assert self.parts.tables.num_free == self.parts.tables.num_seats


def _rows(sequence: Sequence) -> list[Row]:
    """Say what each known position's K/V are, with all that came before it."""
    request = sequence.request
    images = iter([(i.digest, k) for i in request.images for k in range(4)])
    rows: list[Row] = []
    before: Row = (request.cache_salt,)
    for position, token_id in enumerate(sequence.known_ids.tolist()):
        is_prompt = position < sequence.num_prompt
        token_class = request.token_classes[position] if is_prompt else TokenClass.GENERATED
        shows = next(images) if is_prompt and token_id == IMAGE_ID else None
        before = (before, token_id, shows, _path(sequence.plan.plan, token_class))
        rows.append(before)
    return rows


def _path(plan: Plan, token_class: TokenClass) -> Row:
    """Return what a row has been through at each of its K/V projections."""
    seen: list[Any] = []
    path = []
    for cell, stores_kv in zip(plan.columns[token_class], plan.kv[token_class], strict=True):
        # The second of a pair reads what the first one read.
        source = tuple(seen[:-1]) if cell.pair is Pair.SECOND else tuple(seen)
        path.append(_without_idle(source) if stores_kv else None)
        seen.append(cell)
    while path and path[-1] is None:
        path.pop()
    return tuple(path)


def _without_idle(cells: tuple[Any, ...]) -> Row:
    """Idle layers at the end change nothing; those between are told apart by their place."""
    last = max((i for i, cell in enumerate(cells) if cell != IDLE), default=-1)
    return cells[: last + 1]


TestEngineStates = EngineStates.TestCase
TestEngineStates.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
