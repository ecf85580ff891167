"""Writes what was trained as the part of a checkpoint that is not the language model's.

With the language model's own weights and tokenizer it makes a folder that the server loads.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import (
    AutoConfig,
    CLIPImageProcessorPil,
    GenerationConfig,
    LlavaConfig,
    PretrainedConfig,
)

from skipserve.pretrained.joining import TRAINED_WEIGHTS
from skipserve_policies.sizes import OWN_MODEL_TYPE
from skipserve_training.checkpoint_files import write_checksums
from skipserve_training.mapping.projectors import MappingModule, Projector
from skipserve_training.mapping.tower_export import FEATURE_LAYER, tower_tensors

# What `lessons.QUESTION_FORM` and `lessons.ANSWER_FORM` say, as a conversation.
CHAT_TEMPLATE = (
    "{% for m in messages %}"
    "{% if m['role'] == 'assistant' %}{{ ' Answer: ' }}"
    "{% elif m['role'] == 'user' %}"
    "{% if m['content'] is not string %}{% for c in m['content'] if c['type'] == 'image' %}"
    "{{ '<image>' }}{% endfor %}{% endif %}{{ 'Question: ' }}{% endif %}"
    "{% if m['content'] is string %}{{ m['content'] }}"
    "{% else %}{% for c in m['content'] if c['type'] == 'text' %}{{ c['text'] }}{% endfor %}"
    "{% endif %}"
    "{% if m['role'] == 'assistant' %}{{ eos_token + '\n' }}"
    "{% elif m['role'] == 'system' %}{{ '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ ' Answer:' }}{% endif %}"
)


def export_trained(
    projector: Projector, encoder: Path, language_model: Path, image_id: int, folder: Path
) -> None:
    """Write the tower, the projector and every description of the whole model.

    Args:
        projector: what was trained.
        encoder: the folder of the frozen tower, of CLIP's type.
        language_model: the folder of the frozen language model, of LLaMA's type.
        image_id: the id of `<image>` in the language model's tokenizer.
        folder: where to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = tower_tensors(encoder) | projector_tensors(projector)
    save_file(tensors, folder / TRAINED_WEIGHTS, {"format": "pt"})
    (folder / TRAINED_WEIGHTS).chmod(0o644)  # it is written for its owner only
    config = make_config(projector, encoder, language_model, image_id)
    _write_json(folder / "config.json", config)
    _write_json(folder / "processor_config.json", make_processor_config(encoder, config))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    ends = {name: config["text_config"].get(f"{name}_token_id") for name in ("bos", "eos", "pad")}
    GenerationConfig(  # type: ignore[no-untyped-call]
        **{f"{name}_token_id": token for name, token in ends.items()}
    ).save_pretrained(folder)
    write_checksums(folder)


def projector_tensors(projector: Projector) -> dict[str, Tensor]:
    """Name the projector's weights as in the checkpoint, in bf16."""
    return {
        f"multi_modal_projector.{name}": value.detach().to("cpu", torch.bfloat16).contiguous()
        for name, value in projector.state_dict().items()
    }


def make_config(
    projector: Projector, encoder: Path, language_model: Path, image_id: int
) -> dict[str, Any]:
    """Describe the whole model as LLaVA does; the mapping module adds its own fields."""
    text = AutoConfig.from_pretrained(language_model)
    vision = AutoConfig.from_pretrained(encoder)
    patches = (vision.image_size // vision.patch_size) ** 2
    described = LlavaConfig(
        vision_config=_plain(vision),
        text_config=_plain(text),
        image_token_index=image_id,
        image_seq_length=projector.rows(patches),
        vision_feature_layer=FEATURE_LAYER,
        vision_feature_select_strategy="default",
        projector_hidden_act="gelu",
        tie_word_embeddings=text.tie_word_embeddings,
        architectures=["LlavaForConditionalGeneration"],
        dtype="bfloat16",
    )
    config: dict[str, Any] = json.loads(described.to_json_string())
    if isinstance(projector, MappingModule):
        for unused in ("projector_hidden_act", "multimodal_projector_bias"):
            config.pop(unused, None)
        config |= {
            "model_type": OWN_MODEL_TYPE,
            "architectures": ["SkipserveLlavaForConditionalGeneration"],
            "projector_type": "mapping",
            "num_query_tokens": projector.sizes.num_queries,
            "projector_hidden_size": projector.sizes.hidden_size,
            "projector_layers": projector.sizes.num_layers,
            "projector_heads": projector.sizes.num_heads,
            "projector_ffn_size": projector.sizes.ffn_size,
        }
    return config


def _plain(config: PretrainedConfig) -> dict[str, Any]:
    """Leave out where a part was found and what it was by itself."""
    left_out = ("_name_or_path", "architectures", "transformers_version", "dtype")
    return {name: value for name, value in config.to_diff_dict().items() if name not in left_out}


def make_processor_config(encoder: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Describe how pictures become pixels, as `LlavaProcessor` writes it."""
    image = CLIPImageProcessorPil.from_pretrained(encoder).to_dict()
    image["image_processor_type"] = "CLIPImageProcessor"
    return {
        "image_processor": image,
        "image_token": "<image>",
        "num_additional_image_tokens": 1,
        "patch_size": config["vision_config"]["patch_size"],
        "processor_class": "LlavaProcessor",
        "vision_feature_select_strategy": config["vision_feature_select_strategy"],
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
