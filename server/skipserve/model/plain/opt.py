"""The parts of a decoder of OPT's type: layer norms, an FFN without gate, either order of norms.

Positions are learned, and added where the rows are embedded. How the policies' forms come out
under either order is told in docs/decisions/0013-policies-on-opt.md.
"""

from skipserve.model.activation import activation_function
from skipserve.model.opt import OptForm
from skipserve.model.plain.attention import Attention
from skipserve.model.plain.block import DecoderBlock
from skipserve.model.plain.ffn import PlainFfn
from skipserve.model.plain.norm import Chain, LayerNorm, Norm, as_they_are
from skipserve.model.plain.post_norm import NormedAttention, NormedFfn
from skipserve.model.weights import Weights, take_linear
from skipserve_kernels.plain.linear.op import Linear
from skipserve_policies.sizes import DecoderSizes

# torch's default, which transformers takes and no configuration changes.
_EPSILON = 1e-5


def load_block(form: OptForm, sizes: DecoderSizes, weights: Weights, layer: int) -> DecoderBlock:
    """Read a block."""
    name, hidden = f"decoder.layers.{layer}", sizes.hidden_size

    def read(num_inputs: int, num_outputs: int, *parts: str) -> Linear:
        named = {f"{name}.{part}": num_outputs for part in parts}
        return take_linear(
            weights,
            named,
            num_inputs,
            has_bias=form.has_biases,
            in_8_bits=weights.in_8_bits,
        )

    attention_norm = _load_norm(form, sizes, weights, f"{name}.self_attn_layer_norm")
    ffn_norm = _load_norm(form, sizes, weights, f"{name}.final_layer_norm")
    attention = Attention(
        norm=as_they_are if form.is_post_norm else attention_norm,
        query=read(hidden, hidden, "self_attn.q_proj"),
        key_value=read(hidden, hidden, "self_attn.k_proj", "self_attn.v_proj"),
        output=read(hidden, hidden, "self_attn.out_proj"),
        head_size=sizes.head_dim,
    )
    ffn = PlainFfn(
        up=read(hidden, sizes.ffn_size, "fc1"),
        down=read(sizes.ffn_size, hidden, "fc2"),
        activation=activation_function("text_config.activation_function", form.activation),
    )
    if form.is_post_norm:
        return DecoderBlock(
            attention=NormedAttention(attention, attention_norm),
            ffn_norm=as_they_are,
            shared_norm=as_they_are,
            ffn=NormedFfn(ffn, ffn_norm),
        )
    return DecoderBlock(attention, ffn_norm, Chain(attention_norm, ffn_norm), ffn)


def load_last_norm(form: OptForm, sizes: DecoderSizes, weights: Weights) -> Norm:
    """Read the normalisation behind the blocks, where there is one."""
    if not form.has_last_norm:
        return as_they_are
    return _load_norm(form, sizes, weights, "decoder.final_layer_norm")


def _load_norm(form: OptForm, sizes: DecoderSizes, weights: Weights, name: str) -> LayerNorm:
    return LayerNorm.load(
        weights, name, sizes.hidden_size, epsilon=_EPSILON, has_gain=form.has_gains
    )
