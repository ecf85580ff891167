"""What policies do to answers, against transformers run with layers taken out."""

from pathlib import Path

import pytest
import torch
from transformers_answers import Oracle

from skipserve.asking.processor import QuestionProcessor
from skipserve_policies.resolve import ResolvedPolicy
from skipserve_policies.schema import SkipPolicy
from skipserve_training.calibration.probe import Probe
from skipserve_training.calibration.questions import Drawn


@pytest.fixture(scope="module")
def oracle(tiny_folder: Path, processor: QuestionProcessor) -> Oracle:
    return Oracle(tiny_folder, processor)


def without(processor: QuestionProcessor, layers: list[int]) -> ResolvedPolicy:
    rules = [{"action": "skip_block", "layers": layers, "scope": "all"}]
    return processor.policies.resolve_inline(SkipPolicy.model_validate({"rules": rules}))


def test_comparisons_are_transformers(
    probe: Probe, processor: QuestionProcessor, drawn: Drawn, oracle: Oracle
) -> None:
    skipped = [[1], [0], [0, 1, 2]]
    policies = [without(processor, layers) for layers in skipped]
    places = range(len(drawn.ranking))
    found = probe.compare([(policy, place) for place in places for policy in policies])
    changed = set()
    for place in places:
        for layers in skipped:
            comparison = found.pop(0)
            wanted = oracle.compare(drawn.ranking[place], layers, 6)
            changed.add(wanted.is_changed)
            assert comparison.is_changed == wanted.is_changed
            assert comparison.first == pytest.approx(wanted.first, rel=1e-3, abs=1e-6)
            assert comparison.total == pytest.approx(wanted.total, rel=1e-3, abs=1e-6)
            assert comparison.regret == pytest.approx(wanted.regret, rel=1e-3, abs=1e-5)
    assert True in changed


def test_references_are_the_full_models(probe: Probe, drawn: Drawn, oracle: Oracle) -> None:
    for sample, reference in zip(drawn.ranking, probe.references(), strict=True):
        wanted = oracle.logprobs(sample, ())
        assert reference.token_ids[0] == int(wanted.argmax())
        assert torch.allclose(reference.logprobs[0], wanted, atol=1e-4)
        assert len(reference.logprobs) == len(reference.token_ids)


def test_the_full_model_does_no_damage(probe: Probe, processor: QuestionProcessor) -> None:
    full = processor.policies.find("full")
    found = probe.compare([(full, place) for place in range(4)])
    assert not any(it.is_changed or it.regret for it in found)
    assert all(it.damage == pytest.approx(0, abs=1e-4) for it in found)


def test_many_policies_side_by_side_are_each_alone(
    probe: Probe, processor: QuestionProcessor
) -> None:
    policies = [without(processor, [layer]) for layer in range(4)]
    jobs = [(policy, place) for policy in policies for place in range(4)]
    for job, found in zip(jobs, probe.compare(jobs), strict=True):
        (alone,) = probe.compare([job])
        assert found.total == pytest.approx(alone.total, rel=1e-3, abs=1e-6)
        assert found.is_changed == alone.is_changed


def test_replies_are_whole(probe: Probe, processor: QuestionProcessor) -> None:
    full, other = processor.policies.find("full"), without(processor, [1])
    replies = probe.reply([(full, place) for place in range(10)] + [(other, 0)])
    references = probe.references()
    for reply, reference in zip(replies, references, strict=False):
        assert reply.num_tokens == len(reference.token_ids)
        kept = [it for it in reference.token_ids if it != 2]
        assert reply.text == processor.prompts.tokenizer.decode(kept).strip()
    assert 0 < replies[-1].num_tokens <= 6
