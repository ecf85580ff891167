"""Decides which rows run in the next step: owners by turns, within one token budget."""

from bisect import insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from skipserve.engine.drops import Reached
from skipserve.engine.fair_queue import FairQueue
from skipserve.engine.pages import PageKey, PagePool
from skipserve.engine.sequence import NO_SEAT, Sequence
from skipserve.engine.tables import SeatTables

_arrived = attrgetter("arrived")
_NOTHING = range(0)


@dataclass(slots=True)
class Chunk:
    """The rows of one sequence in a forward.

    Attributes:
        sequence: whose they are.
        start: their first position.
        stop: the position after their last one.
        samples: whether they are all that the sequence has, and so give a token.
        waits: whether they go no further than where their prompt is to be ranked.
        ranked_from: where they bring what the ranking of the prompt waited for, how many of its
            leading rows were at hand; else None.
        scored: which of the scored rows of its sequence are among them, and not scored yet.
    """

    sequence: Sequence
    start: int
    stop: int
    samples: bool
    waits: bool = False
    ranked_from: int | None = None
    scored: range = _NOTHING

    @property
    def scored_positions(self) -> NDArray[np.int64]:
        """The positions of its rows whose next token is scored."""
        return self.sequence.request.scored_rows[self.scored.start : self.scored.stop]

    def reached(self, stage: int) -> Reached:
        """Return which of the rows reach a stage of a sequence of whose prompt some leave."""
        assert self.sequence.drops is not None
        stop = self.start if self.waits and stage else self.stop
        return self.sequence.drops.reached(stage, self.start, stop, self.ranked_from)


@dataclass
class Step:
    """The rows of one forward.

    Attributes:
        chunks: one a sequence that takes part.
        placed: sequences that have got their seat for this step.
        num_rows: over all chunks.
        num_budgeted: the most that any layer sees: more where the rows of a prompt that have waited
            go on.
        num_scored: rows whose next token is scored.
    """

    chunks: list[Chunk] = field(default_factory=list)
    placed: list[Sequence] = field(default_factory=list)
    num_rows: int = 0
    num_budgeted: int = 0
    num_scored: int = 0

    @property
    def has_long_chunks(self) -> bool:
        """Whether some sequence has several rows in it."""
        return self.num_rows > len(self.chunks)

    @property
    def sampling(self) -> list[Sequence]:
        """The sequences that are given a token."""
        return [chunk.sequence for chunk in self.chunks if chunk.samples]

    def add(self, sequence: Sequence, stop: int) -> None:
        """Take a sequence's pending rows in, up to a position; they count as computed from now."""
        start = sequence.num_computed
        samples = stop == sequence.num_tokens
        chunk = Chunk(sequence, start, stop, samples)
        self.chunks.append(chunk)
        self.num_rows += stop - start
        self.num_budgeted += stop - start
        if sequence.awaits_ranking:
            self._rank(chunk)
        if sequence.scores_prompt and start < sequence.num_prompt:
            chunk.scored = sequence.score_until(start, stop)
            self.num_scored += len(chunk.scored)
        sequence.num_computed = stop
        sequence.num_tokens += samples

    def _rank(self, chunk: Chunk) -> None:
        """Have the prompt ranked with its last row: all rows that are left go on then."""
        drops = chunk.sequence.drops
        assert drops is not None
        chunk.waits = chunk.stop < chunk.sequence.num_prompt
        if not chunk.waits:
            chunk.ranked_from = drops.first
            self.num_budgeted += max(drops.widest - (chunk.stop - chunk.start), 0)


