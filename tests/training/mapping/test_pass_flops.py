"""The cost of a training's pass by formula, against what torch counts, there and back."""

from typing import Any

import pytest
import torch
from tiny_language import make_llama, make_opt
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from skipserve_policies.plan import Plan, TokenClass, trim
from skipserve_policies.resolve import resolve
from skipserve_policies.schema import SkipPolicy
from skipserve_policies.sizes import DecoderSizes, MappingSizes
from skipserve_training.mapping.language import FrozenLanguageModel
from skipserve_training.mapping.packing import PICTURE, Example, pack
from skipserve_training.mapping.pass_flops import Pass, module_flops
from skipserve_training.mapping.projectors import MappingModule

pytestmark = pytest.mark.fast

LANGUAGES: dict[str, Any] = {
    "llama": make_llama,
    "opt": make_opt,
    "opt-350m": lambda: make_opt(word_embed_proj_dim=16, do_layer_norm_before=False),
}
POLICIES: dict[str, Any] = {
    "full": None,
    "block": {"action": "skip_block", "layers": [0], "scope": "all"},
    "ffn": {"action": "skip_ffn", "layers": [1], "scope": "all"},
    "parallel": {"action": "parallel_ffn_attention", "layers": [0], "scope": "all"},
    "generated": {"action": "skip_block", "layers": [0], "scope": "generated"},
    "visual": {"action": "skip_ffn", "layers": [0], "scope": "visual"},
    "pair": {"action": "parallel_blocks", "layers": [0], "scope": "all"},
    "last": {"action": "skip_attention", "layers": [1], "scope": "all"},
}


def _plan(name: str) -> Plan:
    if POLICIES[name] is None:
        return trim(Plan.full(2))
    return resolve(name, SkipPolicy.model_validate({"rules": [POLICIES[name]]}), 2).plan


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", LANGUAGES)
def test_the_formula_counts_what_torch_counts(kind: str, policy: str) -> None:
    model = LANGUAGES[kind]()
    language = FrozenLanguageModel(model).under(_plan(policy))
    prompts = [(PICTURE, 5, 6, 7), (PICTURE, 5, 6, 8)]
    batch = pack([[Example(prompt, (8, 9, 1), 0)] for prompt in prompts])
    rows = language.embed(batch.ids.clamp(min=0)).detach().requires_grad_()
    with FlopCounterMode(display=False) as there:
        logits = language.logits(language.hidden(rows, batch).flatten(0, 1)[batch.rows])
    with FlopCounterMode(display=False) as back:
        logits.sum().backward()
    length = batch.ids.shape[1]
    counted = Pass(
        {
            TokenClass.VISUAL: 2, TokenClass.TEXT: 4, TokenClass.LAST: 2, TokenClass.GENERATED: 4,
        }, length, 6,
    )  # fmt: skip
    sizes = DecoderSizes.from_config(model.config.to_dict())
    assert there.get_total_flops() == counted.forward_flops(sizes, _plan(policy))
    assert back.get_total_flops() == counted.backward_flops(sizes, _plan(policy))


def test_the_module_costs_what_torch_counts() -> None:
    sizes = MappingSizes(num_queries=3, hidden_size=16, num_layers=2, num_heads=2, ffn_size=24)
    module = MappingModule(20, 40, sizes)
    features = torch.randn(2, 7, 20)
    with FlopCounterMode(display=False) as there, sdpa_kernel(SDPBackend.MATH):
        rows = module(features)
    with FlopCounterMode(display=False) as back:
        rows.sum().backward()
    flops = 2 * module_flops(sizes, 7, 20, 40)
    assert there.get_total_flops() == flops
    assert back.get_total_flops() == 2 * flops - 2 * 2 * 7 * 20 * 16
