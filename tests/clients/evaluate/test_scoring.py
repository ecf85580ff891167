"""Scores against figures worked out by hand, and the interval against its published formula."""

import math

import pytest

from skipserve_client.evaluate.scoring import GradedAnswer, TypeScore, normalise, score

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("given", "plain"),
    [(" Red.", "red"), ("a  small\nred star", "a small red star"), ("2", "2"), (".", ""), ("", "")],
)
def test_normalise(given: str, plain: str) -> None:
    assert normalise(given) == plain


def test_only_equal_answers_are_correct() -> None:
    assert GradedAnswer("colour", "red", "Red.").is_correct
    assert not GradedAnswer("colour", "red", "red star").is_correct
    assert not GradedAnswer("colour", "red", "").is_correct


def test_score_by_type() -> None:
    result = score(
        [
            GradedAnswer("count", "1", "1"),
            GradedAnswer("count", "1", "2"),
            GradedAnswer("count", "1", "1"),
            GradedAnswer("count", "2", "2"),
            GradedAnswer("colour", "red", "red"),
        ]
    )
    assert (result.accuracy, result.n) == (0.8, 5)
    assert result.majority == 0.8
    assert result.types["count"] == TypeScore(accuracy=0.75, majority=0.75, n=4)
    assert result.types["colour"] == TypeScore(accuracy=1.0, majority=1.0, n=1)


def test_parts_of_a_type_stand_beside_it() -> None:
    answers = [
        GradedAnswer.of("yes/no", ("yes",), "yes", "present", "no"),
        GradedAnswer.of("yes/no", ("no",), "yes", "absent", "No."),
        GradedAnswer.of("yes/no", ("no", "none"), "none", "absent", "no"),
        GradedAnswer.of("colour", ("red",), "red", None, "blue"),
    ]
    result = score(answers)
    assert result.types == {
        "yes/no": TypeScore(accuracy=2 / 3, majority=2 / 3, n=3),
        "colour": TypeScore(accuracy=1.0, majority=0.0, n=1),
        "yes/no, present": TypeScore(accuracy=1.0, majority=0.0, n=1),
        "yes/no, absent": TypeScore(accuracy=0.5, majority=1.0, n=2),
    }
    assert (result.n, result.majority) == (4, 0.5)


@pytest.mark.parametrize(("correct", "n"), [(0, 10), (7, 10), (10, 10), (950, 1000)])
def test_interval_is_wilsons(correct: int, n: int) -> None:
    # Source: Wilson, "Probable inference, the law of succession", 1927; z of 95 %.
    z, share = 1.959963984540054, correct / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    graded = [GradedAnswer("t", "yes", "yes" if rank < correct else "no") for rank in range(n)]
    result = score(graded)
    assert result.low == pytest.approx(max(0.0, middle - half), abs=1e-9)
    assert result.high == pytest.approx(min(1.0, middle + half), abs=1e-9)


def test_a_type_must_beat_its_majority_clearly() -> None:
    assert TypeScore(accuracy=0.66, majority=0.5, n=100).is_above_majority
    assert not TypeScore(accuracy=0.64, majority=0.5, n=100).is_above_majority


def test_nothing_cannot_be_scored() -> None:
    with pytest.raises(ValueError, match="at least one answer"):
        score([])
