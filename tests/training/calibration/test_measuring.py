"""Costs by formula and by time, comparisons that are made once, single layers' damage."""

from collections.abc import Sequence

import pytest

from skipserve.asking.processor import QuestionProcessor
from skipserve_policies.cost import saving
from skipserve_policies.flops import Request
from skipserve_policies.plan import TokenClass
from skipserve_policies.schema import Action, Scope, SkipPolicy
from skipserve_training.calibration.journal import Journal
from skipserve_training.calibration.measuring import (
    FlopsCost,
    LatencyCost,
    Ranking,
    TableMeasure,
    damage,
    layer_damages,
)
from skipserve_training.calibration.probe import Comparison, Job, Probe
from skipserve_training.calibration.tables import FULL, Element, Table

PLACES = range(4)


def ranking(probe: Probe, journal: Journal) -> Ranking:
    return Ranking(probe, PLACES, journal, lambda *_: None)


def test_damage_is_bounded_by_many_good_answers() -> None:
    ruined, unharmed = Comparison(9, 9, 9, True), Comparison(0, 0, 0, False)
    assert damage([unharmed]) == 0
    assert damage([ruined, *[unharmed] * 9]) < damage([Comparison(0.4, 0.4, 0, True)] * 10)


def test_flops_are_those_of_the_questions(probe: Probe, processor: QuestionProcessor) -> None:
    lengths = {0: 3, 1: 5, 2: 2}
    policy = (FULL | [Element(1, Action.SKIP_BLOCK, Scope.ALL)]).resolve(processor.reporter.sizes)
    planned = full = 0
    for place, length in lengths.items():
        # A picture is 16 rows of 28 x 28 pixels in patches of 7; the last row is a class alone.
        text = ["what is in " + "the " * (place % 3) + "picture?"]
        shape = probe.shape(place, length)
        assert shape.prompt.count(TokenClass.VISUAL) == 16
        assert shape.prompt[-1] is TokenClass.LAST
        assert text
        found = saving(
            processor.reporter.sizes, policy.plan, Request(shape.prompt, length, num_images=1)
        )
        planned += found.planned_flops
        full += found.full_flops
    assert FlopsCost(probe, lengths).of_policy(policy) == planned / full < 1
    assert FlopsCost(probe, lengths).of_policy(FULL.resolve(processor.reporter.sizes)) == 1


def test_comparisons_are_made_once(
    probe: Probe, processor: QuestionProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Job] = []
    compare = Probe.compare

    def counting(self: Probe, jobs: Sequence[Job]) -> list[Comparison]:
        asked.extend(jobs)
        return compare(self, jobs)

    monkeypatch.setattr(Probe, "compare", counting)
    sizes = processor.reporter.sizes
    policies = [
        (FULL | [Element(layer, Action.SKIP_FFN, Scope.ALL)]).resolve(sizes) for layer in range(3)
    ]
    with Journal(None, {}) as journal:
        first = ranking(probe, journal).compare([*policies, policies[0]], "them")
        assert len(asked) == 3 * len(PLACES)
        again = ranking(probe, journal).compare(policies[::-1], "them")
    assert len(asked) == 3 * len(PLACES)
    assert first[:3] == again[::-1]
    assert first[0] == first[3]
    assert [len(it) for it in first] == [len(PLACES)] * 4


def test_single_layers_are_told_apart(probe: Probe) -> None:
    with Journal(None, {}) as journal:
        found = layer_damages(ranking(probe, journal), 4)
    assert len(found) == 3 * 5 * 4
    by_place = {(it.action, it.token_class, it.layer): it for it in found}
    assert len(by_place) == len(found)
    # What only comes behind the first token leaves that alone; the last layer needs no other rows.
    for action in Action.SKIP_ATTENTION, Action.SKIP_FFN, Action.SKIP_BLOCK:
        for unneeded in "text", "visual":
            assert by_place[action, unneeded, 3].divergence < 1e-4
        assert by_place[action, "all", 0].divergence > 0.01
    block = by_place[Action.SKIP_BLOCK, "all", 1]
    with Journal(None, {}) as journal:
        table = Table(frozenset({Element(1, Action.SKIP_BLOCK, Scope.ALL)}))
        sizes = probe.processor.reporter.sizes
        (wanted,) = ranking(probe, journal).compare([table.resolve(sizes)], "it")
    assert block.divergence == pytest.approx(sum(it.total for it in wanted) / len(PLACES))
    assert block.changed == sum(it.is_changed for it in wanted) / len(PLACES)


def test_time_is_added_up_and_kept(
    probe: Probe, processor: QuestionProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = processor.reporter.sizes
    seconds = {FULL.resolve(sizes).digest: 2.0}
    timed: list[str] = []

    def scripted(_: Probe, jobs: Sequence[Job]) -> float:
        digest = jobs[0][0].digest
        timed.append(digest)
        return seconds.get(digest, 1.6)

    monkeypatch.setattr(Probe, "seconds", scripted)
    with Journal(None, {}) as journal:
        cost = LatencyCost(probe, PLACES, sizes, journal, lambda *_: None)
        one = FULL | [Element(1, Action.SKIP_FFN, Scope.ALL)]
        two = one | [Element(3, Action.SKIP_ATTENTION, Scope.VISUAL)]
        # Two of four layers without it take 0.8 of the time: each saves 0.1.
        assert cost.of_table(one, one.resolve(sizes)) == pytest.approx(0.9)
        assert cost.of_table(two, two.resolve(sizes)) == pytest.approx(0.8)
        dropped = Table(two.elements, "vtw-50")
        assert cost.of_table(dropped, dropped.resolve(sizes)) == pytest.approx(0.6)
        assert cost.of_policy(two.resolve(sizes)) == pytest.approx(0.8)
        num_timed = len(timed)
        again = LatencyCost(probe, PLACES, sizes, journal, lambda *_: None)
        assert again.of_table(two, two.resolve(sizes)) == pytest.approx(0.8)
    assert len(timed) == num_timed


def test_what_cannot_run_has_no_cost(probe: Probe, processor: QuestionProcessor) -> None:
    sizes = processor.reporter.sizes
    with Journal(None, {}) as journal:
        measure = TableMeasure(
            ranking(probe, journal), FlopsCost(probe, dict.fromkeys(PLACES, 3)), sizes
        )
        table = FULL | [Element(2, Action.SKIP_ATTENTION, Scope.ALL)]
        assert (
            measure.cost(
                Table(dropper="fastv-25-1of2") | [Element(0, Action.SKIP_ATTENTION, Scope.ALL)]
            )
            is None
        )  # its attention tells which rows leave
        share = measure.cost(table)
        assert share is not None
        assert 0 < share < 1
        (found,) = measure.damages([table])
    policy = SkipPolicy.model_validate({"rules": table.rules})
    comparisons = probe.compare(
        [(processor.policies.resolve_inline(policy), place) for place in PLACES]
    )
    assert found == pytest.approx(damage(comparisons), rel=1e-3)
