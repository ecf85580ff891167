"""VQAv2's accuracy: by its definition, and by its rules of writing."""

from itertools import combinations

import pytest

from skipserve_client.evaluate.vqa_accuracy import plain_form, vqa_accuracy

pytestmark = pytest.mark.fast


def _by_definition(said: str, answers: list[str]) -> float:
    """Average over the sets of nine annotators, spelt out."""
    sets = [*combinations(answers, len(answers) - 1)]
    return sum(min(some.count(said) / 3, 1) for some in sets) / len(sets)


@pytest.mark.parametrize("matches", range(11))
def test_it_is_the_mean_over_sets_of_nine(matches: int) -> None:
    answers = ["yes"] * matches + ["no"] * (10 - matches)
    accuracy = vqa_accuracy("yes", answers)
    assert accuracy == pytest.approx(_by_definition("yes", answers))
    assert accuracy == pytest.approx({0: 0.0, 1: 0.3, 2: 0.6, 3: 0.9}.get(matches, 1.0))


@pytest.mark.parametrize(
    ("written", "plain"),
    [
        ("Two", "2"), ("none", "0"), ("a dog", "dog"), ("The  Dog.", "dog"), ("3.5", "3.5"),
        ("1,000", "1000"), ("red, white", "red white"), ("red/white", "red white"),
        ("dont", "don't"), ("don't", "don't"), ("black-and-white", "black and white"),
        ("yes!", "yes"), ("well ?", "well"), ("its", "its"), ("\nno\t", "no"), ("", ""),
    ],
)  # fmt: skip
def test_answers_are_compared_in_a_plain_form(written: str, plain: str) -> None:
    assert plain_form(written) == plain


def test_annotators_are_written_plainly_too() -> None:
    assert vqa_accuracy("two", ["2", "Two.", "the two", *["3"] * 7]) == pytest.approx(0.9)


def test_one_annotator_is_not_enough() -> None:
    with pytest.raises(ValueError, match="answers are 1: expected those of two annotators"):
        vqa_accuracy("yes", ["yes"])
