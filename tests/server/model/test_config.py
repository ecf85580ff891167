"""Configurations of checkpoints, whole and broken."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_llava import DecoderType, TowerType, make_checkpoint
from tiny_opt import OptShape
from transformers import CONFIG_MAPPING, LlamaConfig, LlavaConfig, OPTConfig

from skipserve.model.config import ModelConfig, ModelFilesError
from skipserve.model.llava import Llava
from skipserve.model.opt import OptForm
from skipserve_policies.sizes import DecoderSizes, ModelSizes, VisionSizes

pytestmark = pytest.mark.fast


def write_config(folder: Path, **config: Any) -> Path:
    (folder / "config.json").write_text(json.dumps({"model_type": "llava"} | config))
    return folder


def opt(**text: Any) -> dict[str, Any]:
    """Return a configuration whose decoder is of OPT's type."""
    return {"text_config": {"model_type": "opt"} | text}


def test_a_complete_configuration_is_read(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, num_kv_heads=2, feature_layer=(-2, 1), max_positions=99, tie=True)
    config = ModelConfig.from_folder(tmp_path)
    assert config.sizes.decoder.num_kv_heads == 2
    assert config.sizes.vision.num_layers_used == 2
    assert config.max_positions == 99
    assert config.image_token_id == 4
    assert config.eos_token_ids == (2,)
    assert config.feature_layers == (2, 1)
    assert config.ties_head
    assert config.dtype == "float32"
    assert config.image_processor.mean == (0.48145466, 0.4578275, 0.40821073)


def test_a_silent_configuration_means_what_it_means_to_transformers(tmp_path: Path) -> None:
    config = ModelConfig.from_folder(write_config(tmp_path))
    oracle = LlavaConfig()
    assert config.sizes == ModelSizes.from_config(oracle.to_dict())
    assert isinstance(oracle.text_config, LlamaConfig)
    assert config.max_positions == oracle.text_config.max_position_embeddings
    assert config.image_token_id == oracle.image_token_index
    assert config.rms_norm_epsilon == oracle.text_config.rms_norm_eps
    assert config.eos_token_ids == (oracle.text_config.eos_token_id,)
    assert config.projector_activation == oracle.projector_hidden_act
    assert config.feature_layers == (23,)
    assert not config.ties_head


def test_a_silent_decoder_of_opts_type_is_transformers_default(tmp_path: Path) -> None:
    config = ModelConfig.from_folder(write_config(tmp_path, **opt()))
    oracle = LlavaConfig(text_config={"model_type": "opt"})
    text = oracle.text_config
    assert isinstance(text, OPTConfig)
    assert config.sizes.decoder == DecoderSizes.from_config(text.to_dict())
    assert (config.sizes.decoder.ffn_size, config.sizes.decoder.word_size) == (text.ffn_dim, None)
    assert config.max_positions == text.max_position_embeddings
    assert config.eos_token_ids == (text.eos_token_id,)
    assert config.opt == OptForm(
        is_post_norm=not text.do_layer_norm_before,
        has_last_norm=not text._remove_final_layer_norm,
        has_biases=text.enable_bias,
        has_gains=text.layer_norm_elementwise_affine,
        activation=text.activation_function,
    )
    assert oracle.tie_word_embeddings
    assert config.ties_head


@pytest.mark.parametrize("top", [True, False, None])
@pytest.mark.parametrize("text", [True, False, None])
def test_opts_head_is_tied_where_transformers_ties_it(
    tmp_path: Path, top: bool | None, text: bool | None
) -> None:
    said = {} if text is None else {"tie_word_embeddings": text}
    whole = opt(**said) | ({} if top is None else {"tie_word_embeddings": top})
    oracle = LlavaConfig(**whole)
    assert ModelConfig.from_folder(write_config(tmp_path, **whole)).ties_head is bool(
        oracle.tie_word_embeddings
    )


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2"])
def test_a_silent_decoder_means_what_its_type_means_to_transformers(
    tmp_path: Path, kind: str
) -> None:
    config = ModelConfig.from_folder(write_config(tmp_path, text_config={"model_type": kind}))
    oracle = CONFIG_MAPPING[kind]()
    assert config.declared_positions == oracle.max_position_embeddings
    assert config.max_positions == (oracle.max_position_embeddings if kind != "mistral" else 4096)
    assert config.rms_norm_epsilon == oracle.rms_norm_eps
    assert config.eos_token_ids == (() if kind == "qwen2" else (oracle.eos_token_id,))
    assert config.ties_head == oracle.tie_word_embeddings


