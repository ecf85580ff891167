"""A LLaMA in a GGUF file, small enough for a test, and the wheels that hold such things."""

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LlamaConfig, LlamaForCausalLM

from skipserve.pretrained.wheels import Package

CONTROLS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<control {n}>" for n in range(14))]
LETTERS = ["Ġ", *"abcdefghij0123456789:"]
MERGES = ["a b", "Ġ ab"]
WORDS = [*CONTROLS, *LETTERS, "ab", "Ġab"]
CONFIG = LlamaConfig(
    vocab_size=len(WORDS),
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
    tie_word_embeddings=True,
)
NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def _interleave(weight: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Order the rows of q and k as llama.cpp's converter does."""
    halves = weight.reshape(heads, 2, -1, weight.shape[1])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def write_gguf(path: Path, model: LlamaForCausalLM, architecture: str = "llama") -> None:
    """Write a model as a GGUF file, and give it the weights that the file really holds."""
    writer: Any = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(128)
    writer.add_embedding_length(CONFIG.hidden_size)
    writer.add_feed_forward_length(CONFIG.intermediate_size)
    writer.add_block_count(CONFIG.num_hidden_layers)
    writer.add_head_count(CONFIG.num_attention_heads)
    writer.add_head_count_kv(CONFIG.num_key_value_heads)
    writer.add_rope_dimension_count(16)
    writer.add_rope_freq_base(100000.0)
    writer.add_layer_norm_rms_eps(CONFIG.rms_norm_eps)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(WORDS)
    writer.add_token_types([3] * len(CONTROLS) + [1] * (len(WORDS) - len(CONTROLS)))
    writer.add_token_merges(MERGES)
    for name, parameter in model.named_parameters():
        _add(writer, name, parameter)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add(writer: Any, name: str, parameter: torch.nn.Parameter) -> None:
    parts = name.removeprefix("model.").removesuffix(".weight").split(".")
    gguf_name = {"embed_tokens": "token_embd", "norm": "output_norm"}.get(parts[0])
    if gguf_name is None:
        gguf_name = f"blk.{parts[1]}.{NAMES['.'.join(parts[2:])]}"
    if parameter.ndim == 1:
        writer.add_tensor(f"{gguf_name}.weight", parameter.detach().numpy())
        return
    kind = gguf.GGMLQuantizationType.Q8_0 if "embd" in gguf_name else None
    kind = kind or gguf.GGMLQuantizationType.Q4_1
    packed = gguf.quantize(parameter.detach().numpy(), kind)
    kept = gguf.dequantize(packed, kind)
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(kept).bfloat16())
    heads = {"attn_q": CONFIG.num_attention_heads, "attn_k": CONFIG.num_key_value_heads}
    kept_in_file = heads.get(gguf_name.split(".")[-1])
    if kept_in_file is not None:
        packed = _interleave(packed, kept_in_file)
    writer.add_tensor(f"{gguf_name}.weight", packed, raw_dtype=kind)


def make_llama() -> LlamaForCausalLM:
    """Make a model whose weights are large enough to survive four bits."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(CONFIG)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.2)
            parameter.copy_(parameter.bfloat16())
    return model


def make_wheel(folder: Path, name: str, version: str, files: dict[str, bytes]) -> Package:
    """Write a wheel that pip takes; returns its pin."""
    module = name.replace("-", "_")
    notes = f"{module}-{version}.dist-info"
    wheel = {
        f"{notes}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{notes}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{notes}/RECORD": "",
    }
    path = folder / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for place, content in (files | wheel).items():
            archive.writestr(place, content)
    return Package(name, version, hashlib.sha256(path.read_bytes()).hexdigest())
