"""What the running sequences hold, as arrays: one row a seat, so that a step gathers it at once."""

import numpy as np
from numpy.typing import NDArray

from skipserve.engine.plans import NUM_CLASSES
from skipserve.engine.sequence import NO_SEAT, Sequence
from skipserve_policies.plan import TokenClass

Table = NDArray[np.int64]

# Stands for a token that only the device knows.
UNREAD = -1


class SeatTables:
    """Tokens, plan columns and pages of the running sequences.

    Attributes:
        num_seats: so many sequences can run.
        page_size: positions of a page.
        token_ids: [seats, positions]; UNREAD where a token is not known yet.
        columns: the plan column of each position, [seats, positions].
        pages: [seats, pages].
    """

    def __init__(self, num_seats: int, num_positions: int, page_size: int) -> None:
        self.num_seats = num_seats
        self.page_size = page_size
        self.token_ids: Table = np.zeros((num_seats, num_positions), dtype=np.int64)
        self.columns: Table = np.zeros((num_seats, num_positions), dtype=np.int64)
        self.pages: Table = np.zeros((num_seats, -(-num_positions // page_size)), dtype=np.int64)
        self._free = list(reversed(range(num_seats)))

    @property
    def num_free(self) -> int:
        """Seats that no sequence has."""
        return len(self._free)

    def place(self, sequence: Sequence) -> None:
        """Give a sequence a seat and enter all that is known of it, its pages aside."""
        seat = sequence.seat = self._free.pop()
        request, known = sequence.request, sequence.known_ids
        self.token_ids[seat, : len(known)] = known
        self.token_ids[seat, len(known) :] = UNREAD
        first = sequence.plan.index * NUM_CLASSES
        self.columns[seat, : sequence.num_prompt] = request.class_array
        self.columns[seat, sequence.num_prompt :] = TokenClass.GENERATED
        self.columns[seat] += first

    def extend(self, sequence: Sequence, pages: list[int]) -> None:
        """Give a sequence more pages."""
        num_before = len(sequence.pages)
        sequence.pages += pages
        self.pages[sequence.seat, num_before : len(sequence.pages)] = pages
        sequence.num_allotted = len(sequence.pages) * self.page_size

    def clear(self, sequence: Sequence) -> None:
        """Take seat and pages back."""
        self._free.append(sequence.seat)
        sequence.seat = NO_SEAT
        sequence.pages = []
        sequence.num_allotted = 0
