"""The file of records: it outlives what writes it, and never mixes evaluations."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from skipserve_client.command_group import CommandError
from skipserve_client.evaluate.records import Conditions, Record, RecordFile
from skipserve_client.evaluate.sample import Sample
from skipserve_client.replies import Answer

pytestmark = pytest.mark.fast

CONDITIONS = Conditions(
    data="riddles",
    model="demo",
    model_digest="abc",
    dtype="float32",
    device="cpu",
    max_tokens=8,
    concurrency=1,
)


def sample(index: int, question: str | None = None, answers: tuple[str, ...] = ("yes",)) -> Sample:
    text = question or f"question {index}"
    return Sample(index, Image.new("RGB", (2, 2)), text, answers, "all", f"riddles, line {index}")


SAMPLES = tuple(map(sample, range(3)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "records.jsonl"


@pytest.fixture
def records(completion: dict[str, Any]) -> list[Record]:
    answer = Answer.model_validate(completion)
    return [
        Record.of(it, it.digest(it.messages()), policy, answer, CONDITIONS)
        for it in SAMPLES
        for policy in ("full", "half")
    ]


def test_a_record_is_graded_and_says_all_that_is_needed_to_score_it(
    completion: dict[str, Any],
) -> None:
    asked = sample(2, answers=("TWO  red.", "2"))
    record = Record.of(asked, "d", "half", Answer.model_validate(completion), CONDITIONS)
    assert (record.policy, record.policy_digest, record.index) == ("half", "abc", 2)
    assert (record.expected, record.answer, record.correct) == (asked.answers, "two red", True)
    assert (record.finish_reason, record.planned_flops, record.full_flops) == ("stop", 750, 1000)
    assert record.item.given == "two red"
    assert record.model_digest == "abc"


def test_what_was_written_is_there_when_the_file_is_opened_again(
    path: Path, records: list[Record]
) -> None:
    with RecordFile(path) as file:
        for record in records[:4]:
            file.add(record)
        assert len(path.read_bytes().splitlines()) == 4
    with RecordFile(path) as file:
        assert file.records == records[:4]
        kept = file.kept(SAMPLES, ["full"], CONDITIONS)
        assert list(kept) == [("full", 0), ("full", 1)]
        file.add(records[4])
    with RecordFile(path) as file:
        assert file.records == records[:5]


@pytest.mark.parametrize("whole", [0, 2])
def test_a_line_that_was_cut_off_is_dropped(path: Path, records: list[Record], whole: int) -> None:
    lines = [record.model_dump_json() for record in records]
    path.write_text("".join(f"{line}\n" for line in lines[:whole]) + lines[whole][:50])
    with RecordFile(path) as file:
        assert len(file.records) == whole
        file.add(records[whole])
    with RecordFile(path) as file:
        assert file.records == records[: whole + 1]


@pytest.mark.parametrize("text", ["{}\n", '{"policies": {}}', '{"data": "demo"}', "hello\n", "\n"])
def test_another_file_is_left_alone(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(CommandError, match="line 1: is not a record of an evaluation"):
        RecordFile(path)
    assert path.read_text() == text


def test_only_one_evaluation_has_the_file(path: Path) -> None:
    with RecordFile(path), pytest.raises(CommandError, match="another evaluation writes"):
        RecordFile(path)
    RecordFile(path).close()


def test_a_file_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="cannot be written"):
        RecordFile(tmp_path / "nowhere" / "records.jsonl")


def test_a_full_disk_is_told(
    path: Path, records: list[Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        RecordFile(path) as file,
        Path("/dev/full").open("wb", buffering=0) as full,
        monkeypatch.context() as patch,
    ):
        patch.setattr(file, "_file", full)
        with pytest.raises(CommandError, match="No space left"):
            file.add(records[0])


def test_what_is_no_file_is_refused() -> None:
    with pytest.raises(CommandError, match="is not a file"):
        RecordFile(Path("/dev/null"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("data", "others"),
        ("model_digest", "abd"),
        ("dtype", "bfloat16"),
        ("max_tokens", 9),
        ("concurrency", 2),
    ],
)
def test_records_made_otherwise_are_refused(
    path: Path, records: list[Record], name: str, value: Any
) -> None:
    with RecordFile(path) as file:
        file.add(records[0])
        other = CONDITIONS.model_copy(update={name: value})
        with pytest.raises(CommandError, match=f"its {name} is {getattr(CONDITIONS, name)}, not"):
            file.kept(SAMPLES, ["full"], other)


@pytest.mark.parametrize(
    "other",
    [
        sample(1, question="another"),
        sample(1, answers=("no",)),
        Sample(
            1, Image.new("RGB", (2, 2), "red"), "question 1", ("yes",), "all", "riddles, line 1"
        ),
    ],
    ids=["question", "answer", "picture"],
)
def test_records_of_other_questions_are_refused(
    path: Path, records: list[Record], other: Sample
) -> None:
    samples = (SAMPLES[0], other, SAMPLES[2])
    with RecordFile(path) as file:
        for record in records:
            file.add(record)
        with pytest.raises(CommandError, match="another question than that of riddles, line 1"):
            file.kept(samples, ["full"], CONDITIONS)
        assert len(file.kept(samples[:1], ["full", "half"], CONDITIONS)) == 2
