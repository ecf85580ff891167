"""Decoders of OPT's type against transformers' OPTForCausalLM: what its LLaVA cannot load, too.

That refuses an OPT whose head is the embedding, and one whose embedding has a width of its own.
"""

import json
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from decoder_subject import assert_close
from model_batches import Rows, run_in_pieces, run_whole
from safetensors.torch import load_file, save_file
from tiny_llava import Naming, make_checkpoint
from tiny_opt import OptShape
from torch import Tensor
from transformers import OPTConfig, OPTForCausalLM

from skipserve.model.config import ModelFilesError
from skipserve.model.llava import Llava
from skipserve_policies.plan import Plan, TokenClass, trim
from skipserve_policies.sizes import MappingSizes

pytestmark = pytest.mark.fast

CPU = torch.device("cpu")
NUM_LAYERS = 3
PREFIX = "language_model."

CASES: dict[str, dict[str, Any]] = {
    "tied head": {"opt": OptShape(), "tie": True},
    "OPT-350M": {"opt": OptShape(is_post_norm=True, word_size=24), "tie": True},
    "a wide embedding": {"opt": OptShape(word_size=96)},
    "a narrow one, no last normalisation": {"opt": OptShape(removes_last_norm=True, word_size=8)},
    "post-norm without gains and biases": {
        "opt": OptShape(is_post_norm=True, has_biases=False, has_gains=False)
    },
    "behind a mapping module": {
        "opt": OptShape(word_size=24),
        "mapping": MappingSizes(3, 16, 2, 2, 24),
    },
}


def load_oracle(folder: Path) -> OPTForCausalLM:
    text = json.loads((folder / "config.json").read_text())["text_config"]
    # It is written for subclasses, and leaves out what they may not want to be asked for.
    model: Any = OPTForCausalLM(OPTConfig(**text))
    tensors = load_file(folder / "model.safetensors")
    state = {name[len(PREFIX) :]: it for name, it in tensors.items() if name.startswith(PREFIX)}
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert set(missing) <= {"lm_head.weight"}
    assert not unexpected
    model.tie_weights()
    return cast(OPTForCausalLM, model.eval())


def make_rows(model: Llava) -> Rows:
    """Return a picture between two texts, and an answer."""
    pixels = torch.randint(0, 256, (1, 28, 28, 3), dtype=torch.uint8)
    features = model.encode_images(pixels.to(model.device))[0].cpu()
    is_visual = torch.tensor([False] * 3 + [True] * len(features) + [False] * 4)
    kinds = [TokenClass.VISUAL if it else TokenClass.TEXT for it in is_visual]
    kinds[-3:] = [TokenClass.LAST, TokenClass.GENERATED, TokenClass.GENERATED]
    ids = torch.randint(5, 300, (len(is_visual),))
    return Rows(ids, tuple(kinds), features, is_visual)


def oracle_logits(oracle: OPTForCausalLM, rows: Rows) -> Tensor:
    with torch.inference_mode():
        embedded = oracle.get_input_embeddings()(rows.ids)
        embedded[rows.is_visual] = rows.features
        logits: Tensor = oracle(inputs_embeds=embedded[None]).logits[0]
    return logits


@pytest.mark.parametrize("case", CASES)
def test_the_full_model_equals_transformers(
    tmp_path: Path, case: str, device: torch.device
) -> None:
    make_checkpoint(tmp_path, num_layers=NUM_LAYERS, **CASES[case])
    model = Llava.load(tmp_path, device, torch.float32)
    rows = make_rows(model)
    assert rows.features.shape == (
        model.config.sizes.rows_per_image,
        model.config.sizes.decoder.embedding_size,
    )
    expected = oracle_logits(load_oracle(tmp_path), rows)
    full = Plan.full(NUM_LAYERS)
    assert_close(run_whole(model, rows, full, range(len(rows))), expected)
    cuts = [2, 5, len(rows) - 2, len(rows) - 1]
    in_pieces = run_in_pieces(model, rows, trim(full), cuts)
    assert_close(in_pieces[-3:], expected[-3:])


def test_the_last_position_is_the_tables_last(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, num_layers=1, opt=OptShape(), max_positions=12)
    model = Llava.load(tmp_path, CPU, torch.float32)
    kinds = (*[TokenClass.TEXT] * 11, TokenClass.LAST)
    rows = Rows(torch.arange(20, 32), kinds, torch.empty(0, 64), torch.zeros(12, dtype=torch.bool))
    expected = oracle_logits(load_oracle(tmp_path), rows)
    assert_close(run_whole(model, rows, Plan.full(1), range(12)), expected)


@pytest.mark.parametrize("naming", Naming)
def test_a_tensor_without_a_use_is_refused(tmp_path: Path, naming: Naming) -> None:
    make_checkpoint(tmp_path, opt=OptShape(is_post_norm=True), naming=naming)
    tensors = load_file(tmp_path / "model.safetensors")
    (name,) = (it for it in tensors if it.endswith("layers.0.final_layer_norm.bias"))
    extra = name.replace("layers.0.", "")
    save_file(tensors | {extra: torch.ones(64)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelFilesError, match=f"1 tensors .* no use for: {extra}"):
        Llava.load(tmp_path, CPU, torch.float32)


@pytest.mark.parametrize(
    ("text_config", "message"),
    [
        ({"max_position_embeddings": 99}, r"embed_positions.weight .*\[514, 64\].*\[101, 64\]"),
        ({"enable_bias": False}, r"no use for: .*bias"),
        ({"layer_norm_elementwise_affine": False}, r"no use for: .*layer_norm"),
        ({"do_layer_norm_before": False}, r"no use for: .*decoder\.final_layer_norm"),
        ({"word_embed_proj_dim": 32}, r"projector.linear_1.weight .*\[64, 32\].*\[32, 32\]"),
        ({"ffn_dim": 32}, r"fc1.weight .*\[176, 64\].*\[32, 64\]"),
        ({"activation_function": "prelu"}, "text_config.activation_function is 'prelu'.*weights"),
        ({"activation_function": "step"}, "text_config.activation_function is 'step'"),
        ({"activation_function": 1}, "text_config.activation_function is 1"),
        ({"model_type": "llama"}, "the checkpoint has no tensor decoder.layers.0"),
    ],
    ids=str,
)
def test_weights_of_another_decoder_are_refused(
    tmp_path: Path, text_config: dict[str, Any], message: str
) -> None:
    make_checkpoint(tmp_path, opt=OptShape(), text_config=tuple(text_config.items()))
    with pytest.raises(ModelFilesError, match=message):
        Llava.load(tmp_path, CPU, torch.float32)
