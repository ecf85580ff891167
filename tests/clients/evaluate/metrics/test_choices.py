"""Which letter an answer means, in LLaVA's reading for ScienceQA and in MMBench's."""

import pytest

from skipserve_client.evaluate.metrics.choices import chosen_letter, inferred_letter

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        (" B\n", None),  # the line's end is read as a stop
        (" B ", "B"),
        ("B. Ohio", "B"),
        ("B\nbecause", "B"),
        ("The answer is C.", "C"),
        ("I think so. The answer is A", "A"),
        ("Ohio", None),
        ("B) Ohio", None),
        ("b", None),
        ("D", None),  # there are three options
        ("", None),
        ("AB", None),
    ],
)
def test_llava_reads_a_letter(answer: str, letter: str | None) -> None:
    assert chosen_letter(answer, 3) == letter


CHOICES = ("a cat", "a dog", "a bird")


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("(B)", "B"),
        ("The answer is B.", "B"),
        ("A dog", "A"),  # as MMBench's own program: a letter at the end counts first
        ("it is a dog", "B"),
        ("A or B", None),
        ("a cat and a dog", None),
        ("A picture that shows us something else", None),
        ("D", None),
        ("", None),
        ("a dog " * 9, None),  # too long to name one
    ],
)
def test_mmbench_infers_a_letter(answer: str, letter: str | None) -> None:
    assert inferred_letter(answer, CHOICES) == letter
