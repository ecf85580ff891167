"""What the type of a decoder decides, against transformers' own configurations."""

from typing import Any

import pytest
from transformers import CONFIG_MAPPING

from skipserve.model.decoder_types import DECODER_TYPES

pytestmark = pytest.mark.fast

LAYERS = 3
FULL = ["full_attention"] * LAYERS
SLIDING = ["full_attention", "sliding_attention", "full_attention"]
ALL_SLIDE = {"use_sliding_window": True, "max_window_layers": 0}


@pytest.mark.parametrize("name", DECODER_TYPES)
def test_what_is_left_out_is_transformers_default(name: str) -> None:
    kind, oracle = DECODER_TYPES[name], CONFIG_MAPPING[name]()
    assert kind.declared_positions({}) == oracle.max_position_embeddings
    eos = oracle.eos_token_id
    assert kind.eos_token_ids == (() if eos is None else (eos,))
    assert kind.window({}, LAYERS) == getattr(oracle, "sliding_window", None)


@pytest.mark.parametrize(
    ("name", "text", "window"),
    [
        ("mistral", {}, 4096),
        ("mistral", {"sliding_window": 100}, 100),
        ("mistral", {"sliding_window": None}, None),
        # Its code has the window in every layer, whatever is said of layers.
        ("mistral", {"sliding_window": 100, "layer_types": FULL}, 100),
        ("mistral", {"sliding_window": None, "layer_types": FULL}, None),
        ("qwen2", {}, None),
        ("qwen2", {"sliding_window": 100, "max_window_layers": 0}, None),
        ("qwen2", {"sliding_window": "wide", "use_sliding_window": None}, None),
        ("qwen2", {"use_sliding_window": True}, None),
        ("qwen2", {"use_sliding_window": True, "max_window_layers": 3}, None),
        ("qwen2", {"use_sliding_window": True, "max_window_layers": 2}, 4096),
        ("qwen2", ALL_SLIDE | {"sliding_window": None}, None),
        ("qwen2", ALL_SLIDE | {"layer_types": FULL}, None),
        ("qwen2", {"use_sliding_window": True, "sliding_window": 7, "layer_types": SLIDING}, 7),
        ("llama", {}, None),
        ("llama", {"sliding_window": 100}, 100),
        ("llama", {"sliding_window": 100, "layer_types": FULL}, None),
        ("llama", {"sliding_window": 100, "layer_types": SLIDING}, 100),
    ],
)  # fmt: skip
def test_the_window_is_the_narrowest_that_a_layer_has(
    name: str, text: dict[str, Any], window: int | None
) -> None:
    assert DECODER_TYPES[name].window(text, LAYERS) == window


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("mistral", {"sliding_window": 0}, "sliding_window is 0; it must be a whole number"),
        ("mistral", {"sliding_window": "4096"}, "sliding_window is '4096'; it must be"),
        ("mistral", {"sliding_window": None, "layer_types": SLIDING}, "and no window is set"),
        ("qwen2", {"use_sliding_window": 1}, "use_sliding_window is 1; it must be true or false"),
        ("qwen2", {"layer_types": SLIDING}, "and no window is set"),
        ("qwen2", {"use_sliding_window": True, "max_window_layers": -1}, "max_window_layers is -1"),
        ("qwen2", {"layer_types": ["chunked_attention"]}, "layer_types is ['chunked_attention']"),
        ("llama", {"layer_types": "full_attention"}, "it must be a list of full_attention and"),
    ],
)
def test_windows_that_cannot_be_followed(name: str, text: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 (the message is compared below)
        DECODER_TYPES[name].window(text, LAYERS)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("name", "text", "biased"),
    [
        ("llama", {}, ""),
        ("llama", {"attention_bias": True}, "q k v o"),
        ("llama", {"mlp_bias": True}, "gate up down"),
        ("mistral", {"attention_bias": True, "mlp_bias": True}, ""),
        ("qwen2", {"attention_bias": False}, "q k v"),
    ],
)
def test_biases_are_those_of_transformers_layers(
    name: str, text: dict[str, Any], biased: str
) -> None:
    found = DECODER_TYPES[name].biased_layers(text)
    assert found == {f"{layer}_proj" for layer in biased.split()}
