"""Reads SmolLM2 out of its GGUF file, as the names, sizes and tokenizer that transformers knows.

The file's matrices are 4-bit (Q4_1) and its embedding is 8-bit (Q8_0): what is read here is
those, dequantised, and not the weights that were published before they were quantised.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFReader, dequantize
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, PreTrainedTokenizerFast

IMAGE = "<image>"
IMAGE_ID = 16  # "<empty_output>" in the file, a token for notebooks that no prompt here needs
START, END = "<|im_start|>", "<|im_end|>"
START_ID, END_ID = 1, 2

_CONTROL = 3  # the token type of GGUF for what no text spells

_LAYER_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


@dataclass(frozen=True)
class LanguageModel:
    """A language model of LLaMA's type: what a folder for transformers is written from."""

    config: LlamaConfig
    tensors: dict[str, Tensor]  # bf16, named as in `LlamaForCausalLM`; the head is the embedding
    tokenizer: Tokenizer


def read_smollm2(path: Path) -> LanguageModel:
    """Read, dequantise and rename everything; takes about 1.6 GB of memory for a while.

    Raises:
        ValueError: The file is no GGUF file, or holds no LLaMA.
    """
    return _File(path).language_model()


def write_language_model(model: LanguageModel, folder: Path) -> None:
    """Write the language model alone, as a folder that `LlamaForCausalLM` loads."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "model.safetensors"
    save_file(model.tensors, weights, {"format": "pt"})
    weights.chmod(0o644)  # it is written for its owner only
    model.config.save_pretrained(folder)
    GenerationConfig(  # type: ignore[no-untyped-call]
        bos_token_id=START_ID, eos_token_id=END_ID, pad_token_id=END_ID
    ).save_pretrained(folder)
    make_tokenizer(model).save_pretrained(folder)


def make_tokenizer(model: LanguageModel) -> PreTrainedTokenizerFast:
    """Wrap the tokenizer for transformers, with the meaning of its special tokens."""
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=model.tokenizer,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        model_max_length=model.config.max_position_embeddings,
        padding_side="left",
        extra_special_tokens={"image_token": IMAGE},
    )


class _File:
    """An open GGUF file."""

    def __init__(self, path: Path) -> None:
        try:
            self.reader = GGUFReader(path)
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} is no GGUF file that can be read: {error}") from error
        kind = self._field("general.architecture")
        if kind != "llama":
            raise ValueError(f"{path} holds a model of type {kind!r}: expected 'llama'.")

    def language_model(self) -> LanguageModel:
        return LanguageModel(self.config, self._tensors(), self._tokenizer())

    @cached_property
    def config(self) -> LlamaConfig:
        size = self._size
        return LlamaConfig(
            vocab_size=len(self._field("tokenizer.ggml.tokens")),
            hidden_size=size("embedding_length"),
            intermediate_size=size("feed_forward_length"),
            num_hidden_layers=size("block_count"),
            num_attention_heads=size("attention.head_count"),
            num_key_value_heads=size("attention.head_count_kv"),
            head_dim=size("rope.dimension_count"),
            max_position_embeddings=size("context_length"),
            rms_norm_eps=round(size("attention.layer_norm_rms_epsilon"), 12),  # fp32 in the file
            rope_parameters={"rope_type": "default", "rope_theta": size("rope.freq_base")},
            bos_token_id=START_ID,
            eos_token_id=END_ID,
            pad_token_id=END_ID,
            tie_word_embeddings=True,
            dtype="bfloat16",
        )

    def _tensors(self) -> dict[str, Tensor]:
        tensors = {}
        for tensor in self.reader.tensors:
            values = torch.from_numpy(np.array(dequantize(tensor.data, tensor.tensor_type)))
            tensors[_published_name(tensor.name)] = self._published_rows(tensor.name, values)
        return tensors

    def _published_rows(self, name: str, values: Tensor) -> Tensor:
        """Put the rows of q and k back in order: GGUF keeps the pairs of RoPE side by side."""
        heads = {
            "attn_q": self.config.num_attention_heads,
            "attn_k": self.config.num_key_value_heads,
        }.get(name.split(".")[-2])
        if heads is not None:
            pairs = values.view(heads, -1, 2, values.shape[-1])
            values = pairs.transpose(1, 2).reshape(values.shape)
        return values.bfloat16().contiguous()

    def _tokenizer(self) -> Tokenizer:
        """Rebuild the byte-level BPE; one token that prompts never use becomes `<image>`."""
        words = list(self._field("tokenizer.ggml.tokens"))
        words[IMAGE_ID] = IMAGE
        merges = [tuple(merge.split(" ")) for merge in self._field("tokenizer.ggml.merges")]
        vocabulary = {word: index for index, word in enumerate(words)}
        tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
        )
        tokenizer.decoder = decoders.ByteLevel()
        types = self._field("tokenizer.ggml.token_type")
        controls = [words[index] for index, kind in enumerate(types) if kind == _CONTROL]
        tokenizer.add_special_tokens([AddedToken(word, normalized=False) for word in controls])
        return tokenizer

    def _size(self, name: str) -> Any:
        return self._field(f"llama.{name}")

    def _field(self, name: str) -> Any:
        field = self.reader.fields.get(name)
        if field is None:
            raise ValueError(f"The GGUF file has no field {name!r}.")
        return field.contents()


def _published_name(name: str) -> str:
    """Name a tensor as transformers does; "blk.3.attn_q.weight" has a layer, others have none."""
    if name.startswith("blk."):
        _, layer, kind, suffix = name.split(".")
        return f"model.layers.{layer}.{_LAYER_NAMES[kind]}.{suffix}"
    return {
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
    }[name]