class Scheduler:
    """Holds the sequences that are under way, and gives them seats and pages.

    A sequence gets the pages of its prompt when it starts and more as it grows. When none are
    left, the one that came last goes back to wait and is computed again later: what it had
    published may still be found then. So do all of a step that could not run.

    Attributes:
        num_preemptions: how often that happened.

    Args:
        pool: the pages.
        tables: the seats.
        max_rows: rows of one step.
        reuses_prefixes: whether sequences look for pages that were computed before.
    """

    def __init__(
        self, pool: PagePool, tables: SeatTables, max_rows: int, *, reuses_prefixes: bool = True
    ) -> None:
        self.num_preemptions = 0
        self._pool = pool
        self._tables = tables
        self._max_rows = max_rows
        self._reuses_prefixes = reuses_prefixes
        # In the order of arrival.
        self._running: list[Sequence] = []
        self._waiting = FairQueue()

    @property
    def num_running(self) -> int:
        """Sequences that have a seat."""
        return len(self._running)

    @property
    def num_waiting(self) -> int:
        """Sequences that have none."""
        return len(self._waiting)

    def __iter__(self) -> Iterator[Sequence]:
        """Yield all sequences, running ones first."""
        return chain(self._running, self._waiting)

    def add(self, sequence: Sequence) -> None:
        """Line a sequence up."""
        self._waiting.append(sequence)

    def end(self, sequence: Sequence) -> None:
        """Let go of a sequence wherever it is, and take its pages back."""
        sequence.is_over = True
        if sequence in self._running:
            self._running.remove(sequence)
            self._stop(sequence)
        else:
            self._waiting.remove(sequence)

    def schedule(self) -> Step:
        """Choose the rows of the next step; their positions count as computed from then on."""
        step = Step()
        if self._schedule_running(step):
            self._admit(step)
        return step

    def take_back(self, step: Step) -> None:
        """Have the sequences of a step that did not run wait again, unless they are over by now."""
        for chunk in step.chunks:
            if not chunk.sequence.is_over:
                chunk.sequence.num_tokens -= chunk.samples
                if chunk.scored:
                    chunk.sequence.score_again(chunk.scored)
                self._preempt(chunk.sequence)

    def publish(self, step: Step) -> None:
        """Let others find the pages that a step has filled."""
        if not self._reuses_prefixes:
            return
        page_size = self._tables.page_size
        for chunk in step.chunks:
            sequence = chunk.sequence
            num_full = min(chunk.stop, sequence.num_shareable) // page_size
            if chunk.waits:
                continue
            # A preempted sequence has no pages, one that is over has given them back.
            if num_full > sequence.num_published and sequence.seat != NO_SEAT:
                token_ids = self._tables.token_ids[sequence.seat]
                for place in range(sequence.num_published, num_full):
                    key = sequence.keys.key(place, token_ids)
                    self._pool.publish(sequence.pages[place], key)
                sequence.num_published = num_full

    def _schedule_running(self, step: Step) -> bool:
        """Take in what the budget allows; return whether nobody had to go for it.

        Those that lack one row come first: a long prompt is not to hold up answers. Looking ahead,
        those whose last token must be read first wait for that.
        """
        num_before = self.num_preemptions
        place = 0
        while place < len(self._running) and step.num_budgeted < self._max_rows:
            sequence = self._running[place]
            stop = sequence.next_stop
            waits = sequence.reads_first and sequence.num_unread
            is_next = stop == sequence.num_computed + 1 and not sequence.awaits_ranking
            if is_next and not waits:
                if stop > sequence.num_allotted and not self._make_room(sequence, stop):
                    break
                step.add(sequence, stop)
            place += 1
        if len(step.chunks) < len(self._running):
            self._schedule_chunks(step)
        return self.num_preemptions == num_before

    def _schedule_chunks(self, step: Step) -> None:
        """Take in those that lack several rows; they have the pages for these."""
        for sequence in self._running:
            stop = self._next_stop(sequence, step)
            # One row more is what a sequence lacks that has just been taken in.
            lacks_more = sequence.next_stop > sequence.num_computed + 1 or sequence.awaits_ranking
            if lacks_more and stop > sequence.num_computed:
                step.add(sequence, stop)

    def _next_stop(self, sequence: Sequence, step: Step) -> int:
        """Return how far a sequence can get with the rows that a step has left."""
        reach = sequence.num_computed + max(self._max_rows - step.num_budgeted, 0)
        stop = min(sequence.next_stop, reach)
        return self._ranked_stop(sequence, stop, step) if sequence.awaits_ranking else stop

    def _ranked_stop(self, sequence: Sequence, stop: int, step: Step) -> int:
        """Return how far a sequence may get whose prompt is ranked.

        With the last row of the prompt, all go on that are left, and need room in the step, unless
        no other long chunk is there. Before, they wait: the rows of one sequence at a time.
        """
        drops, num_prompt = sequence.drops, sequence.num_prompt
        assert drops is not None
        # An answer that has begun before goes on behind what the prompt leaves.
        stop = min(stop, num_prompt)
        if stop == num_prompt:
            if not step.has_long_chunks or drops.widest <= self._max_rows - step.num_budgeted:
                return stop
            stop = num_prompt - 1
        others = (it for it in self._running if it is not sequence and it.awaits_ranking)
        if any(it.drops and it.num_computed > it.drops.first for it in others):
            return sequence.num_computed
        return stop

    def _make_room(self, sequence: Sequence, num_positions: int) -> bool:
        """Give a running sequence the pages it needs; False if it had to go itself."""
        num_missing = -(-num_positions // self._tables.page_size) - len(sequence.pages)
        while self._pool.num_available < num_missing:
            if self._preempt_last() is sequence:
                return False
        self._extend(sequence, num_missing)
        return True

    def _extend(self, sequence: Sequence, num_pages: int) -> None:
        last = sequence.pages[-1] if sequence.pages else None
        self._tables.extend(sequence, self._pool.allocate(num_pages, after=last))

    def _preempt_last(self) -> Sequence:
        sequence = self._running[-1]
        self._preempt(sequence)
        return sequence

    def _preempt(self, sequence: Sequence) -> None:
        self._running.remove(sequence)
        self._stop(sequence)
        sequence.num_computed = sequence.num_published = 0
        self._waiting.put_back(sequence)
        self.num_preemptions += 1

    def _stop(self, sequence: Sequence) -> None:
        self._pool.release(sequence.pages)
        self._tables.clear(sequence)
        if sequence.drops is not None:
            sequence.drops.begin(0)

    def _admit(self, step: Step) -> None:
        """Start waiting sequences, by turns, while rows, seats and pages are left.

        One whose next page is just being computed for another lets those behind it pass: in a step
        or two it can have that page.
        """
        if not self._waiting or not self._tables.num_free:
            return
        computing = {key.digest for s in self._running for key in self._unpublished(s)}
        held = []
        while self._waiting and step.num_budgeted < self._max_rows and self._tables.num_free:
            sequence = self._waiting.pop()
            found = self._find_pages(sequence)
            next_key = next(islice(self._keys(sequence), len(found), None), None)
            is_early = next_key is not None and next_key.digest in computing
            if is_early or not self._start(sequence, found):
                self._pool.release(found)
                held.append(sequence)
                if is_early:
                    continue
                break
            computing.update(key.digest for key in self._unpublished(sequence))
            step.placed.append(sequence)
            stop = self._next_stop(sequence, step)
            if stop > sequence.num_computed:
                step.add(sequence, stop)
        for sequence in reversed(held):
            self._waiting.put_back(sequence)

    def _start(self, sequence: Sequence, found: list[int]) -> bool:
        """Give a sequence a seat and pages for all its tokens and a page's worth more, if it can.

        A short answer then lies beside its prompt. A page for each running sequence is left, or
        they would have to go at once.
        """
        page_size = self._tables.page_size
        num_missing = -(-sequence.first_reach(page_size) // page_size) - len(found)
        if self._pool.num_available < num_missing + len(self._running):
            return False
        self._tables.place(sequence)
        self._tables.extend(sequence, found)
        self._extend(sequence, num_missing)
        # One that was held back or preempted is older than some that run.
        insort(self._running, sequence, key=_arrived)
        sequence.num_published = len(found)
        sequence.num_computed = len(found) * page_size
        if not sequence.started:
            sequence.num_cached = sequence.num_computed
        if sequence.drops is not None:
            sequence.drops.begin(sequence.num_computed)
        return True

    def _find_pages(self, sequence: Sequence) -> list[int]:
        """Hold the pages that were computed before."""
        return self._pool.match(self._keys(sequence))

    def _keys(self, sequence: Sequence) -> Iterator[PageKey]:
        """Yield the names of the pages that a sequence could find.

        Its last token is always computed anew.
        """
        if self._reuses_prefixes:
            known_ids = sequence.known_ids
            num_found = min(len(known_ids) - 1, sequence.num_findable)
            for place in range(num_found // self._tables.page_size):
                yield sequence.keys.key(place, known_ids)

    def _unpublished(self, sequence: Sequence) -> Iterator[PageKey]:
        """Yield the names of the prompt's pages that are being computed for a running sequence."""
        if self._reuses_prefixes:
            known_ids = sequence.known_ids
            num_full = min(sequence.num_prompt, sequence.num_shareable) // self._tables.page_size
            for place in range(sequence.num_published, num_full):
                yield sequence.keys.key(place, known_ids)

    def check(self, sequences: Iterable[Sequence]) -> list[str]:
        """Return what is wrong with the bookkeeping; nothing in a sound scheduler.

        Args:
            sequences: all that the engine knows of.
        """
        faults = self._pool.check([sequence.pages for sequence in self._running])
        if set(sequences) != set(self):
            faults.append("the scheduler does not hold just the engine's sequences")
        seats = [sequence.seat for sequence in self._running]
        if len(set(seats)) != len(seats) or self._tables.num_seats - len(seats) != (
            self._tables.num_free
        ):
            faults.append("seats are shared or lost")
        for sequence in self._running:
            num_pages = len(sequence.pages)
            if self._tables.pages[sequence.seat, :num_pages].tolist() != sequence.pages:
                faults.append(f"the page table of {sequence.request.id} is not its pages")
        if any(sequence.pages for sequence in self._waiting):
            faults.append("a waiting sequence holds pages")
        return faults
