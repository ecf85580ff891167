"""Metrics that are the mean over questions of what each answer is worth."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from skipserve_client.evaluate.metrics.choices import chosen_letter
from skipserve_client.evaluate.metrics.item import Item
from skipserve_client.evaluate.metrics.metric import (
    Array,
    Measure,
    Tally,
    mean_tally,
    share,
)
from skipserve_client.evaluate.metrics.vqa_answers import normalised, spoken
from skipserve_client.evaluate.scoring import normalise

_ENOUGH = 3  # annotators who agree


@dataclass(frozen=True)
class MeanMetric:
    """The mean over questions of what one answer is worth."""

    name: str
    measure: str
    worth: Callable[[Item], float]

    tells_right = True

    @property
    def measures(self) -> tuple[Measure, ...]:
        """The mean alone, in percent."""
        return (Measure(self.measure),)

    def worths(self, items: Sequence[Item]) -> Sequence[float]:
        """Return what each answer is worth, from 0 to 1."""
        return [self.worth(item) for item in items]

    def tally(self, items: Sequence[Item], worths: Array) -> Tally:
        """Count questions and what they are worth together."""
        return mean_tally(items, worths, _mean)

    def details(self, items: Sequence[Item]) -> Mapping[str, Mapping[str, float]]:
        """Return nothing: the means by type say it all."""
        del items
        return {}


def _mean(sums: Array) -> Array:
    return share(sums[..., :1], sums[..., 1:])


def _exact(item: Item) -> float:
    """Compare but for case, spaces and a final stop."""
    return float(normalise(item.given) in map(normalise, item.expected))


def _vqa(item: Item) -> float:
    """Return the accuracy of VQA for one question, of which ten people answered each.

    For each of them: 1 where three of the other nine gave that answer, less by thirds; then the
    mean. The authors' program leaves answers as they stand where all ten are equal; here they are
    made alike then too, which changes nothing but their case and signs.

    Source: Antol et al., "VQA: Visual Question Answering", 2015, and vqaEval.py.
    """
    return _agreement(normalised(item.given), map(normalised, item.expected))


def _text_vqa(item: Item) -> float:
    """Return TextVQA's accuracy for one question: VQA's, with both sides made alike further.

    Source: TextVQAAccuracyEvaluator of Pythia, which LLaVA-1.5's eval_textvqa.py runs.
    """
    return _agreement(spoken(item.given), map(spoken, item.expected))


def _agreement(given: str, answers: Iterable[str]) -> float:
    agreeing = [answer == given for answer in answers]
    total = sum(agreeing)
    return sum(min(1.0, (total - own) / _ENOUGH) for own in agreeing) / len(agreeing)


def _gqa(item: Item) -> float:
    """Compare as LLaVA-1.5 does for GQA: final stops off, in lower case, else equal.

    Source: convert_gqa_for_eval.py of LLaVA, and eval.py of GQA.
    """
    return float(item.given.rstrip(".").lower() in item.expected)


def _letter(item: Item) -> float:
    return float(chosen_letter(item.given, len(item.choices)) in item.expected)


EXACT = MeanMetric("exact", "exact match", _exact)
VQA = MeanMetric("vqa", "VQA accuracy", _vqa)
TEXT_VQA = MeanMetric("textvqa", "TextVQA accuracy", _text_vqa)
GQA = MeanMetric("gqa", "GQA accuracy", _gqa)
LETTER = MeanMetric("letter", "accuracy", _letter)


def commonest(items: Sequence[Item]) -> str:
    """Return the right answer that most questions share."""
    counts = Counter(answer for item in items for answer in dict.fromkeys(item.expected))
    return counts.most_common(1)[0][0]
