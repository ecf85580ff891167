"""Records held against each other, and against what the paper says."""

from dataclasses import asdict

import pytest

from skipserve_policies.schema import Action
from skipserve_training.paper.cells import FULL, INFERENCE, Cell, grid, rule_name
from skipserve_training.paper.claims import NOT_RUN, judge_claims
from skipserve_training.paper.findings import Duel, Findings
from skipserve_training.paper.records import ALL, Count, Record, Score, Way, as_bits

pytestmark = pytest.mark.fast

CELLS = {cell.name: cell for cell in grid()}
HALF = ("training-half-blocks-seed-20", "training-half-blocks-seed-21")


def _score(right: int, n: int) -> Score:
    bits = as_bits([True] * right + [False] * (n - right))
    return Score({ALL: Count(n, right, right, right, 0)}, bits, bits, 1.0)


def _record(cell: Cell, right: int, n: int = 1000, trained: int | None = None) -> Record:
    after = None if trained is None else _score(trained, n)
    return Record(asdict(cell), "", _score(right, n), after, None, 10.0, [2, 4], 0.5, {})


def _findings(**right: int) -> Findings:
    """Make findings of which so many of a thousand answers are right, trained where that is."""
    records = {}
    for name, count in right.items():
        cell = CELLS[name.replace("_", "-")]
        trained = None if cell.training is None else count
        records[cell.name] = _record(cell, 0 if trained is not None else count, trained=trained)
    return Findings(grid(), records)


def _verdicts(findings: Findings) -> list[str]:
    return [claim.verdict for claim in judge_claims(findings)]


def test_nothing_is_said_of_what_was_not_run() -> None:
    assert _verdicts(_findings()) == [NOT_RUN] * 5
    assert len(_findings().missing) == len(CELLS)
    assert all(NOT_RUN in claim.found for claim in judge_claims(_findings()))


def test_what_is_kept_is_kept_of_the_same_questions() -> None:
    findings = _findings(full=900)
    cell = CELLS[rule_name(INFERENCE, Action.SKIP_BLOCK, 2, 0, "all")]
    few = _record(cell, 60, n=100)  # of which the full model knows all
    kept = findings.kept(few, few.untrained, Way.EXACT)
    assert kept is not None
    assert kept.value == 0.6
    assert _findings().kept(few, few.untrained, Way.EXACT) is None


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
    assert _verdicts(_findings(full=1000, **found))[2] == verdict


@pytest.mark.parametrize(
    ("parallel", "skipped", "verdict"),
    [(900, 500, "holds"), (500, 900, "does not hold"), (500, 500, NOT_RUN)],
)
def test_policies_are_compared_at_the_same_places(
    parallel: int, skipped: int, verdict: str
) -> None:
    place = (3, "25%", "all")
    names = [
        rule_name(INFERENCE, action, *place)
        for action in (Action.PARALLEL_FFN_ATTENTION, Action.SKIP_FFN)
    ]
    findings = _findings(**dict(zip(names, (parallel, skipped), strict=True)))
    claim = judge_claims(findings)[1]
    assert claim.verdict == verdict
    assert "of 1 places" in claim.found
    assert "skipping the ffn" in claim.found
    assert "skipping the block" not in claim.found


def test_a_duel_is_won_where_the_difference_shows() -> None:
    names = [rule_name(INFERENCE, action, 2, 0, "all") for action in Action]
    findings = _findings(**dict(zip(names, (900, 500, 495, 10, 5), strict=True)))
    pairs = [(names[0], names[1]), (names[3], names[1]), (names[1], names[2]), (names[0], FULL)]
    assert findings.duel(pairs[:3], Way.EXACT) == Duel(1, 2 - 1, 1)
    assert findings.duel(pairs[3:], Way.EXACT).n == 0  # the full model was not measured
