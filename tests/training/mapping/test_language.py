"""Packed rows against each question alone, on random models of each type."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_language import make_llama, make_opt
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from skipserve_training.mapping.language import FrozenLanguageModel, load_language_model
from skipserve_training.mapping.packing import Example, pack

MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": make_llama,
    "opt": make_opt,
    "opt-350m": lambda: make_opt(word_embed_proj_dim=16, do_layer_norm_before=False),
}
EXAMPLES = (
    Example((3, 4, 5, 6, 7), (8, 9, 1), 0),
    Example((3, 4, 5, 10, 11, 12), (13, 1), 0),
    Example((3, 4, 20), (1,), 0),
)


@pytest.mark.fast
@pytest.mark.parametrize("name", MODELS)
def test_packed_questions_are_as_if_alone(name: str) -> None:
    model = MODELS[name]()
    language = FrozenLanguageModel(model)
    batch = pack([EXAMPLES[:1], EXAMPLES])
    rows = language.embed(batch.ids)
    assert rows.shape[-1] == language.width
    hidden = language.hidden(rows, batch)
    packed = language.logits(hidden.flatten(0, 1)[batch.rows])
    alone = [_alone(model, example) for example in (EXAMPLES[0], *EXAMPLES)]
    torch.testing.assert_close(packed, torch.cat(alone), rtol=1e-4, atol=1e-4)


def _alone(model: PreTrainedModel, example: Example) -> Tensor:
    ids = torch.tensor([example.prompt + example.answer[:-1]])
    logits: Tensor = model(ids).logits[0]
    return logits[len(example.prompt) - 1 :]


@pytest.mark.fast
def test_gradients_reach_the_rows_and_no_weight() -> None:
    language = FrozenLanguageModel(make_llama())
    batch = pack([EXAMPLES])
    rows = language.embed(batch.ids).requires_grad_()
    language.hidden(rows, batch).sum().backward()
    assert rows.grad is not None
    assert rows.grad.any()


@pytest.mark.fast
def test_other_types_are_refused(tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=8, n_positions=8, n_embd=8, n_layer=1, n_head=1)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="'gpt2': expected a language model of type llama or opt"):
        load_language_model(tmp_path, torch.float32, torch.device("cpu"))
    with pytest.raises(ValueError, match=r"has no config\.json"):
        load_language_model(tmp_path / "nowhere", torch.float32, torch.device("cpu"))
