"""What a small random LLaVA checkpoint has in place of LLaMA where its decoder is of OPT's type."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class OptShape:
    """How the decoder is built, beside its sizes.

    Attributes:
        word_size: the width of the embedding where it is not that of the blocks.
    """

    is_post_norm: bool = False
    removes_last_norm: bool = False
    has_biases: bool = True
    has_gains: bool = True
    activation: str = "relu"
    word_size: int | None = None

    @property
    def has_last_norm(self) -> bool:
        """Whether the last block's output is normalised."""
        return not (self.is_post_norm or self.removes_last_norm)


def opt_config(
    opt: OptShape,
    *,
    num_layers: int,
    num_heads: int,
    hidden: int,
    ffn: int,
    vocab: int,
    max_positions: int,
    tie: bool,
) -> dict[str, Any]:
    """Return the `text_config`."""
    return {
        "model_type": "opt",
        "hidden_size": hidden,
        "ffn_dim": ffn,
        "num_hidden_layers": num_layers,
        "num_attention_heads": num_heads,
        "max_position_embeddings": max_positions,
        "vocab_size": vocab,
        "do_layer_norm_before": not opt.is_post_norm,
        "_remove_final_layer_norm": opt.removes_last_norm,
        "enable_bias": opt.has_biases,
        "layer_norm_elementwise_affine": opt.has_gains,
        "activation_function": opt.activation,
        "word_embed_proj_dim": opt.word_size or hidden,
        "tie_word_embeddings": tie,
    }


def opt_tensor_sizes(
    opt: OptShape, *, num_layers: int, hidden: int, ffn: int, vocab: int, max_positions: int
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the tensors of the decoder by name, the head aside."""
    width = opt.word_size or hidden
    yield "embed_tokens.weight", (vocab, width)
    yield "embed_positions.weight", (max_positions + 2, hidden)
    if opt.word_size is not None:
        yield "project_in.weight", (hidden, width)
        yield "project_out.weight", (width, hidden)
    norms = ["final_layer_norm"] * opt.has_last_norm
    linears = {}
    for layer in (f"layers.{number}" for number in range(num_layers)):
        norms += [f"{layer}.self_attn_layer_norm", f"{layer}.final_layer_norm"]
        for name in ("q", "k", "v", "out"):
            linears[f"{layer}.self_attn.{name}_proj"] = (hidden, hidden)
        linears |= {f"{layer}.fc1": (ffn, hidden), f"{layer}.fc2": (hidden, ffn)}
    for name in norms if opt.has_gains else ():
        yield f"{name}.weight", (hidden,)
        yield f"{name}.bias", (hidden,)
    for name, size in linears.items():
        yield f"{name}.weight", size
        if opt.has_biases:
            yield f"{name}.bias", size[:1]
