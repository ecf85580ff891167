"""A model of one's own, as far as its configurations and data tell."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from own_models import DEPTH, OwnFolders, make_own
from tiny_lessons import write_vqa

from skipserve_training.paper.own import Own
from skipserve_training.paper.setup import Scoring

pytestmark = pytest.mark.fast


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> OwnFolders:
    return make_own(tmp_path_factory.mktemp("own"), "opt", "vit", "vqa", media=11)


@pytest.fixture
def own(folders: OwnFolders) -> Own:
    return Own(folders.llm, folders.encoder, folders.data)


def test_the_setup_is_that_of_the_folders(own: Own) -> None:
    setup = own.setup
    assert (setup.model, setup.llm_type, setup.depth) == ("opt+encoder", "opt", DEPTH)
    assert setup.encoder_type == "vit"
    assert (setup.data, setup.test) == ("vqa:data#train", "vqa:data#test")
    assert setup.scoring is Scoring.VOTES
    assert setup.questions == 20 * 2 * 9  # epochs, questions about a picture, pictures
    assert setup.more_questions == 36
    assert not setup.is_shipped
    assert "/" not in own.command("--only full")
    assert own.command("--only full").endswith("--data vqa:data --only full")


def test_what_is_asked_is_not_trained_on(own: Own) -> None:
    trained = {own.lessons._media[index] for index in range(len(own.lessons))}  # type: ignore[attr-defined]
    asked = {own.exam._test._media[index] for index in range(len(own.exam))}  # type: ignore[attr-defined]
    assert not trained & asked
    assert trained | asked == set(range(1, 12))
    assert len(asked) == 2


def test_another_data_set_may_be_asked_about(own: Own, tmp_path: Path) -> None:
    other = write_vqa(tmp_path / "other", "vit", 3, annotators=1, first=50)
    apart = replace(own, test=f"vqa:{other}")
    assert (apart.setup.data, apart.setup.test) == ("vqa:data", "vqa:other")
    assert (len(apart.lessons), len(apart.exam)) == (11, 3)
    assert apart.setup.scoring is Scoring.ANSWER  # one annotator has no votes


def test_changed_options_are_in_the_command(own: Own) -> None:
    changed = replace(own, keeps_class=False, num_beams=3, rate=5e-5, tasks=("captions:/a/coco",))
    assert changed.command("--only full").endswith(
        "--task captions:coco --drop-class --beams 3 --rate 5e-05 --only full"
    )


def _changed(folder: Path, **fields: object) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(fields))
    return folder


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda own, tmp: {"llm": tmp}, "its config.json cannot be read"),
        (lambda own, tmp: {"llm": own.encoder}, "of the type 'vit': expected one of llama, opt"),
        (lambda own, tmp: {"encoder": own.llm}, "of the type 'opt': expected one of audio-spec"),
        (
            lambda own, tmp: {"llm": _changed(tmp / "x", model_type="opt", num_hidden_layers=2)},
            "of 2 blocks: the grid needs 4 or more",
        ),
        (lambda own, tmp: {"data": "vqa:/nowhere"}, "expected one file"),
        (lambda own, tmp: {"data": "coco:/nowhere"}, "expected FORM:FOLDER"),
        (lambda own, tmp: {"test": own.data}, "they share media"),
        (lambda own, tmp: {"test": f"{own.data}#test"}, "they share media"),
        (lambda own, tmp: {"data": f"{own.data}#test"}, "they share media"),
        (lambda own, tmp: {"test": "captions:/nowhere"}, "expected the form of the data, vqa"),
    ],
)
def test_what_does_not_fit_is_named(
    change: Callable[[Own, Path], dict[str, Any]], said: str, own: Own, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=said):
        assert replace(own, **change(own, tmp_path)).setup


def test_a_part_may_be_named_by_hand(own: Own) -> None:
    parts = replace(own, data=f"{own.data}#train", test=f"{own.data}#test")
    assert parts.sources == own.sources
    assert parts.setup == own.setup
