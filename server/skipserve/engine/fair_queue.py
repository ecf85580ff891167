"""Who is next among sequences that wait: owners by turns, those of one owner by rank."""

from bisect import insort
from collections import OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from operator import attrgetter

from skipserve.engine.sequence import Sequence

_rank = attrgetter("rank")


@dataclass(slots=True)
class _Line:
    """The sequences of one owner.

    Attributes:
        sequences: in the order of their ranks: by priority, then by arrival.
        credit: FLOPs that the owner may still start.
        has_share: whether it was given its share for this turn.
    """

    sequences: deque[Sequence] = field(default_factory=deque)
    credit: int = 0
    has_share: bool = False


class FairQueue:
    """Sequences that wait, in the order in which they are to start.

    Deficit round robin (Shreedhar and Varghese, 1995): in each round every owner may start as many
    FLOPs as the largest request that is first in a line, and saves what is too little for its own.
    So many small requests weigh as much as few large ones. One owner alone is served in the order
    of rank, and pays nothing: priority is among its own requests, never over those of others.
    """

    def __init__(self) -> None:
        # In the order of the owners' turns.
        self._lines: OrderedDict[int, _Line] = OrderedDict()

    def __len__(self) -> int:
        return sum(len(line.sequences) for line in self._lines.values())

    def __bool__(self) -> bool:
        return bool(self._lines)

    def __iter__(self) -> Iterator[Sequence]:
        """Yield all sequences, owner by owner."""
        return chain.from_iterable(line.sequences for line in self._lines.values())

    def append(self, sequence: Sequence) -> None:
        """Line a sequence up, which has come last of its priority."""
        insort(self._line(sequence).sequences, sequence, key=_rank)

    def pop(self) -> Sequence:
        """Return the sequence whose turn it is, which then waits no more; there must be one."""
        is_shared = len(self._lines) > 1
        if is_shared:
            self._pass_turns()
        owner, line = next(iter(self._lines.items()))
        sequence = line.sequences.popleft()
        sequence.turn_cost = _cost(sequence) if is_shared else 0
        line.credit -= sequence.turn_cost
        if not line.sequences:
            del self._lines[owner]
        return sequence

    def put_back(self, sequence: Sequence) -> None:
        """Have a sequence wait again, in its place: its turn cost nothing, and comes next."""
        line = self._line(sequence)
        self._lines.move_to_end(sequence.request.owner, last=False)
        line.credit += sequence.turn_cost
        line.has_share = True
        sequence.turn_cost = 0
        if not line.sequences or sequence.rank <= line.sequences[0].rank:
            line.sequences.appendleft(sequence)
        else:
            insort(line.sequences, sequence, key=_rank)

    def remove(self, sequence: Sequence) -> None:
        """Let a sequence go."""
        line = self._lines[sequence.request.owner]
        line.sequences.remove(sequence)
        if not line.sequences:
            del self._lines[sequence.request.owner]

    def _line(self, sequence: Sequence) -> _Line:
        return self._lines.setdefault(sequence.request.owner, _Line())

    def _pass_turns(self) -> None:
        """Go on to an owner who can pay for its first sequence."""
        share = max(_cost(line.sequences[0]) for line in self._lines.values())
        while True:
            owner, line = next(iter(self._lines.items()))
            # Those that came back have saved more: they are not all to start at once.
            line.credit = min(line.credit, 2 * share)
            if not line.has_share:
                line.credit += share
                line.has_share = True
            if line.credit >= _cost(line.sequences[0]):
                return
            line.has_share = False
            self._lines.move_to_end(owner)


def _cost(sequence: Sequence) -> int:
    return max(sequence.request.planned_flops, 1)
