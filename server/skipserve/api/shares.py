"""Who holds how much of what there is only so much of, so that nobody is kept out by one other."""

from collections import Counter

from skipserve.media.places import Owner


class Shares:
    """Counts what owners hold.

    One owner alone may hold all. Whoever comes when all is held, and holds less than an equal
    share, is let in nevertheless: those who hold more are not, until there is room again.

    Args:
        total: what there is.
        most: what all may hold together if they are let in so.
    """

    def __init__(self, total: int, most: int) -> None:
        self._total = total
        self._most = most
        self._num_held = 0
        self._held: Counter[Owner] = Counter()

    def held_by(self, owner: Owner) -> int:
        """Return what an owner holds."""
        return self._held[owner]

    def is_below(self, owner: Owner, amount: int) -> bool:
        """Whether an owner with so much more would hold no more than a share, beside others."""
        num_others = len(self._held) - (owner in self._held)
        if not num_others or self._num_held + amount > self._most:
            return False
        return self._held[owner] + amount <= self._total // (num_others + 1)

    def take(self, owner: Owner, amount: int) -> None:
        """Let an owner hold more."""
        self._num_held += amount
        self._held[owner] += amount
        if not self._held[owner]:
            del self._held[owner]

    def give_back(self, owner: Owner, amount: int) -> None:
        """Let an owner hold less."""
        self.take(owner, -amount)
