"""MMBench: a question is asked with its options in every rotation, and all must be right."""

from collections.abc import Mapping, Sequence

import numpy as np

from skipserve_client.evaluate.metrics.choices import inferred_letter
from skipserve_client.evaluate.metrics.item import Item, groups_of
from skipserve_client.evaluate.metrics.metric import Array, Measure, Tally, one_stratum, share


class CircularMetric:
    """CircularEval: the share of questions that are answered right in each rotation.

    Source: Liu et al., "MMBench: Is Your Multi-modal Model an All-around Player?", 2023.
    """

    name = "mmbench"
    tells_right = True
    measures = (Measure("circular accuracy"), Measure("accuracy over rotations"))

    def worths(self, items: Sequence[Item]) -> Sequence[float]:
        """Return 1 for the letter that is right in the rotation that was asked."""
        return [float(inferred_letter(it.given, it.choices) in it.expected) for it in items]

    def tally(self, items: Sequence[Item], worths: Array) -> Tally:
        """Count for each question whether all rotations are right, 1, how many, of how many."""
        groups = groups_of(items).values()
        right = [[worths[place] for place in places] for places in groups]
        counts = np.array([[min(it), 1.0, sum(it), len(it)] for it in right])
        return Tally(
            counts,
            one_stratum(counts),
            lambda sums: share(sums[..., [0, 2]], sums[..., [1, 3]]),
        )

    def details(self, items: Sequence[Item]) -> Mapping[str, Mapping[str, float]]:
        """Return the circular accuracy by category."""
        worths = self.worths(items)
        found: dict[str, list[float]] = {}
        for places in groups_of(items).values():
            kind = items[places[0]].type
            found.setdefault(kind, []).append(min(worths[place] for place in places))
        return {
            kind: {"circular accuracy": sum(right) / len(right), "n": len(right)}
            for kind, right in found.items()
        }
