"""Records: written, read, and counted."""

from pathlib import Path

import pytest

from skipserve_client.evaluate.easy_vqa import EasyQuestion
from skipserve_training.paper.answering import Verdict
from skipserve_training.paper.asking import Asked
from skipserve_training.paper.records import (
    ALL,
    Count,
    Record,
    Score,
    TrainingFigures,
    Way,
    as_bits,
    read_all,
    tally,
    write,
)

pytestmark = pytest.mark.fast

RIGHT, WRONG = Verdict(True, True, True), Verdict(False, False, False)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 307])
def test_bits_come_back(count: int) -> None:
    exact = [place % 3 == 0 for place in range(count)]
    accepted = [not each for each in exact]
    types = {ALL: Count(count, 0, 0, 0, 0)}
    score = Score(types, as_bits(exact), as_bits(accepted), 1.0)
    assert score.right(Way.EXACT) == exact
    assert score.right(Way.ACCEPTED) == accepted


def test_answers_are_counted_by_type() -> None:
    asked = [
        Asked(EasyQuestion("what color is the shape?", "red", 0), 0),
        Asked(EasyQuestion("is there a blue shape?", "no", 0), 0),
        Asked(EasyQuestion("is there a red shape?", "yes", 0), 0),
    ]
    verdicts = [RIGHT, Verdict(False, True, True), WRONG]
    blind = {"is there a blue shape?": "no", "is there a red shape?": "no"}
    counts = tally(asked, verdicts, blind)
    assert counts["colour"] == Count(1, 1, 1, 1, 0)
    assert counts["yes/no, absent"] == Count(1, 0, 1, 1, 1)
    assert counts["yes/no, present"] == Count(1, 0, 0, 0, 0)
    assert counts[ALL] == Count(3, 1, 2, 2, 1)
    assert [*counts][-1] == ALL


def _record(name: str, trained: Score | None, training: TrainingFigures | None) -> Record:
    score = Score({ALL: Count(4, 3, 3, 3, 2)}, as_bits([True] * 3 + [False]), "e", 0.5)
    return Record({"name": name}, "make", score, trained, training, 12.5, [2, 4], None, {})


def test_a_record_comes_back(tmp_path: Path) -> None:
    trained = Score({ALL: Count(4, 4, 4, 4, 2)}, "f", "f", 0.5)
    records = [
        _record("a", None, None),
        _record("b", trained, TrainingFigures(267, 0.4, 100.0, 120.0)),
    ]
    for record in records:
        write(record, tmp_path / "records")
    assert read_all(tmp_path / "records") == {record.name: record for record in records}
    assert [path.name for path in sorted((tmp_path / "records").iterdir())] == ["a.json", "b.json"]
    assert records[0].said == "75.0% of 4"
    assert records[1].said == "75.0% of 4 -> 100.0% of 4"
    assert records[0].last == records[0].untrained
    assert records[1].last == trained


@pytest.mark.parametrize("text", ["{}", "[]", "nothing", '{"trained": null, "training": null}'])
def test_another_file_is_refused_by_name(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=r"x\.json is no record of a cell"):
        read_all(tmp_path)
