"""The tensors of one decoder layer as the checkpoint has them, before a backend packs them."""

from dataclasses import dataclass
from typing import Self

from torch import Tensor

from skipserve.model.config import ModelConfig
from skipserve.model.weights import Weights
from skipserve_kernels.projection import Projection


@dataclass(frozen=True)
class BlockWeights:
    """One layer.

    Attributes:
        attention_gain, ffn_gain: what the normalisations multiply by, [D].
        epsilon: of the normalisations.
        head_size: C.
    """

    attention_gain: Tensor
    query: Projection
    key: Projection
    value: Projection
    output: Projection
    ffn_gain: Tensor
    gate: Projection
    up: Projection
    down: Projection
    epsilon: float
    head_size: int

    @classmethod
    def read(cls, config: ModelConfig, weights: Weights, layer: int) -> Self:
        """Read one layer."""
        sizes = config.sizes.decoder
        hidden, ffn = sizes.hidden_size, sizes.ffn_size
        d_q, d_kv = sizes.num_heads * sizes.head_dim, sizes.num_kv_heads * sizes.head_dim
        name = f"decoder.layers.{layer}"

        def read(part: str, num_outputs: int, num_inputs: int) -> Projection:
            weight = weights.take(f"{name}.{part}.weight", num_outputs, num_inputs)
            if part.rpartition(".")[2] not in config.biased_layers:
                return Projection(weight, None)
            return Projection(weight, weights.take(f"{name}.{part}.bias", num_outputs))

        return cls(
            attention_gain=weights.take(f"{name}.input_layernorm.weight", hidden),
            query=read("self_attn.q_proj", d_q, hidden),
            key=read("self_attn.k_proj", d_kv, hidden),
            value=read("self_attn.v_proj", d_kv, hidden),
            output=read("self_attn.o_proj", hidden, d_q),
            ffn_gain=weights.take(f"{name}.post_attention_layernorm.weight", hidden),
            gate=read("mlp.gate_proj", ffn, hidden),
            up=read("mlp.up_proj", ffn, hidden),
            down=read("mlp.down_proj", hidden, ffn),
            epsilon=config.rms_norm_epsilon,
            head_size=sizes.head_dim,
        )
