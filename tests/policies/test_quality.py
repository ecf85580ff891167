"""The file of measured quality: what it gives, and what is refused."""

import json
from pathlib import Path

import pytest

from skipserve_policies.quality import QUALITY_FILE, load_measured
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
    ],
)
def test_another_file_is_refused_without_its_path(tmp_path: Path, evaluation: object) -> None:
    _write(tmp_path, evaluation)
    with pytest.raises(PolicyError, match="skipserve evaluate") as caught:
        load_measured(tmp_path, "mine")
    assert str(tmp_path) not in str(caught.value)
