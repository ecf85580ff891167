"""What all published data sets have in common: what is wrong with a folder is one clear error."""

from pathlib import Path

import pytest

from skipserve_client.command_group import CommandError
from skipserve_client.evaluate.data_sets.registry import DATA_SETS
from skipserve_client.evaluate.metrics.registry import METRICS

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("name", DATA_SETS)
def test_a_folder_must_be_named(name: str) -> None:
    with pytest.raises(CommandError, match=f"--data {name}: name with --data-folder where"):
        DATA_SETS[name].questions(None, None)


@pytest.mark.parametrize("name", DATA_SETS)
def test_a_folder_that_is_not_there_is_told(name: str, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="there is no folder"):
        DATA_SETS[name].questions(tmp_path / "none", None)


@pytest.mark.parametrize("name", DATA_SETS)
def test_an_empty_folder_is_told_what_it_should_hold(name: str, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="is missing; --data-folder holds") as caught:
        DATA_SETS[name].questions(tmp_path, None)
    assert "\n" not in str(caught.value)


def test_what_is_no_json_is_told(tmp_path: Path) -> None:
    (tmp_path / "testdev_balanced_questions.json").write_text("{oops")
    with pytest.raises(CommandError, match=r"testdev_balanced_questions.json is not in the form"):
        DATA_SETS["gqa"].questions(tmp_path, None)


def test_metrics_have_names_that_records_may_hold() -> None:
    assert all(METRICS[name].name == name for name in METRICS)
