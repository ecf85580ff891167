"""The parts of a decoder of LLaMA's type: RMS norms, turned heads, a gated FFN, pre-norm."""

import torch
from torch import Tensor

from skipserve.model.block_weights import BlockWeights
from skipserve.model.config import ModelConfig
from skipserve.model.layers import rotary_tables
from skipserve.model.plain.attention import Attention
from skipserve.model.plain.block import DecoderBlock
from skipserve.model.plain.ffn import GatedFfn
from skipserve.model.plain.norm import Norm, RmsNorm
from skipserve.model.weights import Weights
from skipserve_kernels.plain.linear.op import Linear, pack
from skipserve_kernels.plain.rotary.op import rotary_table
from skipserve_kernels.projection import Projection


def load_block(config: ModelConfig, weights: Weights, layer: int) -> DecoderBlock:
    """Read a block, into the layout that is read fastest."""
    plain = BlockWeights.read(config, weights, layer)

    def pack_together(*layers: Projection) -> Linear:
        return _pack(*layers, in_8_bits=weights.in_8_bits)

    attention = Attention(
        norm=RmsNorm.pack(plain.attention_gain, plain.epsilon),
        query=pack_together(plain.query),
        key_value=pack_together(plain.key, plain.value),
        output=pack_together(plain.output),
        head_size=plain.head_size,
    )
    return DecoderBlock(
        attention=attention,
        ffn_norm=RmsNorm.pack(plain.ffn_gain, plain.epsilon),
        shared_norm=attention.norm,
        ffn=GatedFfn(gate_up=pack_together(plain.gate, plain.up), down=pack_together(plain.down)),
    )


def load_last_norm(config: ModelConfig, weights: Weights) -> Norm:
    """Read the normalisation behind the blocks."""
    gain = weights.take("decoder.norm.weight", config.sizes.decoder.hidden_size)
    return RmsNorm.pack(gain, config.rms_norm_epsilon)


def rotary_factors(config: ModelConfig, dtype: torch.dtype) -> Tensor:
    """Return what turns heads by their positions, [P, 2, 1, C]."""
    return rotary_table(*rotary_tables(config, dtype))


def _pack(*layers: Projection, in_8_bits: bool) -> Linear:
    """Pack linear layers of one input as one, whose outputs follow each other."""
    weight = torch.cat([layer.weight for layer in layers])
    biases = [layer.bias for layer in layers if layer.bias is not None]
    return pack(weight, torch.cat(biases) if biases else None, in_8_bits=in_8_bits)
