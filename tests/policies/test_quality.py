"""The file of measured quality: what it gives, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from skipserve_policies.quality import (
    QUALITY_FILE,
    load_measured,
    read_summaries,
    with_summary,
)
from skipserve_policies.resolve import PolicyError

pytestmark = pytest.mark.fast

FULL = {"digest": "d0", "accuracy": 0.9857, "n": 1050, "low": 0.98, "types": {}}
EXIT = {"digest": "d1", "accuracy": 0.5, "n": 1050}


def _write(folder: Path, evaluation: object) -> None:
    (folder / QUALITY_FILE).write_text(json.dumps(evaluation))


def test_figures_come_by_digest_in_percent(tmp_path: Path) -> None:
    _write(tmp_path, {"data": "demo", "policies": {"full": FULL, "exit": EXIT}})
    measured = load_measured(tmp_path, "mine")
    assert measured.keys() == {"d0", "d1"}
    (quality,) = measured["d1"]
    assert (quality.value, quality.full, quality.n) == (50, 98.57, 1050)
    assert (quality.model, quality.dataset) == ("mine", "demo")


def test_without_the_full_model_there_is_nothing_to_compare_with(tmp_path: Path) -> None:
    _write(tmp_path, {"data": "demo", "policies": {"exit": EXIT}})
    assert load_measured(tmp_path, "mine")["d1"][0].full is None


def test_a_model_that_was_not_evaluated_has_no_figures(tmp_path: Path) -> None:
    assert load_measured(tmp_path, "mine") == {}


@pytest.mark.parametrize(
    "evaluation",
    [
        [],
        {},
        {"data": "demo"},
        {"data": "demo", "policies": {"full": {"digest": "d", "accuracy": 98, "n": 5}}},
        {"data": "demo", "policies": {"full": {"accuracy": 0.98, "n": 5}}},
        {"data": "demo", "policies": {"full": FULL}, "baseline": {"accuracy": 0.98}},
    ],
)
def test_another_file_is_refused_without_its_path(tmp_path: Path, evaluation: object) -> None:
    _write(tmp_path, evaluation)
    with pytest.raises(PolicyError, match="skipserve evaluate") as caught:
        load_measured(tmp_path, "mine")
    assert str(tmp_path) not in str(caught.value)


MEASURES = [
    {"metric": "perception", "unit": "points", "value": 1510.72, "low": 1490.0, "high": 1531.0},
    {"metric": "accuracy", "unit": "share", "value": 0.8, "low": 0.78, "high": 0.82},
]


def test_every_figure_of_a_metric_comes_with_its_interval(tmp_path: Path) -> None:
    policies = {"full": FULL, "exit": EXIT | {"measures": MEASURES}}
    _write(tmp_path, {"data": "mme", "policies": policies})
    points, share = load_measured(tmp_path, "mine")["d1"]
    assert (points.metric, points.value) == ("perception, in points", 1510.72)
    assert (points.low, points.high, points.full) == (1490.0, 1531.0, None)
    assert (share.metric, share.value, share.low, share.high) == ("accuracy, in %", 80, 78, 82)


def test_several_data_sets_stand_side_by_side(tmp_path: Path) -> None:
    one = {"data": "demo", "policies": {"full": FULL, "exit": EXIT}}
    other = {"data": "gqa", "policies": {"exit": EXIT | {"accuracy": 0.25}}}
    _write(tmp_path, {"evaluations": [one, other]})
    found = [(it.dataset, it.value, it.full) for it in load_measured(tmp_path, "mine")["d1"]]
    assert found == [("demo", 50, 98.57), ("gqa", 25, None)]


def test_what_has_no_digest_is_no_policy_of_ours(tmp_path: Path) -> None:
    _write(tmp_path, {"data": "demo", "policies": {"rival": EXIT | {"digest": None}}})
    assert load_measured(tmp_path, "mine") == {}


def _evaluation(data: str, weights: str = "w", n: int = 1050) -> dict[str, Any]:
    return {"data": data, "model_digest": weights, "policies": {"full": FULL | {"n": n}}}


def test_another_data_set_joins_and_the_same_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / QUALITY_FILE
    for new in (_evaluation("demo"), _evaluation("gqa"), _evaluation("demo", n=7)):
        file.write_text(json.dumps(with_summary(read_summaries(file), new)))
    found = [(it.dataset, it.n) for it in load_measured(tmp_path, "mine")["d0"]]
    assert found == [("gqa", 1050), ("demo", 7)]


def test_one_data_set_keeps_the_form_that_it_had(tmp_path: Path) -> None:
    file = tmp_path / QUALITY_FILE
    assert with_summary(read_summaries(file), _evaluation("demo")) == _evaluation("demo")
    file.write_text(json.dumps(_evaluation("demo")))
    assert with_summary(read_summaries(file), _evaluation("demo")) == _evaluation("demo")


def test_figures_of_other_weights_are_dropped() -> None:
    assert with_summary([_evaluation("demo", "old")], _evaluation("gqa")) == _evaluation("gqa")


def test_what_is_no_evaluation_is_written_over(tmp_path: Path) -> None:
    file = tmp_path / QUALITY_FILE
    for text in ("{oops", "[]", "{}", '{"evaluations": 3}'):
        file.write_text(text)
        assert read_summaries(file) == ()


def test_another_models_full_is_what_is_compared_with(tmp_path: Path) -> None:
    baseline = {"model": "whole", "policy": "full", "accuracy": 0.999, "low": 0.99, "n": 1050}
    _write(tmp_path, {"data": "demo", "baseline": baseline, "policies": {"full": FULL}})
    (quality,) = load_measured(tmp_path, "mine")["d0"]
    assert (quality.value, quality.full, quality.model) == (98.57, 99.9, "mine")
    assert quality.source == "skipserve evaluate; full is whole's"


def test_answers_in_another_arithmetic_are_another_models(tmp_path: Path) -> None:
    _write(tmp_path, {"data": "demo", "policies": {"full": FULL}, "dtype": "bfloat16+int8"})

    assert load_measured(tmp_path, "mine") == {}
    assert load_measured(tmp_path, "mine", "int8").keys() == {"d0"}


def _beside(low: float) -> dict[str, Any]:
    return {"beside_full": {"retention": {"value": 0.9, "low": low, "high": 1.0}}}


@pytest.mark.parametrize(
    ("measured", "full", "kept"),
    [
        # The interval of pairs goes before the two apart.
        (EXIT | {"low": 0.4, "high": 0.6} | _beside(0.7123456), {"high": 0.99}, 0.7123),
        (EXIT | {"low": 0.4, "high": 0.6}, {"high": 0.99}, 0.404),
        (EXIT | {"low": 0.4, "beside_full": None}, {"high": 0.99}, 0.404),
        (EXIT | {"low": 0.4, "beside_full": {"retention": None}}, {"high": 0.99}, 0.404),
        (EXIT | {"low": 0.4}, {}, None),
        (EXIT, {"high": 0.99}, None),
        (EXIT | {"low": 0.4}, {"high": 0.0}, None),
    ],
)
def test_what_is_kept_of_full_at_least(
    tmp_path: Path, measured: dict[str, Any], full: dict[str, Any], kept: float | None
) -> None:
    policies = {"full": FULL | full, "exit": measured}
    _write(tmp_path, {"data": "demo", "model_digest": "w", "policies": policies})
    found = load_measured(tmp_path, "mine")
    assert [(it.retention_low, it.model_digest) for it in found["d1"]] == [(kept, "w")]
    assert found["d0"][0].retention_low == 1


def test_what_is_kept_of_another_models_full(tmp_path: Path) -> None:
    baseline = {"model": "whole", "accuracy": 1.0, "low": 0.99, "high": 1.0, "n": 1050}
    _write(tmp_path, {"data": "demo", "baseline": baseline, "policies": {"full": FULL}})
    (quality,) = load_measured(tmp_path, "mine")["d0"]
    assert (quality.retention_low, quality.model_digest) == (0.98, None)


def test_what_is_kept_is_told_of_the_first_figure_alone(tmp_path: Path) -> None:
    measures = [it | {"value": 0.9} for it in MEASURES[1:]] * 2
    policies = {"full": FULL, "exit": EXIT | {"measures": measures} | _beside(0.7)}
    _write(tmp_path, {"data": "mme", "policies": policies})
    kept = [it.retention_low for it in load_measured(tmp_path, "mine")["d1"]]
    assert kept == [0.7, None]
