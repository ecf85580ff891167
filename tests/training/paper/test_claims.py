"""What the paper says, held against records."""

from dataclasses import replace

import pytest
from paper_records import make_findings, make_record

from skipserve_training.paper.cells import INFERENCE, Form, grid, rule_name
from skipserve_training.paper.claims import NOT_RUN, judge_claims
from skipserve_training.paper.findings import Findings
from skipserve_training.paper.setup import SHIPPED, Scoring

pytestmark = pytest.mark.fast

HALF = ("training-half-blocks-seed-20", "training-half-blocks-seed-21")


def _verdicts(findings: Findings) -> list[str]:
    return [claim.verdict for claim in judge_claims(findings)]


def test_nothing_is_said_of_what_was_not_run() -> None:
    assert _verdicts(make_findings()) == [NOT_RUN] * 5
    assert len(make_findings().missing) == len(grid())
    assert all(NOT_RUN in claim.found for claim in judge_claims(make_findings()))


@pytest.mark.parametrize(
    ("right", "verdict"),
    [
        ((999, 999), "holds"), ((700, 700), "does not hold"), ((970, 970), "undecided"),
        ((999, 700), "holds in part"), ((999,), "holds, so far"),
        ((700,), "does not hold, so far"), ((970,), "undecided, so far"),
    ],
)  # fmt: skip
def test_an_interval_is_held_against_the_claim(right: tuple[int, ...], verdict: str) -> None:
    found = dict(zip(HALF, right, strict=False))
    assert _verdicts(make_findings(full=1000, **found))[2] == verdict


def test_a_longer_training_is_judged_apart() -> None:
    found = make_findings(full=1000, **dict.fromkeys(HALF, 700), **{"longer-half-blocks": 999})
    claim = judge_claims(found)[2]
    assert claim.verdict == "does not hold with 8,000 questions; holds with 40,000"
    assert "seed 21, 8,000 questions: 70.0 %" in claim.found
    assert "seed 20, 40,000 questions: 99.9 %" in claim.found


@pytest.mark.parametrize(
    ("parallel", "skipped", "verdict"),
    [(900, 500, "holds"), (500, 900, "does not hold"), (500, 500, "undecided")],
)
def test_policies_are_compared_at_the_same_places(
    parallel: int, skipped: int, verdict: str
) -> None:
    place = (3, "25%", "all")
    names = [rule_name(INFERENCE, form, *place) for form in (Form.PARALLEL, Form.FFN)]
    findings = make_findings(**dict(zip(names, (parallel, skipped), strict=True)))
    claim = judge_claims(findings)[1]
    assert claim.verdict == verdict
    assert "of 1 places" in claim.found
    assert "skipping the ffn" in claim.found
    assert "skipping the block" not in claim.found


OWN = replace(SHIPPED, model="own", depth=32, patches=None)


def test_numbers_are_those_of_the_depth() -> None:
    claims = judge_claims(Findings(grid(OWN), {}, OWN))
    said = " ".join(claim.found for claim in claims)
    assert "(15 of 32 blocks, scope all)" in said
    assert "`ladder-11` not run yet; `ladder-21` not run yet" in said
    assert "No second size of this model is among these records" in said
    assert "30" not in said


def test_no_claim_of_captions_is_judged() -> None:
    setup = replace(OWN, scoring=Scoring.CAPTIONS)
    cells = {cell.name: cell for cell in grid(setup)}
    records = {name: make_record(cells[name], 1000, trained=1000) for name in HALF}
    records["full"] = make_record(cells["full"], 1000)
    verdicts = _verdicts(Findings([*cells.values()], records, setup))
    assert verdicts[2] == "not judged: no quality of captions was measured"
    assert verdicts[0] == NOT_RUN