def test_a_silent_siglip_is_what_it_is_to_transformers(tmp_path: Path) -> None:
    vision = {"model_type": "siglip_vision_model"}
    write_config(tmp_path, vision_config=vision, vision_feature_select_strategy="full")
    config = ModelConfig.from_folder(tmp_path)
    assert not config.sizes.vision.has_cls
    assert config.sizes.rows_per_image == 196
    assert config.image_processor.mean == (0.5, 0.5, 0.5)
    assert config.image_processor.size == {"height": 224, "width": 224}
    assert config.image_processor.crop is None


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2"])
@pytest.mark.parametrize("given", [{}, {"num_attention_heads": 64}, {"hidden_size": 2048}], ids=str)
def test_a_silent_decoder_is_its_types_default(kind: str, given: dict[str, Any]) -> None:
    oracle = CONFIG_MAPPING[kind](**given)
    head_dim = oracle.hidden_size // oracle.num_attention_heads
    assert DecoderSizes.from_config({"model_type": kind} | given) == DecoderSizes(
        num_layers=oracle.num_hidden_layers,
        hidden_size=oracle.hidden_size,
        num_heads=oracle.num_attention_heads,
        num_kv_heads=oracle.num_key_value_heads,
        head_dim=head_dim,
        ffn_size=oracle.intermediate_size,
        vocab_size=oracle.vocab_size,
    )


@pytest.mark.parametrize("kind", ["clip_vision_model", "siglip_vision_model", "vit", "timesformer"])
def test_a_silent_tower_is_its_types_default(kind: str) -> None:
    oracle = CONFIG_MAPPING[kind]()
    has_cls = kind != "siglip_vision_model"
    config = {"vision_config": {"model_type": kind}, "vision_feature_select_strategy": "full"}
    assert VisionSizes.from_config(config) == VisionSizes(
        num_layers=oracle.num_hidden_layers,
        num_layers_used=oracle.num_hidden_layers - 1,
        hidden_size=oracle.hidden_size,
        ffn_size=oracle.intermediate_size,
        image_size=oracle.image_size,
        patch_size=oracle.patch_size,
        num_channels=oracle.num_channels,
        keeps_cls=has_cls,
        has_cls=has_cls,
        kind=kind,
        num_frames=getattr(oracle, "num_frames", 1),
    )


def test_a_silent_ast_is_its_types_default() -> None:
    kind = "audio-spectrogram-transformer"
    oracle, sizes = CONFIG_MAPPING[kind](), VisionSizes.of_tower({"model_type": kind})
    assert sizes.input_shape == (oracle.max_length, oracle.num_mel_bins)
    assert sizes.spectrogram is not None
    strides = sizes.spectrogram.time_stride, sizes.spectrogram.frequency_stride
    assert strides == (oracle.time_stride, oracle.frequency_stride)
    assert (sizes.num_layers, sizes.patch_size) == (oracle.num_hidden_layers, oracle.patch_size)
    assert (sizes.hidden_size, sizes.ffn_size) == (oracle.hidden_size, oracle.intermediate_size)
    assert sizes.num_heads == oracle.num_attention_heads


def test_the_published_7b_is_read(tmp_path: Path) -> None:
    """Its text_config leaves out most of what LLaMA's defaults say."""
    text = {"model_type": "llama", "max_position_embeddings": 4096, "vocab_size": 32064}
    text |= {"rms_norm_eps": 1e-5, "torch_dtype": "float16"}
    config = ModelConfig.from_folder(write_config(tmp_path, text_config=text))
    assert config.sizes.decoder.num_layers == 32
    assert config.sizes.decoder.ffn_size == 11008
    assert config.sizes.decoder.vocab_size == 32064
    assert config.sizes.rows_per_image == 576
    assert config.dtype == "float16"


def test_every_file_may_name_tokens_that_end_an_answer(tmp_path: Path) -> None:
    write_config(tmp_path)
    assert ModelConfig.from_folder(tmp_path).eos_token_ids == (2,)
    write_config(tmp_path, eos_token_id=7)
    assert ModelConfig.from_folder(tmp_path).eos_token_ids == (7,)
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [5, 6]}')
    assert ModelConfig.from_folder(tmp_path).eos_token_ids == (5, 6, 7)
    write_config(tmp_path, eos_token_id=None, text_config={"eos_token_id": [8, 5]})
    assert ModelConfig.from_folder(tmp_path).eos_token_ids == (5, 6, 8)


