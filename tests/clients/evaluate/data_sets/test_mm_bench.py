"""MMBench, from tables of its published forms: with rotations of its own, and without."""

from collections.abc import Callable
from pathlib import Path

import pytest

from skipserve_client.command_group import CommandError
from skipserve_client.evaluate.data_sets.mm_bench import MM_BENCH

pytestmark = pytest.mark.fast

HEAD = "index\tquestion\thint\tA\tB\tC\tD\tanswer\tcategory\timage"
Write = Callable[[str, object], Path]


def table(*rows: str) -> str:
    return "\n".join([HEAD, *rows]) + "\n"


def test_a_question_is_asked_in_every_rotation(write: Write, picture_base64: str) -> None:
    row = f"241\tWhich one?\tnan\tred\tgreen\tblue\t\tB\tcolour\t{picture_base64}"
    root = write("mmbench.tsv", table(row)).parent
    samples = MM_BENCH.questions(root, None).samples
    assert [it.choices for it in samples] == [
        ("red", "green", "blue"),
        ("green", "blue", "red"),
        ("blue", "red", "green"),
    ]
    assert [it.answers for it in samples] == [("B",), ("A",), ("C",)]
    assert samples[1].question.splitlines() == [
        "Which one?",
        "A. green",
        "B. blue",
        "C. red",
        "Answer with the option's letter from the given choices directly.",
    ]
    assert {it.group for it in samples} == {"question 241"}
    assert (samples[0].type, samples[0].metric) == ("colour", "mmbench")
    assert str(samples[0].image).startswith("data:image/png;base64,iVBOR")
    samples[0].messages()


def test_rotations_of_the_file_are_taken_as_they_are(write: Write, picture_base64: str) -> None:
    rows = (
        f'3\tWhich one?\t"A hint, ""quoted"""\tred\tgreen\t\t\tA\tcolour\t{picture_base64}',
        "1000003\tWhich one?\t\tgreen\tred\t\t\tB\tcolour\t3",
    )
    samples = MM_BENCH.questions(write("t.tsv", table(*rows)), None).samples
    assert [(it.choices, it.answers, it.group) for it in samples] == [
        (("red", "green"), ("A",), "question 3"),
        (("green", "red"), ("B",), "question 3"),
    ]
    assert samples[0].question.startswith('A hint, "quoted"\nWhich one?')
    assert samples[0].image == samples[1].image


def test_the_first_so_many_are_whole_questions(write: Write, picture_base64: str) -> None:
    rows = [f"{n}\tWhich?\t\tx\ty\t\t\tA\tall\t{picture_base64}" for n in range(5)]
    samples = MM_BENCH.questions(write("t.tsv", table(*rows)).parent, 2).samples
    assert len(samples) == 4
    assert len({it.group for it in samples}) == 2


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (["5\tWhich?\t\tx\ty\t\t\tA\tall\tnothing"], "the picture of question 5 is none"),
        (["5\tWhich?\t\tx\ty\t\t\tZ\tall\t5"], "not in the form"),
    ],
)
def test_other_tables_are_refused(write: Write, rows: list[str], told: str) -> None:
    with pytest.raises(CommandError, match=told):
        MM_BENCH.questions(write("t.tsv", table(*rows)).parent, None)


def test_one_table_must_be_named(write: Write) -> None:
    write("a.tsv", table())
    root = write("b.tsv", table()).parent
    with pytest.raises(CommandError, match=r"holds a.tsv, b.tsv; name one of them"):
        MM_BENCH.questions(root, None)
