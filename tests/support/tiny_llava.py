"""Writes small random LLaVA checkpoints in Hugging Face's format, complete with a tokenizer."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tiny_opt import OptShape, opt_config, opt_tensor_sizes
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor

from skipserve_policies.sizes import MappingSizes

SPECIAL_TOKENS = ("<unk>", "<s>", "</s>", "<pad>", "<image>")
MERGES = (("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("i", "n"), ("r", "e"))
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role']|upper }}: "
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% endif %}{% if message['role'] == 'assistant' %}{{ '</s>' }}{% else %}{{ ' ' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)

# Functions, calls and results as in Qwen2's templates, whose form is Hermes'.
HERMES_TEMPLATE = (
    "{% if tools %}TOOLS: {% for tool in tools %}{{ tool | tojson }} {% endfor %}{% endif %}"
    "{% for message in messages %}{% if message['role'] == 'tool' %}"
    "{{ '<tool_response>\\n' + message['content'] + '\\n</tool_response> ' }}"
    "{% else %}{{ message['role']|upper }}: {% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% endif %}{% for call in message['tool_calls'] or () %}"
    "{{ '<tool_call>\\n' }}{{ call['function'] | tojson }}{{ '\\n</tool_call>' }}{% endfor %}"
    "{{ '</s>' if message['role'] == 'assistant' else ' ' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


class DecoderType(StrEnum):
    """The `model_type` of a decoder."""

    LLAMA = "llama"
    MISTRAL = "mistral"
    QWEN2 = "qwen2"


class TowerType(StrEnum):
    """The `model_type` of a vision tower."""

    CLIP = "clip_vision_model"
    SIGLIP = "siglip_vision_model"


class Naming(StrEnum):
    """How the tensors are called: as published, or as transformers 5 writes them."""

    PUBLISHED = "published"
    VERSION_5 = "version_5"


@dataclass(frozen=True)
class Shape:
    """What a checkpoint looks like; the same fields as keywords of `make_checkpoint`.

    Attributes:
        tower: SigLIP's has no class token, and so wants `select_strategy="full"`.
        mapping: the sizes of a mapping module in place of LLaVA's projector.
        opt: the form of a decoder of OPT's type in place of LLaMA's.
        tie: leave out the head: it is the embedding.
        num_shards: files that the weights are spread over, with an index if more than one.
        text_config, vision_config, top_config: entries that are set besides, or removed where None.
    """

    decoder: DecoderType = DecoderType.LLAMA
    tower: TowerType = TowerType.CLIP
    num_layers: int = 4
    num_heads: int = 4
    num_kv_heads: int = 4
    hidden: int = 64
    head_dim: int | None = None
    ffn: int = 176
    vocab: int = 320
    max_positions: int = 512
    image_size: int = 28
    patch_size: int = 7
    vision_layers: int = 3
    vision_hidden: int = 32
    vision_heads: int = 2
    vision_ffn: int = 64
    feature_layer: int | tuple[int, ...] = -2
    select_strategy: str = "default"
    projector_bias: bool = True
    mapping: MappingSizes | None = None
    opt: OptShape | None = None
    tie: bool = False
    seed: int = 0
    dtype: torch.dtype = torch.float32
    naming: Naming = Naming.PUBLISHED
    num_shards: int = 1
    text_config: tuple[tuple[str, Any], ...] = ()
    vision_config: tuple[tuple[str, Any], ...] = ()
    top_config: tuple[tuple[str, Any], ...] = ()

    @property
    def head_size(self) -> int:
        """Size of one attention head."""
        return self.head_dim or self.hidden // self.num_heads

    @property
    def word_size(self) -> int:
        """Width of the embedding."""
        return (self.opt and self.opt.word_size) or self.hidden

    @property
    def num_patches(self) -> int:
        """Patches of one image."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def has_cls(self) -> bool:
        """Whether the tower has a class token."""
        return self.tower is TowerType.CLIP


def make_checkpoint(folder: Path, **shape: Any) -> Path:
    """Write a complete checkpoint into a folder, which is made if it is missing.

    Args:
        folder: where to.
        shape: fields of `Shape`.

    Returns:
        The folder.
    """
    chosen = Shape(**shape)
    folder.mkdir(parents=True, exist_ok=True)
    _write_weights(folder, chosen)
    _write_json(folder / "config.json", _config(chosen))
    _write_json(folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2})
    _write_tokenizer(folder, chosen)
    _write_processor(folder, chosen)
    return folder


def make_tokenizer() -> Tokenizer:
    """Return a byte-level BPE of 256 bytes, five special tokens and five merges."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*SPECIAL_TOKENS, *alphabet, *("".join(pair) for pair in MERGES)]
    model = models.BPE(
        vocab={word: index for index, word in enumerate(words)},
        merges=list(MERGES),
        unk_token="<unk>",
    )
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in SPECIAL_TOKENS])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
    )
    return tokenizer


def _text_config(shape: Shape) -> dict[str, Any]:
    if shape.opt is not None:
        return opt_config(
            shape.opt,
            num_layers=shape.num_layers,
            num_heads=shape.num_heads,
            hidden=shape.hidden,
            ffn=shape.ffn,
            vocab=shape.vocab,
            max_positions=shape.max_positions,
            tie=shape.tie,
        )
    return {
        "model_type": shape.decoder,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.ffn,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "head_dim": shape.head_size,
        "max_position_embeddings": shape.max_positions,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "vocab_size": shape.vocab,
        "tie_word_embeddings": shape.tie,
    }


def _config(shape: Shape) -> dict[str, Any]:
    text = _text_config(shape) | dict(shape.text_config)
    vision = {
        "model_type": shape.tower,
        "hidden_size": shape.vision_hidden,
        "image_size": shape.image_size,
        "intermediate_size": shape.vision_ffn,
        "num_attention_heads": shape.vision_heads,
        "num_hidden_layers": shape.vision_layers,
        "patch_size": shape.patch_size,
        "projection_dim": shape.vision_hidden,
    } | dict(shape.vision_config)
    layer = shape.feature_layer
    config = {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "dtype": str(shape.dtype).removeprefix("torch."),
        "image_token_index": SPECIAL_TOKENS.index("<image>"),
        "image_seq_length": shape.num_patches,
        "multimodal_projector_bias": shape.projector_bias,
        "projector_hidden_act": "gelu",
        "tie_word_embeddings": shape.tie,
        "text_config": {key: value for key, value in text.items() if value is not None},
        "vision_config": {key: value for key, value in vision.items() if value is not None},
        "vision_feature_layer": layer if isinstance(layer, int) else list(layer),
        "vision_feature_select_strategy": shape.select_strategy,
    }
    if shape.mapping is not None:
        config |= _mapping_config(shape.mapping)
    config |= dict(shape.top_config)
    return {key: value for key, value in config.items() if value is not None}


def _mapping_config(sizes: MappingSizes) -> dict[str, Any]:
    return {
        "model_type": "skipserve_llava",
        "projector_type": "mapping",
        "num_query_tokens": sizes.num_queries,
        "image_seq_length": sizes.num_queries,
        "projector_hidden_size": sizes.hidden_size,
        "projector_layers": sizes.num_layers,
        "projector_heads": sizes.num_heads,
        "projector_ffn_size": sizes.ffn_size,
    }


def _write_weights(folder: Path, shape: Shape) -> None:
    generator = torch.Generator().manual_seed(shape.seed)
    tensors = {
        _rename(name, shape.naming): _random(name, size, generator).to(shape.dtype)
        for name, size in _tensor_sizes(shape)
    }
    if shape.num_shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    file_of = {
        name: f"model-{index % shape.num_shards + 1:05d}-of-{shape.num_shards:05d}.safetensors"
        for index, name in enumerate(tensors)
    }
    for file in sorted(set(file_of.values())):
        shard = {name: tensor for name, tensor in tensors.items() if file_of[name] == file}
        save_file(shard, folder / file, metadata={"format": "pt"})
    total = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": file_of}
    _write_json(folder / "model.safetensors.index.json", index)


def _tensor_sizes(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the published names with their sizes."""
    if not shape.tie:
        yield "language_model.lm_head.weight", (shape.vocab, shape.word_size)
    for name, size in _decoder_sizes(shape):
        yield f"language_model.model.{name}", size
    for name, size in _vision_sizes(shape):
        yield f"vision_tower.vision_model.{name}", size
    for name, size in _projector_sizes(shape):
        yield f"multi_modal_projector.{name}", size


