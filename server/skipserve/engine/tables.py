"""What the running sequences hold, as arrays: one row a slot, so that a step gathers it at once."""

import numpy as np
from numpy.typing import NDArray

from skipserve.engine.plans import NUM_CLASSES
from skipserve.engine.sequence import NO_SLOT, Sequence
from skipserve_policies.plan import TokenClass

Table = NDArray[np.int64]

# Stands for a token that only the device knows.
UNREAD = -1


class SlotTables:
    """Tokens, plan columns and pages of the running sequences.

    Attributes:
        num_slots: so many sequences can run.
        page_size: positions of a page.
        token_ids: [slots, positions]; UNREAD where a token is not known yet.
        columns: the plan column of each position, [slots, positions].
        pages: [slots, pages].
    """

    def __init__(self, num_slots: int, num_positions: int, page_size: int) -> None:
        self.num_slots = num_slots
        self.page_size = page_size
        self.token_ids: Table = np.zeros((num_slots, num_positions), dtype=np.int64)
        self.columns: Table = np.zeros((num_slots, num_positions), dtype=np.int64)
        self.pages: Table = np.zeros((num_slots, -(-num_positions // page_size)), dtype=np.int64)
        self._free = list(reversed(range(num_slots)))

    @property
    def num_free(self) -> int:
        """Slots that no sequence has."""
        return len(self._free)

    def place(self, sequence: Sequence) -> None:
        """Give a sequence a slot and enter all that is known of it, its pages aside."""
        slot = sequence.slot = self._free.pop()
        request, known = sequence.request, sequence.known_ids
        self.token_ids[slot, : len(known)] = known
        self.token_ids[slot, len(known) :] = UNREAD
        first = sequence.plan.index * NUM_CLASSES
        self.columns[slot, : sequence.num_prompt] = request.class_array
        self.columns[slot, sequence.num_prompt :] = TokenClass.GENERATED
        self.columns[slot] += first

    def extend(self, sequence: Sequence, pages: list[int]) -> None:
        """Give a sequence more pages."""
        num_before = len(sequence.pages)
        sequence.pages += pages
        self.pages[sequence.slot, num_before : len(sequence.pages)] = pages
        sequence.num_allotted = len(sequence.pages) * self.page_size

    def clear(self, sequence: Sequence) -> None:
        """Take slot and pages back."""
        self._free.append(sequence.slot)
        sequence.slot = NO_SLOT
        sequence.pages = []
        sequence.num_allotted = 0
