"""Sizes from Hugging Face configurations: published, legacy, sparse and broken ones."""

from dataclasses import replace
from typing import Any

import pytest

from skipserve_policies.sizes import (
    KNOWN_MODELS,
    DecoderSizes,
    ModelSizes,
    VisionSizes,
    num_layers_used,
)

pytestmark = pytest.mark.fast

# As llava-hf/llava-1.5-7b-hf was first published: it leaves out all that LLaMA-7B has by default.
LEGACY: dict[str, Any] = {
    "architectures": ["LlavaForConditionalGeneration"],
    "ignore_index": -100,
    "image_token_index": 32000,
    "model_type": "llava",
    "pad_token_id": 32001,
    "projector_hidden_act": "gelu",
    "text_config": {
        "_name_or_path": "lmsys/vicuna-7b-v1.5",
        "architectures": ["LlamaForCausalLM"],
        "max_position_embeddings": 4096,
        "model_type": "llama",
        "rms_norm_eps": 1e-05,
        "torch_dtype": "float16",
        "vocab_size": 32064,
    },
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "vision_config": {
        "hidden_size": 1024,
        "image_size": 336,
        "intermediate_size": 4096,
        "model_type": "clip_vision_model",
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
        "projection_dim": 768,
        "vocab_size": 32000,
    },
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
    "vocab_size": 32064,
}
PUBLISHED_7B = KNOWN_MODELS["llava-1.5-7b"]
PADDED_7B = replace(PUBLISHED_7B, decoder=replace(PUBLISHED_7B.decoder, vocab_size=32064))


def test_a_legacy_configuration() -> None:
    assert ModelSizes.from_config(LEGACY) == PADDED_7B


def test_a_configuration_that_says_nothing_means_llava_7b() -> None:
    assert ModelSizes.from_config({}) == PUBLISHED_7B
    silent = {"text_config": None, "vision_config": None}
    assert ModelSizes.from_config(silent) == PUBLISHED_7B


@pytest.mark.parametrize("tower_config", [{}, {"num_channels": None}])
def test_a_tower_that_says_little_is_clips_default(tower_config: dict[str, Any]) -> None:
    tower = VisionSizes.from_config({"vision_config": tower_config})
    assert (tower.num_layers, tower.hidden_size, tower.ffn_size) == (12, 768, 3072)
    assert (tower.image_size, tower.patch_size, tower.num_channels) == (224, 32, 3)


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("mistral", DecoderSizes(32, 4096, 32, 8, 128, 14336, 32000)),
        ("qwen2", DecoderSizes(32, 4096, 32, 32, 128, 22016, 151936)),
    ],
)
def test_a_decoder_that_says_little_is_its_types_default(kind: str, sizes: DecoderSizes) -> None:
    assert DecoderSizes.from_config({"model_type": kind}) == sizes
    half = DecoderSizes.from_config({"model_type": kind, "num_attention_heads": 16})
    assert (half.num_kv_heads, half.head_dim) == (sizes.num_kv_heads, 256)
    null = DecoderSizes.from_config({"model_type": kind, "num_key_value_heads": None})
    assert null.num_kv_heads == 32


def test_a_tower_without_class_token_gives_all_its_patches() -> None:
    """As JoyCaption's: 384 pixels in patches of 14."""
    vision = {"model_type": "siglip_vision_model", "image_size": 384, "patch_size": 14}
    config = {"vision_config": vision, "vision_feature_select_strategy": "full"}
    tower = VisionSizes.from_config(config)
    assert (tower.num_patches, tower.num_rows, tower.num_features) == (729, 729, 729)


