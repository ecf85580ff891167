"""POPE: yes or no, with the figures of a detector for each way in which objects were chosen."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from skipserve_client.evaluate.metrics.item import Item
from skipserve_client.evaluate.metrics.metric import Array, Measure, Tally, share

YES, NO = "yes", "no"
_NO_WORDS = {"No", "not", "no"}


def said(answer: str) -> str:
    """Return what POPE reads in an answer: no where its first sentence has no or not, else yes.

    Source: eval_pope.py of LLaVA, as evaluate.py of POPE.
    """
    words = answer.partition(".")[0].replace(",", "").split(" ")
    return NO if _NO_WORDS.intersection(words) else YES


class PopeMetric:
    """Each figure is the mean over the categories random, popular, adversarial.

    Source: Li et al., "Evaluating Object Hallucination in Large Vision-Language Models", 2023;
    LLaVA-1.5 reports the mean F1.
    """

    name = "pope"
    tells_right = True
    measures = tuple(map(Measure, ("F1", "accuracy", "precision", "recall", "yes ratio")))

    def worths(self, items: Sequence[Item]) -> Sequence[float]:
        """Return 1 for what is right."""
        return [float(said(item.given) in item.expected) for item in items]

    def tally(self, items: Sequence[Item], worths: Array) -> Tally:
        """Count true and false, yes and no, in each category; they are resampled apart."""
        del worths
        kinds = sorted({item.type for item in items})
        counts = np.zeros((len(items), len(kinds), 4))
        for place, item in enumerate(items):
            counts[place, kinds.index(item.type), _cell(item)] = 1.0

        def figures(sums: Array) -> Array:
            by_kind = sums.reshape(*sums.shape[:-1], len(kinds), 4)
            mean: Array = _figures(by_kind).mean(axis=-2)
            return mean

        strata = np.array([kinds.index(item.type) for item in items], dtype=np.int64)
        return Tally(counts.reshape(len(items), -1), strata, figures)

    def details(self, items: Sequence[Item]) -> Mapping[str, Mapping[str, float]]:
        """Return the figures of each category, with its questions' number."""
        found: dict[str, Any] = {}
        for kind in sorted({item.type for item in items}):
            cells = [_cell(item) for item in items if item.type == kind]
            figures = _figures(np.bincount(cells, minlength=4).astype(np.float64))
            named = {
                it.name: float(value) for it, value in zip(self.measures, figures, strict=True)
            }
            found[kind] = named | {"n": len(cells)}
        return found


def _cell(item: Item) -> int:
    """Return the cell of the table: right yes, wrong yes, right no, wrong no."""
    answer = said(item.given)
    return 2 * (answer == NO) + (answer not in item.expected)


def _figures(cells: Array) -> Array:
    """Return F1, accuracy, precision, recall and the ratio of yes, from cells [..., 4]."""
    right_yes, wrong_yes, right_no, wrong_no = np.moveaxis(cells, -1, 0)
    total = cells.sum(axis=-1)
    precision = share(right_yes, right_yes + wrong_yes)
    recall = share(right_yes, right_yes + wrong_no)
    return np.stack(
        [
            share(2 * precision * recall, precision + recall),
            share(right_yes + right_no, total),
            precision,
            recall,
            share(right_yes + wrong_yes, total),
        ],
        axis=-1,
    )
