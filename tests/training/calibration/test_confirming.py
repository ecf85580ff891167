"""What unseen questions confirm: answers, their grades, and what they cost."""

import pytest

from skipserve.asking.processor import QuestionProcessor
from skipserve_policies.schema import Action, Scope
from skipserve_training.calibration.confirming import Confirmation
from skipserve_training.calibration.journal import Journal
from skipserve_training.calibration.probe import Probe, Reply
from skipserve_training.calibration.questions import Drawn
from skipserve_training.calibration.tables import FULL, Element


@pytest.fixture
def confirmation(probe: Probe, processor: QuestionProcessor, drawn: Drawn) -> Confirmation:
    samples = dict(enumerate(drawn.confirming, start=len(drawn.ranking)))
    full = processor.policies.find("full")
    return Confirmation(probe, samples, full, Journal(None, {}), lambda *_: None)


def test_answers_are_graded_in_pairs(
    confirmation: Confirmation, processor: QuestionProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = FULL | [Element(1, Action.SKIP_BLOCK, Scope.ALL)]
    policy = table.resolve(processor.reporter.sizes)
    # Right: the full model five times of six, the policy three times, once where it was not.
    said = {
        confirmation.full.digest: ["A square.", "a  square", *["a square"] * 3, "?"],
        policy.digest: ["A square.", "no", "no", "a square", "no", "a square"],
    }  # fmt: skip

    def scripted(_: Probe, jobs: list[tuple[object, int]]) -> list[Reply]:
        return [Reply(said[it.digest][place - 4], 3) for it, place in jobs]  # type: ignore[attr-defined]

    monkeypatch.setattr(Probe, "reply", scripted)
    found = confirmation.confirm([policy])
    full, other = found[confirmation.full.digest], found[policy.digest]
    assert full.right == (True, True, True, True, True, False)
    assert other.right == (True, False, False, True, False, True)
    assert full.accuracy.value == other.full == pytest.approx(5 / 6)
    assert other.accuracy.value == 0.5
    assert other.accuracy.low < 0.5 < other.accuracy.high
    assert other.retention is not None
    assert other.retention.value == pytest.approx(0.6)
    assert full.retention is not None
    assert full.retention.value == 1
    assert other.agreement.value == pytest.approx(2 / 6)
    assert full.cost == 1
    assert 0.5 < other.cost < 1


def test_answers_are_kept(
    confirmation: Confirmation, processor: QuestionProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = (FULL | [Element(2, Action.SKIP_FFN, Scope.ALL)]).resolve(processor.reporter.sizes)
    first = confirmation.confirm([policy])
    monkeypatch.setattr(Probe, "reply", None)
    again = confirmation.confirm([policy])
    assert again == first
    assert len(first) == 2
    # A random model knows nothing: there is nothing of which something could be kept.
    assert all(it.retention is None and not any(it.right) for it in first.values())
