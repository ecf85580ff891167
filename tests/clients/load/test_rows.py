"""Files of arrivals and of questions, and what is wrong with some."""

from pathlib import Path

import pytest

from skipserve_client.command_group import CommandError
from skipserve_client.load.rows import Row, read_rows

pytestmark = pytest.mark.fast


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_csv_file_names_its_columns(folder: Path) -> None:
    text = "seconds,picture,question,policy,max_tokens\n1.5,a.png,Why?,full,3\n0,,,,\n"
    path = write(folder, "arrivals.csv", text)
    assert read_rows(path, "--arrivals-file", with_times=True) == [
        Row(seconds=0),
        Row(seconds=1.5, picture=folder / "a.png", question="Why?", policy="full", max_tokens=3),
    ]


@pytest.mark.parametrize("name", ["times.csv", "times.jsonl"])
def test_numbers_alone_are_times(folder: Path, name: str) -> None:
    path = write(folder, name, "0.5\n\n0.25\n2\n")
    rows = read_rows(path, "--arrivals-file", with_times=True)
    assert [row.seconds for row in rows] == [0.25, 0.5, 2]


def test_json_lines(folder: Path) -> None:
    path = write(
        folder,
        "arrivals.jsonl",
        '{"seconds": 1, "policy": {"rules": []}}\n{"seconds": 0, "image": "b.png"}\n',
    )
    first, second = read_rows(path, "--arrivals-file", with_times=True)
    assert (first.picture, second.policy) == (folder / "b.png", {"rules": []})


def test_questions_of_an_evaluation_are_taken(folder: Path) -> None:
    text = '{"image": "b.png", "question": "Why?", "answer": "so", "type": "x"}\n'
    (row,) = read_rows(write(folder, "q.jsonl", text), "--questions", with_times=False)
    assert (row.question, row.picture) == ("Why?", folder / "b.png")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.csv", "seconds\nsoon\n", "line 1.*seconds"),
        ("a.csv", "seconds\n-1\n", "line 1.*seconds"),
        ("a.csv", "", "each line needs seconds"),
        ("a.csv", "time\n3\n", "each line needs seconds"),
        ("a.jsonl", "{", "line 1 is not JSON"),
        ("a.jsonl", "1\n[1]", "line 2"),
        ("a.jsonl", "true", "line 1"),
        ("a.jsonl", "NaN", "line 1"),
        ("a.jsonl", '{"seconds": 1, "max_tokens": 0}', "line 1.*max_tokens"),
    ],
)
def test_what_is_wrong_is_told(folder: Path, name: str, text: str, told: str) -> None:
    with pytest.raises(CommandError, match=told):
        read_rows(write(folder, name, text), "--arrivals-file", with_times=True)


def test_questions_need_a_question(folder: Path) -> None:
    with pytest.raises(CommandError, match="each line needs question"):
        read_rows(write(folder, "q.jsonl", '{"image": "b.png"}'), "--questions", with_times=False)


def test_files_that_cannot_be_read(folder: Path) -> None:
    (folder / "bytes.jsonl").write_bytes(b"\xff\xfe")
    for path in (folder, folder / "nothing.csv", folder / "bytes.jsonl"):
        with pytest.raises(CommandError, match=f"--questions {path}"):
            read_rows(path, "--questions", with_times=False)