@pytest.mark.parametrize("value", ["2", [2, "3"], 2.0, {}, True])
def test_end_tokens_that_are_no_ids(tmp_path: Path, value: Any) -> None:
    with pytest.raises(ModelFilesError, match="eos_token_id is"):
        ModelConfig.from_folder(write_config(tmp_path, eos_token_id=value))


def test_the_image_token_by_either_name(tmp_path: Path) -> None:
    assert ModelConfig.from_folder(write_config(tmp_path)).image_token_id == 32000
    write_config(tmp_path, image_token_id=9, image_token_index=None)
    assert ModelConfig.from_folder(tmp_path).image_token_id == 9
    write_config(tmp_path, image_token_id=9, image_token_index=9)
    assert ModelConfig.from_folder(tmp_path).image_token_id == 9
    write_config(tmp_path, image_token_id=9, image_token_index=8)
    with pytest.raises(ModelFilesError, match="not one token id"):
        ModelConfig.from_folder(tmp_path)


@pytest.mark.parametrize(
    ("config", "dtype"),
    [
        ({"dtype": "bfloat16"}, "bfloat16"),
        ({"torch_dtype": "torch.bfloat16"}, "bfloat16"),
        ({"torch_dtype": "float64"}, "float64"),
        ({"torch_dtype": "double"}, "float64"),
        ({"torch_dtype": "half"}, "float16"),
        ({"torch_dtype": "torch.float"}, "float32"),
        ({"dtype": "float16", "torch_dtype": "float32"}, "float16"),
        ({"dtype": None, "torch_dtype": "float32"}, "float32"),
        ({"torch_dtype": "auto"}, None),
        ({"torch_dtype": None}, None),
        ({}, None),
        ({"dtype": "float16", "text_config": {"dtype": "float32"}}, "float16"),
        ({"text_config": {"torch_dtype": "torch.float16"}}, "float16"),
    ],
)
def test_types_are_declared_in_several_ways(
    tmp_path: Path, config: dict[str, Any], dtype: str | None
) -> None:
    assert ModelConfig.from_folder(write_config(tmp_path, **config)).dtype == dtype


@pytest.mark.parametrize("dtype", ["bf16", "int8", "float8_e4m3fn", "", 16, {"": "float16"}, [1]])
@pytest.mark.parametrize("name", ["dtype", "torch_dtype"])
def test_types_that_are_none_are_refused(tmp_path: Path, name: str, dtype: object) -> None:
    with pytest.raises(ModelFilesError, match=rf"not valid: {name} is .*; supported: float32"):
        ModelConfig.from_folder(write_config(tmp_path, **{name: dtype}))


@pytest.mark.parametrize(
    "processor",
    [
        {},
        {"patch_size": 14},
        {"patch_size": 14, "vision_feature_select_strategy": "default"},
        {"num_additional_image_tokens": 1},
        {"patch_size": None, "vision_feature_select_strategy": "full"},
        # Two deviations that come to the same number of tokens.
        {
            "patch_size": 14,
            "vision_feature_select_strategy": "full",
            "num_additional_image_tokens": 0,
        },
    ],
    ids=str,
)
def test_a_processor_that_counts_as_the_model_does(
    tmp_path: Path, processor: dict[str, Any]
) -> None:
    (tmp_path / "processor_config.json").write_text(json.dumps(processor))
    assert ModelConfig.from_folder(write_config(tmp_path)).sizes.rows_per_image == 576


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({"patch_size": 16}, 441),
        ({"vision_feature_select_strategy": "full"}, 577),
        ({"num_additional_image_tokens": 0}, 575),
    ],
)
def test_a_processor_that_counts_otherwise_is_refused(
    tmp_path: Path, changes: dict[str, Any], count: int
) -> None:
    processor = {"patch_size": 14, "vision_feature_select_strategy": "default"} | changes
    (tmp_path / "processor_config.json").write_text(json.dumps(processor))
    with pytest.raises(ModelFilesError, match=rf"processor_config\.json makes {count} .* 576"):
        ModelConfig.from_folder(write_config(tmp_path))


def test_an_image_processor_that_cannot_be_followed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text('{"resample": "bicubic"}')
    with pytest.raises(
        ModelFilesError, match=r"preprocessor_config\.json .*: resample is 'bicubic'"
    ):
        ModelConfig.from_folder(write_config(tmp_path))


def test_an_image_processor_that_is_no_object_is_refused(tmp_path: Path) -> None:
    (tmp_path / "processor_config.json").write_text('{"image_processor": "clip"}')
    with pytest.raises(ModelFilesError, match=r"image_processor in .*processor_config\.json"):
        ModelConfig.from_folder(write_config(tmp_path))


