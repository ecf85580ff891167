"""Records: written, read, and counted."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from skipserve_training.paper.records import (
    ALL,
    Count,
    Record,
    Score,
    TrainingFigures,
    Way,
    as_bits,
    as_grades,
    check_setup,
    read_all,
    setup_of,
    write,
)
from skipserve_training.paper.setup import SHIPPED, Scoring

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("count", [1, 3, 4, 5, 307])
def test_bits_come_back(count: int) -> None:
    exact = [place % 3 == 0 for place in range(count)]
    accepted = [not each for each in exact]
    types = {ALL: Count(count, 0, 0, 0, 0)}
    score = Score(types, as_bits(exact), as_bits(accepted), 1.0)
    assert score.right(Way.EXACT) == exact
    assert score.right(Way.ACCEPTED) == accepted


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


def test_answers_that_are_right_in_part_come_back() -> None:
    grades = [0.3, 1, 0.0, 0.9]
    assert as_grades(grades) == grades
    score = Score({ALL: Count(4, 1, 2.2, 0, 0)}, as_bits([True] * 4), as_grades(grades), 1.0)
    assert score.right(Way.ACCEPTED) == grades
    assert as_grades([1, 0.0, True]) == "a"


OWN = replace(SHIPPED, model="opt+vit", llm="opt", scoring=Scoring.VOTES, depth=32, patches=None)


def test_a_setup_comes_back(tmp_path: Path) -> None:
    record = replace(_record("a", None, None), setup=OWN)
    record = replace(record, untrained=replace(record.untrained, loss=0.5))
    write(record, tmp_path)
    assert read_all(tmp_path) == {"a": record}


def test_what_ships_names_no_setup(tmp_path: Path) -> None:
    write(_record("a", None, None), tmp_path)
    fields = json.loads((tmp_path / "a.json").read_text())
    assert "setup" not in fields
    assert "loss" not in fields["untrained"]


def test_records_of_several_setups_are_not_held_together(tmp_path: Path) -> None:
    records = {"a": _record("a", None, None), "b": _record("b", None, None)}
    assert setup_of(records) == SHIPPED
    assert setup_of({}) is None
    records["b"] = replace(records["b"], setup=OWN)
    with pytest.raises(
        ValueError, match=r"a and b cannot be held together: .*depth is 32, expected"
    ):
        setup_of(records)
    write(records["b"], tmp_path)
    check_setup(tmp_path, OWN)
    check_setup(tmp_path / "nowhere", SHIPPED)
    with pytest.raises(ValueError, match=r"record b of another setup .*llm is 'opt', expected"):
        check_setup(tmp_path, SHIPPED)


@pytest.mark.parametrize("text", ["{}", "[]", "nothing", '{"trained": null, "training": null}'])
def test_another_file_is_refused_by_name(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=r"x\.json is no record of a cell"):
        read_all(tmp_path)
