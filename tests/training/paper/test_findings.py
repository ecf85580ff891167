"""Records held against each other."""

import pytest
from paper_records import CELLS, make_findings, make_record

from skipserve_training.paper.cells import FULL, INFERENCE, Form, rule_name
from skipserve_training.paper.findings import Duel
from skipserve_training.paper.records import Way

pytestmark = pytest.mark.fast


def test_what_is_kept_is_kept_of_the_same_questions() -> None:
    findings = make_findings(full=900)
    cell = CELLS[rule_name(INFERENCE, Form.BLOCK, 2, 0, "all")]
    few = make_record(cell, 60, n=100)  # of which the full model knows all
    kept = findings.kept(few, few.untrained, Way.EXACT)
    assert kept is not None
    assert kept.value == 0.6
    assert make_findings().kept(few, few.untrained, Way.EXACT) is None


def test_a_duel_is_won_where_the_difference_shows() -> None:
    names = [rule_name(INFERENCE, form, 2, 0, "all") for form in Form]
    findings = make_findings(**dict(zip(names, (900, 500, 495, 10, 5, 0), strict=True)))
    pairs = [(names[0], names[1]), (names[3], names[1]), (names[1], names[2]), (names[0], FULL)]
    assert findings.duel(pairs[:3], Way.EXACT) == Duel(1, 2 - 1, 1)
    assert findings.duel(pairs[3:], Way.EXACT).n == 0  # the full model was not measured
