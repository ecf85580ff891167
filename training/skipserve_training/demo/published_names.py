"""The names of published LLaVA-1.5 checkpoints, by our names of the same parts."""

DECODER = "language_model.model."
HEAD = "language_model.lm_head.weight"
VISION = "vision_tower.vision_model."
PROJECTOR = "multi_modal_projector.linear_"

_QUERY_KEY_VALUE = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
# Of one layer: where there are several, they are one parameter of ours, stacked.
DECODER_LAYER: dict[str, tuple[str, ...]] = {
    "attention_norm": ("input_layernorm",),
    "qkv": _QUERY_KEY_VALUE,
    "output": ("self_attn.o_proj",),
    "ffn_norm": ("post_attention_layernorm",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
VISION_LAYER: dict[str, tuple[str, ...]] = {
    "norm1": ("layer_norm1",),
    "qkv": _QUERY_KEY_VALUE,
    "output": ("self_attn.out_proj",),
    "norm2": ("layer_norm2",),
    "fc1": ("mlp.fc1",),
    "fc2": ("mlp.fc2",),
}
KINDS = ("weight", "bias")


def vision_parameter(name: str, kind: str) -> str:
    """Return our name of a weight or a bias in a layer of the tower."""
    if kind == "bias":
        return f"vision.{name}_bias"
    return f"vision.{name}_gain" if name.startswith("norm") else f"vision.{name}"
