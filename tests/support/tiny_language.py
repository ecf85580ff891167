"""Random language models of each type, small enough for a test, and a tokenizer for them."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
)

SPECIAL = ["<pad>", "</s>", "<image>"]
LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())
IMAGE_ID = 2


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Make a byte-level tokenizer without merges."""
    words = [*SPECIAL, *LETTERS]
    tokenizer = Tokenizer(models.BPE({word: index for index, word in enumerate(words)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(word, normalized=False) for word in SPECIAL])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="</s>",
        extra_special_tokens={"image_token": "<image>"},
    )


def make_llama(**changes: object) -> LlamaForCausalLM:
    """Make a LLaMA with grouped heads and a tied head."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": len(SPECIAL) + len(LETTERS), "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 256, "tie_word_embeddings": True, "initializer_range": 0.2,
        "eos_token_id": 1, "pad_token_id": 0,
    }  # fmt: skip
    return LlamaForCausalLM(LlamaConfig(**(sizes | changes)))


def make_opt(**changes: object) -> OPTForCausalLM:
    """Make an OPT; `changes` are OPT-350M's, for example."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "vocab_size": len(SPECIAL) + len(LETTERS), "hidden_size": 32, "ffn_dim": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 256,
        "word_embed_proj_dim": 32, "init_std": 0.2, "eos_token_id": 1, "pad_token_id": 0,
    }  # fmt: skip
    return OPTForCausalLM(OPTConfig(**(sizes | changes)))


def save_llama(folder: Path) -> Path:
    """Save a LLaMA with its tokenizer; returns the folder."""
    make_llama().save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder
