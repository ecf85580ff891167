"""Writes a trained model as a LLaVA-1.5 checkpoint in Hugging Face format."""

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from skipserve_training.demo import published_names as names
from skipserve_training.demo import tokenizer as words
from skipserve_training.demo.model import DemoModel, ModelSizes

EXPORTED_TYPE = torch.bfloat16

_CHAT_TEMPLATE = (
    "{% for m in messages %}{{ m['role']|upper }}: "
    "{% if m['content'] is string %}{{ m['content'] }}"
    "{% else %}{% for c in m['content'] if c['type']=='image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for c in m['content'] if c['type']=='text' %}{{ c['text'] }}{% endfor %}{% endif %}"
    "{% if m['role']=='assistant' %}{{ '</s>' }}{% else %}{{ ' ' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)


def export(model: DemoModel, tokenizer: Tokenizer, folder: Path) -> None:
    """Write everything that transformers needs to load the model."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "model.safetensors"
    save_file(checkpoint_tensors(model), weights, {"format": "pt"})
    weights.chmod(0o644)  # it is written for its owner only
    make_config(model.sizes).save_pretrained(folder)
    GenerationConfig(  # type: ignore[no-untyped-call]
        bos_token_id=words.START_ID, eos_token_id=words.END_ID, pad_token_id=words.PADDING_ID
    ).save_pretrained(folder)
    _make_processor(model.sizes, tokenizer).save_pretrained(folder)


def make_config(sizes: ModelSizes) -> LlavaConfig:
    """Describe the model; its feature layer is the last but one, as in LLaVA-1.5."""
    text = LlamaConfig(
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.hidden,
        intermediate_size=sizes.ffn,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.heads,
        head_dim=sizes.head_size,
        max_position_embeddings=sizes.max_positions,
        rms_norm_eps=sizes.norm_epsilon,
        rope_parameters={"rope_type": "default", "rope_theta": sizes.rope_theta},
        bos_token_id=words.START_ID,
        eos_token_id=words.END_ID,
        pad_token_id=words.PADDING_ID,
    )
    vision = CLIPVisionConfig(
        hidden_size=sizes.hidden,
        intermediate_size=sizes.vision_ffn,
        projection_dim=sizes.hidden,
        num_hidden_layers=sizes.vision_layers + 1,
        num_attention_heads=sizes.heads,
        image_size=sizes.image_side,
        patch_size=sizes.patch,
        layer_norm_eps=sizes.norm_epsilon,
        hidden_act="quick_gelu",
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=words.IMAGE_ID,
        image_seq_length=sizes.patches,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        projector_hidden_act="gelu",
        tie_word_embeddings=False,
        architectures=["LlavaForConditionalGeneration"],
        dtype="bfloat16",
    )


def checkpoint_tensors(model: DemoModel) -> dict[str, Tensor]:
    """Unstack the parameters under the names of the published LLaVA-1.5 checkpoints."""
    state = {name: value.to(EXPORTED_TYPE).cpu() for name, value in model.state_dict().items()}
    tensors = {
        f"{names.DECODER}embed_tokens.weight": state["decoder.embedding"],
        f"{names.DECODER}norm.weight": state["decoder.norm"],
        names.HEAD: state["decoder.head"],
        **_projector_tensors(state),
        **_vision_tensors(state, model.sizes),
    }
    for layer in range(model.sizes.layers):
        tensors |= _decoder_layer(state, layer)
    return {name: value.contiguous() for name, value in tensors.items()}


def _decoder_layer(state: dict[str, Tensor], layer: int) -> dict[str, Tensor]:
    return {
        f"{names.DECODER}layers.{layer}.{part}.weight": tensor
        for name, parts in names.DECODER_LAYER.items()
        for part, tensor in _unstacked(state[f"decoder.{name}"][layer], parts)
    }


def _unstacked(parameter: Tensor, parts: tuple[str, ...]) -> Iterable[tuple[str, Tensor]]:
    """Return the parts of a layer's parameter, which holds them stacked where there are several."""
    return zip(parts, parameter if len(parts) > 1 else (parameter,), strict=True)


def _projector_tensors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        f"{names.PROJECTOR}{number}.{kind}": state[f"vision.projector{number}{suffix}"]
        for number in (1, 2)
        for kind, suffix in zip(names.KINDS, ("", "_bias"), strict=True)
    }


def _vision_tensors(state: dict[str, Tensor], sizes: ModelSizes) -> dict[str, Tensor]:
    parts = {name.removeprefix("vision."): value for name, value in state.items()}
    patches = parts["patch_embedding"].view(sizes.hidden, 3, sizes.patch, sizes.patch)
    tensors = {
        "embeddings.class_embedding": parts["class_embedding"],
        "embeddings.patch_embedding.weight": patches,
        "embeddings.position_embedding.weight": parts["position_embedding"],
        "pre_layrnorm.weight": parts["pre_norm_gain"],
        "pre_layrnorm.bias": parts["pre_norm_bias"],
        "post_layernorm.weight": torch.ones_like(parts["pre_norm_gain"]),
        "post_layernorm.bias": torch.zeros_like(parts["pre_norm_bias"]),
    }
    for layer in range(sizes.vision_layers):
        tensors |= _vision_layer(state, layer)
    tensors |= _unused_layer(tensors, sizes.vision_layers)
    return {f"{names.VISION}{name}": value for name, value in tensors.items()}


def _vision_layer(state: dict[str, Tensor], layer: int) -> dict[str, Tensor]:
    return {
        f"encoder.layers.{layer}.{part}.{kind}": tensor
        for name, parts in names.VISION_LAYER.items()
        for kind in names.KINDS
        for part, tensor in _unstacked(state[names.vision_parameter(name, kind)][layer], parts)
    }


def _unused_layer(tensors: dict[str, Tensor], layer: int) -> dict[str, Tensor]:
    """Make the layer after the feature layer, which LLaVA never reads: zeros, an identity."""
    first = "encoder.layers.0."
    return {
        name.replace(first, f"encoder.layers.{layer}."): torch.zeros_like(value)
        for name, value in tensors.items()
        if name.startswith(first)
    }


def _make_processor(sizes: ModelSizes, tokenizer: Tokenizer) -> LlavaProcessor:
    fast = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        unk_token=words.UNKNOWN,
        bos_token=words.START,
        eos_token=words.END,
        pad_token=words.PADDING,
        model_max_length=sizes.max_positions,
        padding_side="left",
        extra_special_tokens={"image_token": words.IMAGE},
    )
    side = sizes.image_side
    image = CLIPImageProcessor(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    )
    return LlavaProcessor(  # type: ignore[no-untyped-call]
        image_processor=image,
        tokenizer=fast,
        patch_size=sizes.patch,
        vision_feature_select_strategy="default",
        chat_template=_CHAT_TEMPLATE,
        image_token=words.IMAGE,
        num_additional_image_tokens=1,
    )
