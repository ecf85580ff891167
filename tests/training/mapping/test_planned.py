"""What a training computes under a plan, against the engine that serves the same checkpoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from catalog_parts import skipping_policies
from decoder_subject import ACTIONS, assert_close
from PIL import Image
from recorded_engine import CPU, RecordedEngine
from tiny_llava import make_checkpoint
from tiny_opt import OptShape
from torch import Tensor

from skipserve_policies.plan import Plan
from skipserve_policies.resolve import resolve
from skipserve_policies.schema import Scope, SkipPolicy
from skipserve_policies.sizes import MappingSizes
from skipserve_training.mapping.packing import PICTURE, Example, pack
from skipserve_training.mapping.served import ServedModel, open_model
from skipserve_training.mapping.training import answer, embed

SIZES = MappingSizes(num_queries=3, hidden_size=16, num_layers=1, num_heads=2, ffn_size=16)
NUM_TOKENS = 4
# The second goes on where the first one ends, and the last has no text: a picture's row asks.
TEXTS = ((7, 8, 9), (7, 8, 9, 10, 11), (12, 13), ())


@dataclass(frozen=True)
class Subject:
    """One checkpoint, served and trained on."""

    engine: RecordedEngine
    model: ServedModel
    pixels: np.ndarray[Any, Any]

    def served(self, plan: Plan) -> tuple[list[list[int]], Tensor]:
        """Return the engine's answers to all texts, and the logits of their tokens."""
        pixels = self.pixels.tobytes()
        answers = [self.engine.answer(pixels, text, plan, NUM_TOKENS) for text in TEXTS]
        return [tokens for tokens, _ in answers], torch.cat([logits for _, logits in answers])

    def trained(self, plan: Plan, answers: list[list[int]]) -> Tensor:
        """Return the training's logits of the same tokens, of one packed tree."""
        batch = pack([_examples(self.model, answers)])
        features = self.model.encoder.encode([Image.fromarray(self.pixels)])
        language = self.model.language.under(plan)
        rows = embed(language, self.model.projector, features, batch)
        return language.logits(language.hidden(rows, batch).flatten(0, 1)[batch.rows])


def _examples(model: ServedModel, answers: list[list[int]]) -> list[Example]:
    picture = (PICTURE,) * SIZES.num_queries
    return [
        Example(picture + text, tuple(tokens), 0)
        for text, tokens in zip(TEXTS, answers, strict=True)
    ]


def _subject(folder: Path, **shape: Any) -> Subject:
    make_checkpoint(folder, num_kv_heads=2, mapping=SIZES, **shape)
    engine = RecordedEngine(folder)
    side = engine.config.sizes.vision.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Subject(engine, open_model(folder, torch.float32, CPU), pixels)


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """As deep as the catalog's policies that name layers by number."""
    return _subject(tmp_path_factory.mktemp("deep"), num_layers=32, hidden=32, ffn=48)


SHALLOW: dict[str, dict[str, Any]] = {
    "llama": {},
    "opt": {"opt": OptShape()},
    "opt-350m": {"opt": OptShape(is_post_norm=True, word_size=32)},
}


@pytest.fixture(scope="module", params=SHALLOW)
def shallow(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    shape = SHALLOW[request.param]
    return _subject(tmp_path_factory.mktemp("shallow"), num_layers=6, hidden=64, ffn=48, **shape)


def _check(subject: Subject, plan: Plan) -> None:
    answers, expected = subject.served(plan)
    logits = subject.trained(plan, answers)
    assert_close(logits.detach(), expected)
    subject.model.projector.zero_grad()
    logits.square().sum().backward()
    gradients = [weight.grad for weight in subject.model.projector.parameters()]
    assert all(it is not None and it.isfinite().all() and it.any() for it in gradients)


@pytest.mark.fast
@pytest.mark.parametrize("name", skipping_policies())
def test_every_policy_that_ships(name: str, deep: Subject) -> None:
    _check(deep, resolve(name, skipping_policies()[name], 32).plan)


@pytest.mark.fast
@pytest.mark.parametrize("scope", Scope)
@pytest.mark.parametrize("action", ACTIONS, ids=str)
def test_every_action_in_every_scope(
    action: dict[str, Any], scope: Scope, shallow: Subject
) -> None:
    rule = action | {"layers": [1, 4], "scope": scope}
    _check(shallow, resolve("one", SkipPolicy.model_validate({"rules": [rule]}), 6).plan)


@pytest.mark.fast
def test_pairs_of_several_classes_cross(shallow: Subject) -> None:
    """At one layer some rows are in the second block of a pair, and others in the first."""
    rules = [
        {"action": "parallel_blocks", "layers": [1, 3], "scope": "visual"},
        {"action": "parallel_blocks", "layers": [2], "scope": "answer"},
        {"action": "skip_ffn", "layers": [4], "scope": "generated"},
    ]
    _check(shallow, resolve("cross", SkipPolicy.model_validate({"rules": rules}), 6).plan)


@pytest.mark.fast
def test_no_weight_but_the_projectors_is_trained(shallow: Subject) -> None:
    model = shallow.model
    features = model.encoder.encode([Image.fromarray(shallow.pixels)])
    batch = pack([_examples(model, [[1]] * len(TEXTS))])
    answer(model.language, model.projector, features, batch).loss.backward()
    for block in model.language.blocks:
        assert all(weight.grad is None for weight in block.layer.parameters())


@pytest.mark.fast
def test_a_plan_is_for_one_depth(shallow: Subject) -> None:
    with pytest.raises(ValueError, match="The plan is for 5 layers: the language model has 6"):
        shallow.model.language.under(Plan.full(5))