def _projector_sizes(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    num_features = 1 if isinstance(shape.feature_layer, int) else len(shape.feature_layer)
    width = num_features * shape.vision_hidden
    if shape.mapping is not None:
        yield from mapping_tensor_sizes(shape.mapping, width, shape.word_size)
        return
    for name, num_inputs in (("linear_1", width), ("linear_2", shape.word_size)):
        yield f"{name}.weight", (shape.word_size, num_inputs)
        if shape.projector_bias:
            yield f"{name}.bias", (shape.word_size,)


def mapping_tensor_sizes(
    sizes: MappingSizes, feature_size: int, hidden: int
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the tensors of a mapping module by name."""
    width, ffn = sizes.hidden_size, sizes.ffn_size
    yield "queries", (sizes.num_queries, width)
    linears = {
        "input": (width, feature_size),
        "output": (feature_size, width),
        "to_llm": (hidden, feature_size),
    }
    for layer in (f"layers.{number}" for number in range(sizes.num_layers)):
        yield f"{layer}.attention.in_proj_weight", (3 * width, width)
        yield f"{layer}.attention.in_proj_bias", (3 * width,)
        for norm in ("norm1", "norm2"):
            yield f"{layer}.{norm}.weight", (width,)
            yield f"{layer}.{norm}.bias", (width,)
        linears[f"{layer}.attention.out_proj"] = (width, width)
        linears[f"{layer}.ffn.up"] = (ffn, width)
        linears[f"{layer}.ffn.down"] = (width, ffn)
    for name, size in linears.items():
        yield f"{name}.weight", size
        yield f"{name}.bias", size[:1]


def _decoder_sizes(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    if shape.opt is not None:
        tensors = opt_tensor_sizes(
            shape.opt,
            num_layers=shape.num_layers,
            hidden=shape.hidden,
            ffn=shape.ffn,
            vocab=shape.vocab,
            max_positions=shape.max_positions,
        )
        yield from ((f"decoder.{name}", size) for name, size in tensors)
        return
    yield "embed_tokens.weight", (shape.vocab, shape.hidden)
    yield "norm.weight", (shape.hidden,)
    for layer in range(shape.num_layers):
        for name, size in _decoder_layer_sizes(shape):
            yield f"layers.{layer}.{name}", size


def _decoder_layer_sizes(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    hidden, ffn = shape.hidden, shape.ffn
    d_q, d_kv = shape.num_heads * shape.head_size, shape.num_kv_heads * shape.head_size
    yield "input_layernorm.weight", (hidden,)
    yield "post_attention_layernorm.weight", (hidden,)
    for name, num_outputs in (("q_proj", d_q), ("k_proj", d_kv), ("v_proj", d_kv)):
        yield f"self_attn.{name}.weight", (num_outputs, hidden)
        if shape.decoder is DecoderType.QWEN2:
            yield f"self_attn.{name}.bias", (num_outputs,)
    yield "self_attn.o_proj.weight", (hidden, d_q)
    yield "mlp.gate_proj.weight", (ffn, hidden)
    yield "mlp.up_proj.weight", (ffn, hidden)
    yield "mlp.down_proj.weight", (hidden, ffn)


def _vision_sizes(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    width, patch = shape.vision_hidden, shape.patch_size
    if shape.has_cls:
        yield "embeddings.class_embedding", (width,)
    else:
        yield "embeddings.patch_embedding.bias", (width,)
        yield from _pooling_head_sizes(shape)
    yield "embeddings.patch_embedding.weight", (width, 3, patch, patch)
    yield "embeddings.position_embedding.weight", (shape.num_patches + shape.has_cls, width)
    for norm in ("pre_layrnorm", "post_layernorm") if shape.has_cls else ("post_layernorm",):
        yield from _norm_sizes(norm, width)
    linears = {f"self_attn.{name}_proj": (width, width) for name in ("q", "k", "v", "out")}
    linears |= _mlp_sizes(shape)
    for layer in (f"encoder.layers.{number}" for number in range(shape.vision_layers)):
        for norm in ("layer_norm1", "layer_norm2"):
            yield from _norm_sizes(f"{layer}.{norm}", width)
        for name, size in linears.items():
            yield f"{layer}.{name}.weight", size
            yield f"{layer}.{name}.bias", size[:1]


def _norm_sizes(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _mlp_sizes(shape: Shape) -> dict[str, tuple[int, int]]:
    width, ffn = shape.vision_hidden, shape.vision_ffn
    return {"mlp.fc1": (ffn, width), "mlp.fc2": (width, ffn)}


def _pooling_head_sizes(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the tensors of SigLIP's head, which LLaVA has no use for."""
    width = shape.vision_hidden
    yield "head.probe", (1, 1, width)
    yield "head.attention.in_proj_weight", (3 * width, width)
    yield "head.attention.in_proj_bias", (3 * width,)
    yield from _norm_sizes("head.layernorm", width)
    for name, size in ({"attention.out_proj": (width, width)} | _mlp_sizes(shape)).items():
        yield f"head.{name}.weight", size
        yield f"head.{name}.bias", size[:1]


def _random(name: str, size: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw weights under which every part of the model shows in the logits."""
    draw = torch.randn(size, generator=generator)
    if len(size) > 1:
        scale: float = draw[0].numel() ** -0.5
        return draw * scale
    return draw * 0.1 + 1.0 if "norm" in name and name.endswith("weight") else draw * 0.1


def _rename(name: str, naming: Naming) -> str:
    if naming is Naming.PUBLISHED:
        return name
    name = name.replace("language_model.lm_head", "lm_head")
    name = name.replace("language_model.model.", "model.language_model.")
    name = name.replace("vision_tower.vision_model.", "model.vision_tower.")
    return name.replace("multi_modal_projector", "model.multi_modal_projector")


def _write_tokenizer(folder: Path, shape: Shape) -> None:
    make_tokenizer().save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "model_max_length": shape.max_positions,
        "processor_class": "LlavaProcessor",
    }
    _write_json(folder / "tokenizer_config.json", config)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)


def _write_processor(folder: Path, shape: Shape) -> None:
    side = {"height": shape.image_size, "width": shape.image_size}
    of_clip = {
        "image_processor_type": "CLIPImageProcessor",
        "crop_size": side,
        "size": {"shortest_edge": shape.image_size},
        "do_center_crop": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
    of_siglip = {
        "image_processor_type": "SiglipImageProcessor",
        "size": side,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    image_processor = {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "resample": 3,
        "rescale_factor": 1 / 255,
        **(of_clip if shape.has_cls else of_siglip),
    }
    config = {
        "processor_class": "LlavaProcessor",
        "image_processor": image_processor,
        "image_token": "<image>",
        "num_additional_image_tokens": int(shape.has_cls),
        "patch_size": shape.patch_size,
        "vision_feature_select_strategy": shape.select_strategy,
    }
    _write_json(folder / "processor_config.json", config)


def _write_json(file: Path, value: Any) -> None:
    file.write_text(json.dumps(value, indent=2))
