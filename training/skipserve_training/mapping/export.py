"""Writes what was trained, with the encoder and the language model, as a checkpoint.

The server loads it, and so does the training code.
"""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import GenerationConfig, LlavaConfig, PretrainedConfig

from skipserve.pretrained.joining import TRAINED_WEIGHTS
from skipserve.pretrained.places import CHECKSUMS
from skipserve_policies.sizes import OWN_MODEL_TYPE
from skipserve_training.checkpoint_files import write_checksums
from skipserve_training.mapping.encoders import CLIP, TransformersEncoder
from skipserve_training.mapping.lessons import image_id
from skipserve_training.mapping.parts import Parts
from skipserve_training.mapping.projectors import MappingModule, Projector

WEIGHTS_INDEX = "model.safetensors.index.json"

# Bytes of a file of weights: what is changed alone is written alone.
_SHARD = 4 << 30
# A vocabulary that grows does so to a multiple of it, as LLaVA's.
_VOCABULARY_STEP = 64

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

# The same of captions, which answer no question.
CAPTION_TEMPLATE = (
    "{% for m in messages %}{% if m['content'] is string %}{{ m['content'] }}{% else %}"
    "{% for c in m['content'] %}{{ '<image>' if c['type'] == 'image' else c['text'] }}{% endfor %}"
    "{% endif %}{% endfor %}"
)


def export_trained(parts: Parts, rows: int, folder: Path, template: str = CHAT_TEMPLATE) -> None:
    """Write the encoder, the projector and every description of the whole model.

    Args:
        parts: all of it; the language model's weights are written by `export_whole`.
        rows: of a medium, in a prompt.
        folder: where to.
        template: how conversations are written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = _encoder_tensors(parts.encoder) | projector_tensors(parts.projector)
    save_weights(tensors, folder / TRAINED_WEIGHTS)
    config = make_config(parts, rows)
    _write_json(folder / "config.json", config)
    if parts.encoder.config.model_type == CLIP:
        processor = make_processor_config(parts.encoder, config)
        _write_json(folder / "processor_config.json", processor)
    else:
        parts.encoder.processor.save_pretrained(folder)
    (folder / "chat_template.jinja").write_text(template)
    ends = {name: config["text_config"].get(f"{name}_token_id") for name in ("bos", "eos", "pad")}
    GenerationConfig(  # type: ignore[no-untyped-call]
        **{f"{name}_token_id": token for name, token in ends.items()}
    ).save_pretrained(folder)
    write_checksums(folder)


def export_whole(trained: Path, parts: Parts, folder: Path) -> None:
    """Write a checkpoint: what `export_trained` wrote, the language model in bf16, the tokenizer.

    The weights of each are files of their own: a module that is trained on needs no second copy of
    the language model on the disk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    parts.tokenizer.save_pretrained(folder)
    for path in trained.iterdir():
        if path.name not in (TRAINED_WEIGHTS, CHECKSUMS):
            shutil.copyfile(path, folder / path.name)
    link(trained / TRAINED_WEIGHTS, folder / TRAINED_WEIGHTS)
    places = dict.fromkeys(_names(folder / TRAINED_WEIGHTS), TRAINED_WEIGHTS)
    for number, shard in enumerate(_shards(_language_tensors(parts)), start=1):
        name = f"language-{number:05}.safetensors"
        save_weights(shard, folder / name)
        places |= dict.fromkeys(shard, name)
    index = {"metadata": {}, "weight_map": places}
    _write_json(folder / WEIGHTS_INDEX, index)


def save_weights(tensors: dict[str, Tensor], file: Path) -> None:
    """Write a file of weights anew: the old one may have another name, which keeps it."""
    file.unlink(missing_ok=True)
    save_file(tensors, file, {"format": "pt"})
    file.chmod(0o644)  # it is written for its owner only


def link(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where file systems differ; replaces what is there."""
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


def projector_tensors(projector: Projector) -> dict[str, Tensor]:
    """Name the projector's weights as in the checkpoint, in bf16."""
    return {
        f"multi_modal_projector.{name}": value.detach().to("cpu", torch.bfloat16).contiguous()
        for name, value in projector.state_dict().items()
    }


def _encoder_tensors(encoder: TransformersEncoder) -> dict[str, Tensor]:
    """Name the encoder's weights: CLIP's as in published LLaVA-1.5 checkpoints."""
    prefix = "vision_tower."
    if encoder.config.model_type == CLIP:
        prefix += "vision_model."
    return {
        f"{prefix}{name.removeprefix('vision_model.')}": value
        for name, value in encoder.tensors().items()
    }


def _language_tensors(parts: Parts) -> Iterator[tuple[str, Tensor]]:
    rows = _vocabulary(parts)
    for name, value in parts.language.tensors():
        tensor = value.to("cpu", torch.bfloat16)
        if name.endswith(("embed_tokens.weight", "lm_head.weight")):
            tensor = _grown(tensor, rows)
        yield f"language_model.{name}", tensor.contiguous()


def _vocabulary(parts: Parts) -> int:
    """Return the size of the vocabulary: the language model's, or one that has the image's token.

    Published LLaMAs have no token to spare; OPTs do.
    """
    size = int(parts.language.config.vocab_size)
    needed = image_id(parts.tokenizer) + 1
    return size if needed <= size else -(-needed // _VOCABULARY_STEP) * _VOCABULARY_STEP


def _grown(rows: Tensor, count: int) -> Tensor:
    """Add rows [D] like the first to [V, D]: where none is likelier, the first token is chosen."""
    return torch.cat((rows, rows[:1].expand(count - len(rows), -1)))


def _shards(tensors: Iterator[tuple[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors:
        if shard and size + tensor.nbytes > _SHARD:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor
        size += tensor.nbytes
    yield shard


def make_config(parts: Parts, rows: int) -> dict[str, Any]:
    """Describe the whole model as LLaVA does; the mapping module adds its own fields."""
    text, encoder, projector = parts.language.config, parts.encoder, parts.projector
    described = LlavaConfig(
        vision_config=_plain(encoder.config),
        text_config=_plain(text) | {"vocab_size": _vocabulary(parts)},
        image_token_index=image_id(parts.tokenizer),
        image_seq_length=rows,
        vision_feature_layer=encoder.layer,
        vision_feature_select_strategy="full" if encoder.keeps_class else "default",
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


def make_processor_config(encoder: TransformersEncoder, config: dict[str, Any]) -> dict[str, Any]:
    """Describe how pictures become pixels, as `LlavaProcessor` writes it."""
    image = encoder.processor.to_dict()
    image["image_processor_type"] = "CLIPImageProcessor"
    return {
        "image_processor": image,
        "image_token": "<image>",
        "num_additional_image_tokens": 1,
        "patch_size": config["vision_config"]["patch_size"],
        "processor_class": "LlavaProcessor",
        "vision_feature_select_strategy": config["vision_feature_select_strategy"],
    }


def _names(file: Path) -> list[str]:
    with safe_open(file, framework="pt") as opened:
        return [*opened.keys()]


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")
