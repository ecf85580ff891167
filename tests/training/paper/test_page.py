"""docs/paper.md is what the records give."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from paper_records import make_record

from skipserve_training.paper.cells import grid
from skipserve_training.paper.findings import Findings
from skipserve_training.paper.page import PAGE, main, render
from skipserve_training.paper.plots import PICTURES, digest
from skipserve_training.paper.records import Record, read_all, write
from skipserve_training.paper.setup import SHIPPED, Scoring

pytestmark = pytest.mark.fast

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def records() -> dict[str, Record]:
    return read_all(ROOT / "training" / "paper" / "records")


def test_records_are_of_the_grid(records: dict[str, Record]) -> None:
    """A cell that is declared anew must be measured anew."""
    declared = {cell.name: json.loads(json.dumps(asdict(cell))) for cell in grid()}
    for name, record in records.items():
        assert record.cell == declared[name]
        assert name in record.command


def test_the_page_is_what_the_records_give(records: dict[str, Record]) -> None:
    page = (DOCS / PAGE).read_text()
    assert page == render(Findings(grid(), records)), "make paper-page"


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_of_these_records(name: str, records: dict[str, Record]) -> None:
    assert digest(Findings(grid(), records)) in (DOCS / name).read_text(), "make paper-page"
    assert f"]({name})" in (DOCS / PAGE).read_text()


def test_a_page_without_records_says_so(tmp_path: Path) -> None:
    main(tmp_path / "none", tmp_path)
    page = (tmp_path / PAGE).read_text()
    assert "Not run yet." in page
    assert "**inference**, 109 cells" in page
    assert {path.name for path in tmp_path.glob("*.svg")} == {*PICTURES}


OWN = replace(
    SHIPPED, model="opt-6.7b+vit-l", llm="opt-6.7b", llm_type="opt", depth=32, encoder="vit-l",
    encoder_type="vit", data="vqa:train2014", test="vqa:val2014", tasks=("vqa:train2014",),
    scoring=Scoring.VOTES, num_beams=3, patches=None, questions=8_875_140,
)  # fmt: skip


@pytest.mark.parametrize("scoring", Scoring)
def test_a_page_of_ones_own_says_what_its_records_say(scoring: Scoring, tmp_path: Path) -> None:
    setup = replace(OWN, scoring=scoring)
    cells = {cell.name: cell for cell in grid(setup)}
    names = ("full", "layer-ffn-31", "ladder-11", "training-half-blocks-seed-20")
    for name in names:
        trained = None if cells[name].training is None else 800
        record = make_record(cells[name], 900 if trained is None else 100, trained=trained)
        write(replace(record, setup=setup), tmp_path / "records")
    main(tmp_path / "records", tmp_path / "docs")
    page = (tmp_path / "docs" / PAGE).read_text()
    for said in (
        "tables on opt-6.7b", "(type opt, 32 blocks)", "`vit-l`", "8,875,140 questions",
        "`vqa:train2014`", "`vqa:val2014`", "Here 3 beams are followed", "how many of 32",
        "| layer-ffn-31 |", "| ladder-11 |", "(15 of 32 blocks, scope all)",
    ):  # fmt: skip
        assert said in page
    for absent in ("smolvqa", "SmolLM2", "easy-VQA", "easy-vqa", "30 blocks", "of 30", "tower of"):
        assert absent not in page
    is_judged = scoring is not Scoring.CAPTIONS
    assert ("**does not hold, so far**" in page) is is_judged
    assert ("no claim is judged" in page) is not is_judged
    assert ("accuracy over the answers of ten annotators" in page) is (scoring is Scoring.VOTES)


def test_a_page_is_of_one_setup(tmp_path: Path) -> None:
    cells = {cell.name: cell for cell in grid()}
    write(make_record(cells["full"], 900), tmp_path)
    write(replace(make_record(cells["ladder-10"], 900, trained=1), setup=OWN), tmp_path)
    with pytest.raises(ValueError, match="cannot be held together"):
        main(tmp_path, tmp_path)


def test_what_ships_may_be_asked_with_beams(tmp_path: Path) -> None:
    (cell,) = (cell for cell in grid() if cell.name == "full")
    setup = replace(SHIPPED, num_beams=3)
    write(replace(make_record(cell, 900), setup=setup), tmp_path)
    main(tmp_path, tmp_path)
    page = (tmp_path / PAGE).read_text()
    assert "Here 3 beams are followed, in the paper 3; the server follows one." in page
    assert "SmolLM2-135M-Instruct" in page