@pytest.mark.parametrize("strategy", [{}, {"vision_feature_select_strategy": "default"}], ids=str)
def test_a_class_token_that_is_not_there_cannot_be_dropped(strategy: dict[str, Any]) -> None:
    config = {"vision_config": {"model_type": "siglip_vision_model"}} | strategy
    with pytest.raises(ValueError, match="would lose the first patch of each picture; supported"):
        VisionSizes.from_config(config)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"text_config": {"model_type": "gemma"}}, "text_config.model_type is 'gemma'; supported"),
        (
            {"vision_config": {"model_type": "dino"}},
            "vision_config.model_type is 'dino'; supported",
        ),
        ({"text_config": {"model_type": {}}}, "text_config.model_type is {}; supported: llama"),
    ],
)
def test_types_that_are_not_known(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 (the message is compared below)
        ModelSizes.from_config(config)
    assert message in str(refused.value)


def test_known_models_differ_in_the_decoder_alone() -> None:
    small, large = KNOWN_MODELS["llava-1.5-7b"], KNOWN_MODELS["llava-1.5-13b"]
    assert set(KNOWN_MODELS) == {"llava-1.5-7b", "llava-1.5-13b"}
    assert small.vision == large.vision
    assert small.rows_per_image == 576
    assert large.decoder == DecoderSizes(40, 5120, 40, 40, 128, 13824, 32000)


def test_grouped_queries_and_a_head_size_of_its_own() -> None:
    config = {"hidden_size": 2048, "num_attention_heads": 16, "num_key_value_heads": 4}
    assert DecoderSizes.from_config(config).num_kv_heads == 4
    assert DecoderSizes.from_config(config).head_dim == 128
    assert DecoderSizes.from_config(config | {"head_dim": 64}).head_dim == 64


# As facebook/opt-350m was published, and what opt-1.3b has in its place.
OPT_350M: dict[str, Any] = {
    "model_type": "opt",
    "activation_function": "relu",
    "do_layer_norm_before": False,
    "ffn_dim": 4096,
    "hidden_size": 1024,
    "max_position_embeddings": 2048,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "vocab_size": 50272,
    "word_embed_proj_dim": 512,
}
OPT_1_3B = {"hidden_size": 2048, "ffn_dim": 8192, "num_attention_heads": 32}


def test_a_decoder_of_opts_type() -> None:
    small = DecoderSizes.from_config(OPT_350M)
    assert small == DecoderSizes(
        24, 1024, 16, 16, 64, 4096, 50272, is_gated=False, word_size=512, learns_positions=True
    )
    assert small.embedding_size == 512
    large = DecoderSizes.from_config(OPT_350M | OPT_1_3B | {"word_embed_proj_dim": 2048})
    assert (large.hidden_size, large.head_dim, large.word_size) == (2048, 64, None)
    assert large.embedding_size == 2048


def test_a_silent_decoder_of_opts_type_is_opt_125m() -> None:
    silent = DecoderSizes.from_config({"model_type": "opt", "ffn_dim": None})
    assert silent == DecoderSizes(
        12, 768, 12, 12, 64, 3072, 50272, is_gated=False, learns_positions=True
    )


@pytest.mark.parametrize("name", ["ffn_dim", "word_embed_proj_dim", "num_hidden_layers"])
@pytest.mark.parametrize("value", [0, 2.0, "32", True])
def test_sizes_of_opts_that_are_no_sizes(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a positive whole number"):
        DecoderSizes.from_config(OPT_350M | {name: value})


def test_heads_that_do_not_share_out_the_width() -> None:
    with pytest.raises(ValueError, match="num_attention_heads is 24, which does not divide"):
        DecoderSizes.from_config(OPT_350M | {"num_attention_heads": 24})


def test_none_means_the_default() -> None:
    config = {"num_attention_heads": 8, "num_key_value_heads": None, "head_dim": None}
    sizes = DecoderSizes.from_config(config)
    assert (sizes.num_kv_heads, sizes.head_dim) == (8, 512)


@pytest.mark.parametrize(("strategy", "num_features"), [({}, 576), ("default", 576), ("full", 577)])
def test_the_class_token_is_kept_by_strategy_full(strategy: Any, num_features: int) -> None:
    config = {"vision_feature_select_strategy": strategy} if strategy else {}
    assert VisionSizes.from_config(config).num_features == num_features


def test_patches_that_do_not_fill_the_image_are_cut_off() -> None:
    tower = VisionSizes.from_config({"vision_config": {"image_size": 100, "patch_size": 16}})
    assert tower.num_patches == 36


@pytest.mark.parametrize(
    ("feature_layer", "used"),
    [(-1, 24), (-2, 23), (-25, 0), (0, 0), (23, 23), (24, 24), ([-2, -5], 23), ([3, 9, -24], 9)],
)
def test_how_many_layers_of_the_tower_must_run(feature_layer: Any, used: int) -> None:
    assert num_layers_used(feature_layer, 24) == used


@pytest.mark.parametrize("feature_layer", [25, -26, [], [-2, 25], "last", True, None, [[-2]]])
def test_a_feature_layer_that_is_not_in_the_tower(feature_layer: Any) -> None:
    with pytest.raises(ValueError, match="is not in a tower of 24 layers"):
        num_layers_used(feature_layer, 24)


def test_a_list_of_feature_layers_widens_the_projectors_input() -> None:
    tower = VisionSizes.from_config({"vision_feature_layer": [-2, -5, 7]})
    assert (tower.num_layers_used, tower.num_feature_layers) == (23, 3)


@pytest.mark.parametrize(
    "name", ["num_hidden_layers", "hidden_size", "num_attention_heads", "vocab_size", "head_dim"]
)
@pytest.mark.parametrize("value", [0, -1, 2.0, "32", True, [32]])
def test_sizes_that_are_no_sizes(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name} must be a positive whole number"):
        ModelSizes.from_config({"text_config": {name: value}})


def test_a_tower_with_a_size_that_is_none() -> None:
    with pytest.raises(ValueError, match="patch_size must be a positive whole number, not 0"):
        ModelSizes.from_config({"vision_config": {"patch_size": 0}})