@pytest.mark.parametrize("file", ["preprocessor_config.json", "processor_config.json"])
def test_both_kinds_of_processor_files_are_read(tmp_path: Path, file: str) -> None:
    write_config(tmp_path)
    values: dict[str, Any] = {"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3]}
    nested = values if file == "preprocessor_config.json" else {"image_processor": values}
    (tmp_path / file).write_text(json.dumps(nested))
    config = ModelConfig.from_folder(tmp_path)
    assert config.image_processor.mean == (0.1, 0.2, 0.3)
    assert config.image_processor.std == (1.0, 2.0, 3.0)


def test_the_newer_file_of_the_image_processor_wins(tmp_path: Path) -> None:
    write_config(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.1, 0.1]}')
    nested = {"image_processor": {"image_mean": [0.2, 0.2, 0.2]}}
    (tmp_path / "processor_config.json").write_text(json.dumps(nested))
    assert ModelConfig.from_folder(tmp_path).image_processor.mean == (0.2, 0.2, 0.2)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "llava_next"}, "model_type is 'llava_next'; supported: llava"),
        (
            {"text_config": {"model_type": "gemma", "hidden_act": "gelu"}},
            "text_config.model_type is 'gemma'; supported: llama, mistral, qwen2",
        ),
        ({"text_config": {"model_type": None}}, "text_config.model_type is None; supported: llama"),
        ({"text_config": {"model_type": ["llama"]}}, "text_config.model_type is ['llama']"),
        ({"text_config": {"hidden_act": "gelu"}}, "hidden_act is 'gelu'; supported: silu"),
        (
            {"vision_config": {"model_type": "siglip2_vision_model"}},
            "is 'siglip2_vision_model'; supported: clip_vision_model, siglip_vision_model",
        ),
        ({"vision_config": {"model_type": "siglip_vision_model"}}, "would lose the first patch"),
        (
            {
                "vision_config": {"model_type": "siglip_vision_model"},
                "vision_feature_select_strategy": "some",
            },
            "vision_feature_select_strategy is 'some'; supported: default, full",
        ),
        ({"vision_config": {"num_channels": 1}}, "num_channels is 1"),
        ({"vision_feature_select_strategy": "some"}, "'some'"),
        ({"vision_feature_layer": 0}, "no layer of the vision tower"),
        ({"vision_feature_layer": 99}, "vision_feature_layer 99"),
        ({"text_config": {"rope_scaling": {"type": "longrope"}}}, "'longrope'"),
        ({"text_config": {"rope_parameters": {"rope_type": "su"}}}, "'su'"),
        ({"text_config": {"num_attention_heads": 0}}, "not valid"),
        ({"text_config": {"num_attention_heads": 6, "num_key_value_heads": 4}}, "6 query heads"),
        ({"text_config": "llama"}, "text_config is 'llama'; it must be an object"),
        ({"text_config": {"rope_scaling": "linear"}}, "rope_scaling is 'linear'"),
        ({"text_config": {"rope_theta": "1e4"}}, "rope_theta is '1e4'; it must be a number"),
        ({"text_config": {"max_position_embeddings": 0}}, "is 0; it must be a whole number larger"),
        ({"text_config": {"max_position_embeddings": 9.5}}, "is 9.5; it must be a whole number"),
        ({"text_config": {"rms_norm_eps": None}}, "rms_norm_eps is None; it must be a number"),
        ({"text_config": {"sliding_window": 0}}, "sliding_window is 0; it must be a whole number"),
        ({"text_config": {"layer_types": ["sliding_attention"]}}, "and no window is set"),
        ({"text_config": {"layer_types": ["linear_attention"]}}, "layer_types is ['linear_att"),
        ({"text_config": {"attention_bias": "no"}}, "attention_bias is 'no'; it must be true or"),
        (opt(num_attention_heads=5), "num_attention_heads is 5, which does not divide hidden_size"),
        (opt(num_hidden_layers=0), "num_hidden_layers must be a positive whole number, not 0"),
        (opt(ffn_dim="3072"), "ffn_dim must be a positive whole number, not '3072'"),
        (opt(word_embed_proj_dim=0), "word_embed_proj_dim must be a positive whole number, not 0"),
        (opt(max_position_embeddings=True), "max_position_embeddings is True; it must be a whole"),
        (opt(do_layer_norm_before="no"), "do_layer_norm_before is 'no'; it must be true or false"),
        (
            opt(_remove_final_layer_norm=1),
            "_remove_final_layer_norm is 1; it must be",
        ),
        (opt(enable_bias=0), "enable_bias is 0; it must be true or false"),
        (opt(layer_norm_elementwise_affine=2), "layer_norm_elementwise_affine is 2; it must be"),
        (opt(tie_word_embeddings="yes"), "tie_word_embeddings is 'yes'; it must be true or false"),
        (opt(model_type="OPT"), "text_config.model_type is 'OPT'; supported: llama, mistral"),
        ({"model_type": "llama"}, "hf download llava-hf/llava-1.5-7b-hf"),
        ({"mm_vision_tower": "openai/clip"}, "the form of its authors' own program"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings is 'false'"),
        ({"text_config": {"tie_word_embeddings": 1}}, "tie_word_embeddings is 1"),
        ({"multimodal_projector_bias": "no"}, "multimodal_projector_bias is 'no'"),
        ({"quantization_config": {"quant_method": "awq"}}, "are quantised: config.json has quant"),
    ],
)
def test_what_is_not_supported_is_refused(
    tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(ModelFilesError) as refused:
        ModelConfig.from_folder(write_config(tmp_path, **config))
    assert message in str(refused.value)


def fields(values: dict[str, Any], *above: str) -> Iterator[tuple[str, ...]]:
    """Yield the path to each field of nested objects."""
    for name, value in values.items():
        yield (*above, name)
        if isinstance(value, dict):
            yield from fields(value, *above, name)


def with_value(values: dict[str, Any], path: tuple[str, ...], value: object) -> dict[str, Any]:
    """Return nested objects in which one field has another value."""
    first, *rest = path
    inner = with_value(values[first], tuple(rest), value) if rest else value
    return values | {first: inner}


@pytest.mark.parametrize("opt", [OptShape(), OptShape(is_post_norm=True, word_size=48)])
def test_whatever_a_field_of_opts_holds_is_followed_or_refused(
    tmp_path: Path, opt: OptShape
) -> None:
    make_checkpoint(tmp_path, num_layers=1, opt=opt)
    content = json.loads((tmp_path / "config.json").read_text())
    values: tuple[object, ...] = (None, "x", -1, [], {"a": 1}, True)
    for name in content["text_config"]:
        for value in values:
            changed = json.dumps(with_value(content, ("text_config", name), value))
            (tmp_path / "config.json").write_text(changed)
            with contextlib.suppress(ModelFilesError):
                Llava.load(tmp_path, torch.device("cpu"), torch.float32)


KINDS: dict[str, dict[str, Any]] = {
    "llama": {"text_config": (("attention_bias", False), ("mlp_bias", False))},
    "qwen2 and siglip": {
        "decoder": DecoderType.QWEN2,
        "tower": TowerType.SIGLIP,
        "select_strategy": "full",
        "vision_config": (("vision_use_head", True),),
        "text_config": (
            ("use_sliding_window", True),
            ("sliding_window", 600),
            ("max_window_layers", 0),
            ("layer_types", ["sliding_attention"]),
        ),
    },
}


@pytest.mark.parametrize(
    ("kind", "file"),
    [
        ("llama", "config.json"),
        ("llama", "processor_config.json"),
        ("qwen2 and siglip", "config.json"),
    ],
)
def test_whatever_a_field_holds_is_followed_or_refused(
    tmp_path: Path, kind: str, file: str
) -> None:
    """Any exception but the one of checkpoints' files would end the start in a traceback."""
    rope = {"rope_theta": 1e4, "rope_type": "linear", "factor": 2.0}
    text = (("hidden_act", "silu"), ("rope_theta", None), ("rope_parameters", rope))
    more = KINDS[kind]
    shape = more | {"text_config": more["text_config"] + text}
    make_checkpoint(tmp_path, num_layers=1, **shape)
    content = json.loads((tmp_path / file).read_text())
    if file == "config.json":
        content["vision_config"] |= {"hidden_act": "gelu", "layer_norm_eps": 1e-5}
    values: tuple[object, ...] = (None, "x", -1, [], {"a": 1})
    for path in fields(content):
        for value in values:
            (tmp_path / file).write_text(json.dumps(with_value(content, path, value)))
            with contextlib.suppress(ModelFilesError):
                model = Llava.load(tmp_path, torch.device("cpu"), torch.float32)
                model.encode_images(torch.zeros(1, 28, 28, 3, dtype=torch.uint8))


@pytest.mark.parametrize("content", ["{", "[]", "", "[" * 100_000])
def test_a_damaged_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ModelFilesError, match=r"config\.json"):
        ModelConfig.from_folder(tmp_path)


def test_a_folder_without_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFilesError, match=r"no config\.json"):
        ModelConfig.from_folder(tmp_path)
