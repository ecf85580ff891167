"""The perplexity of a text, held to transformers'."""

import math
from typing import Any

import pytest
import torch
from tiny_language import make_llama, make_tokenizer

from skipserve_policies.resolve import resolve
from skipserve_policies.schema import SkipPolicy
from skipserve_training.mapping.language import FrozenLanguageModel
from skipserve_training.paper.perplexity import held_out_text, perplexity

pytestmark = pytest.mark.fast


def test_it_is_that_of_transformers_in_pieces() -> None:
    text = held_out_text()[:600]
    model: Any = make_llama()
    ids = make_tokenizer()(text)["input_ids"]
    losses: list[float] = []
    for first in range(0, len(ids), 256):
        piece = torch.tensor([ids[first : first + 256]])
        with torch.inference_mode():
            logs = model(piece).logits[0].log_softmax(-1)
        losses += [-float(logs[row - 1, piece[0, row]]) for row in range(16, piece.shape[1])]
    expected = math.exp(sum(losses) / len(losses))
    found = perplexity(FrozenLanguageModel(make_llama()), make_tokenizer(), text)
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_piece_that_is_all_prompt_counts_nothing() -> None:
    language, tokenizer = FrozenLanguageModel(make_llama()), make_tokenizer()
    text = held_out_text()
    assert perplexity(language, tokenizer, text[:270]) == pytest.approx(
        perplexity(language, tokenizer, text[:256])
    )


@pytest.mark.parametrize(
    ("scope", "differs"), [("all", True), ("generated", True), ("visual", False)]
)
def test_a_policy_applies(scope: str, differs: bool) -> None:
    language, tokenizer = FrozenLanguageModel(make_llama()), make_tokenizer()
    policy = {"rules": [{"action": "skip_block", "layers": [0], "scope": scope}]}
    plan = resolve("lighter", SkipPolicy.model_validate(policy), 2).plan
    text = held_out_text()[:300]
    full = perplexity(language, tokenizer, text)
    changed = perplexity(language.under(plan), tokenizer, text)
    assert (changed != pytest.approx(full)) is differs
