"""A small LLaVA for training: the parameters of all layers of a tower are stacked in one tensor.

Stacks make growth a copy along the first dimension and an optimizer step a few large
operations. Knows nothing about pictures, text or files.

Shapes: B sequences, T rows, D hidden, F FFN size, H heads, C head size, P patches, L layers.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class ModelSizes:
    """The sizes of the three parts."""

    vocabulary: int
    layers: int
    hidden: int = 128
    ffn: int = 352
    heads: int = 4
    rope_theta: float = 10_000.0
    norm_epsilon: float = 1e-5
    max_positions: int = 1024
    vision_layers: int = 4
    vision_ffn: int = 384
    patch: int = 16
    patches_per_side: int = 6

    @property
    def head_size(self) -> int:
        """Return C."""
        return self.hidden // self.heads

    @property
    def patches(self) -> int:
        """Return P, the visual tokens of a picture."""
        return self.patches_per_side**2

    @property
    def image_side(self) -> int:
        """Return the side of a picture in pixels."""
        return self.patch * self.patches_per_side


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Turn `[B, T, D]` into `[B, H, T, C]`."""
    batch, rows, _ = x.shape
    return x.view(batch, rows, heads, -1).transpose(1, 2)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Attend explicitly, which trains faster here than SDPA; `mask` is added to the scores.

    Args:
        query: `[B, H, T, C]`, as `key` and `value`.
        key: see above.
        value: see above.
        mask: `[B, 1, T, T]`, 0 or a large negative number.

    Returns:
        `[B, T, D]`.
    """
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if mask is not None:
        scores = scores + mask
    mixed = torch.softmax(scores, dim=-1) @ value  # sums in fp32 inside
    return mixed.transpose(1, 2).flatten(2)


def rms_norm(x: Tensor, gain: Tensor, epsilon: float) -> Tensor:
    """Normalise the last dimension in fp32, as LLaMA does."""
    wide = x.float()
    scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
    return (wide * scale).to(x.dtype) * gain


def rotate(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Apply rotary positions; `cosine` and `sine` are `[B, 1, T, C]`."""
    first, second = x.chunk(2, dim=-1)
    return x * cosine + torch.cat((-second, first), dim=-1) * sine


class DecoderBlock(NamedTuple):
    """The weights of one LLaMA layer, or of all of them with L in front."""

    attention_norm: Tensor  # [D]
    qkv: Tensor  # [3, D, D]
    output: Tensor  # [D, D]
    ffn_norm: Tensor  # [D]
    gate_up: Tensor  # [2, F, D]
    down: Tensor  # [D, F]


class Positions(NamedTuple):
    """What attention needs to know of the rows: rotary factors and the mask."""

    cosine: Tensor  # [B, 1, T, C]
    sine: Tensor
    mask: Tensor  # [B, 1, T, T]


def decoder_block(
    x: Tensor, block: DecoderBlock, positions: Positions, heads: int, epsilon: float
) -> Tensor:
    """Run one layer; `x` is `[B, T, D]`."""
    normed = rms_norm(x, block.attention_norm, epsilon)
    query, key, value = F.linear(normed, block.qkv.flatten(0, 1)).chunk(3, dim=-1)
    mixed = attend(
        rotate(split_heads(query, heads), positions.cosine, positions.sine),
        rotate(split_heads(key, heads), positions.cosine, positions.sine),
        split_heads(value, heads),
        positions.mask,
    )
    x = x + F.linear(mixed, block.output)
    normed = rms_norm(x, block.ffn_norm, epsilon)
    gate, up = F.linear(normed, block.gate_up.flatten(0, 1)).chunk(2, dim=-1)
    return x + F.linear(F.silu(gate) * up, block.down)


BlockFunction = Callable[[Tensor, DecoderBlock, Positions, int, float], Tensor]


class Decoder(nn.Module):
    """LLaMA: embeddings in, hidden states out; the head is applied to chosen rows."""

    def __init__(self, sizes: ModelSizes, run_block: BlockFunction = decoder_block) -> None:
        super().__init__()
        self.sizes = sizes
        self.run_block = run_block
        layers, hidden, ffn = sizes.layers, sizes.hidden, sizes.ffn
        residual = (2 * layers) ** -0.5  # keeps the stream's size independent of the depth
        self.embedding = nn.Parameter(torch.randn(sizes.vocabulary, hidden) * 0.2)
        self.attention_norm = nn.Parameter(torch.ones(layers, hidden))
        self.qkv = _normal(layers, 3, hidden, hidden)
        self.output = _normal(layers, hidden, hidden, gain=residual)
        self.ffn_norm = nn.Parameter(torch.ones(layers, hidden))
        self.gate_up = _normal(layers, 2, ffn, hidden)
        self.down = _normal(layers, hidden, ffn, gain=residual)
        self.norm = nn.Parameter(torch.ones(hidden))
        self.head = nn.Parameter(torch.randn(sizes.vocabulary, hidden) * 0.02)

    def stacks(self) -> DecoderBlock:
        """Return the parameters of all layers."""
        return DecoderBlock(
            self.attention_norm, self.qkv, self.output, self.ffn_norm, self.gate_up, self.down
        )

    def forward(self, x: Tensor, positions: Tensor, allowed: Tensor) -> Tensor:
        """Run all layers.

        Args:
            x: embedded rows, `[B, T, D]`; its type is the type of the activations.
            positions: `[B, T]`.
            allowed: which row sees which, `[B, T, T]`, boolean.

        Returns:
            The normalised hidden states, `[B, T, D]`.
        """
        shared = self._positions(positions, allowed, x.dtype)
        stacks = (stack.to(x.dtype).unbind(0) for stack in self.stacks())
        for weights in zip(*stacks, strict=True):
            x = self.run_block(
                x, DecoderBlock(*weights), shared, self.sizes.heads, self.sizes.norm_epsilon
            )
        return rms_norm(x, self.norm.to(x.dtype), self.sizes.norm_epsilon)

    def logits(self, hidden: Tensor) -> Tensor:
        """Apply the head in the type of `hidden`; returns fp32."""
        return F.linear(hidden, self.head.to(hidden.dtype)).float()

    def _positions(self, positions: Tensor, allowed: Tensor, dtype: torch.dtype) -> Positions:
        half = self.sizes.head_size // 2
        exponents = torch.arange(half, device=positions.device, dtype=torch.float32) / half
        angles = positions[..., None] * self.sizes.rope_theta**-exponents
        angles = torch.cat((angles, angles), dim=-1)[:, None]
        mask = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
        mask = mask.masked_fill(~allowed, -1e9)[:, None]
        return Positions(angles.cos().to(dtype), angles.sin().to(dtype), mask)


class VisionBlock(NamedTuple):
    """The weights of one CLIP layer, or of all of them with L in front."""

    norm1_gain: Tensor
    norm1_bias: Tensor
    qkv: Tensor  # [3, D, D]
    qkv_bias: Tensor  # [3, D]
    output: Tensor  # [D, D]
    output_bias: Tensor
    norm2_gain: Tensor
    norm2_bias: Tensor
    fc1: Tensor  # [F, D]
    fc1_bias: Tensor
    fc2: Tensor  # [D, F]
    fc2_bias: Tensor


def vision_block(x: Tensor, block: VisionBlock, heads: int, epsilon: float) -> Tensor:
    """Run one CLIP layer; `x` is `[B, 1 + P, D]`."""
    width = x.shape[-1:]
    normed = F.layer_norm(x, width, block.norm1_gain, block.norm1_bias, epsilon)
    projected = F.linear(normed, block.qkv.flatten(0, 1), block.qkv_bias.flatten())
    query, key, value = (split_heads(part, heads) for part in projected.chunk(3, dim=-1))
    x = x + F.linear(attend(query, key, value, None), block.output, block.output_bias)
    normed = F.layer_norm(x, width, block.norm2_gain, block.norm2_bias, epsilon)
    inner = F.linear(normed, block.fc1, block.fc1_bias)
    return x + F.linear(inner * torch.sigmoid(1.702 * inner), block.fc2, block.fc2_bias)


class VisionTower(nn.Module):
    """CLIP's vision transformer up to the layer whose output LLaVA uses, with the projector."""

    def __init__(self, sizes: ModelSizes) -> None:
        super().__init__()
        self.sizes = sizes
        layers, hidden, ffn = sizes.vision_layers, sizes.hidden, sizes.vision_ffn
        residual = (2 * layers) ** -0.5
        self.class_embedding = nn.Parameter(torch.randn(hidden) * 0.02)
        self.patch_embedding = _normal(hidden, 3 * sizes.patch**2)
        self.position_embedding = nn.Parameter(torch.randn(1 + sizes.patches, hidden) * 0.2)
        self.pre_norm_gain = nn.Parameter(torch.ones(hidden))
        self.pre_norm_bias = nn.Parameter(torch.zeros(hidden))
        self.norm1_gain = nn.Parameter(torch.ones(layers, hidden))
        self.norm1_bias = nn.Parameter(torch.zeros(layers, hidden))
        self.qkv = _normal(layers, 3, hidden, hidden)
        self.qkv_bias = nn.Parameter(torch.zeros(layers, 3, hidden))
        self.output = _normal(layers, hidden, hidden, gain=residual)
        self.output_bias = nn.Parameter(torch.zeros(layers, hidden))
        self.norm2_gain = nn.Parameter(torch.ones(layers, hidden))
        self.norm2_bias = nn.Parameter(torch.zeros(layers, hidden))
        self.fc1 = _normal(layers, ffn, hidden)
        self.fc1_bias = nn.Parameter(torch.zeros(layers, ffn))
        self.fc2 = _normal(layers, hidden, ffn, gain=residual)
        self.fc2_bias = nn.Parameter(torch.zeros(layers, hidden))
        self.projector1 = _normal(hidden, hidden)
        self.projector1_bias = nn.Parameter(torch.zeros(hidden))
        self.projector2 = _normal(hidden, hidden)
        self.projector2_bias = nn.Parameter(torch.zeros(hidden))

    def stacks(self) -> VisionBlock:
        """Return the parameters of all layers."""
        return VisionBlock(*(getattr(self, name) for name in VisionBlock._fields))

    def forward(self, pixels: Tensor) -> Tensor:
        """Turn normalised pixels `[B, 3, side, side]` into visual tokens `[B, P, D]`."""
        dtype, epsilon = pixels.dtype, self.sizes.norm_epsilon
        patches = F.linear(self._unfold(pixels), self.patch_embedding.to(dtype))
        first = self.class_embedding.to(dtype).expand(len(pixels), 1, -1)
        x = torch.cat((first, patches), dim=1) + self.position_embedding.to(dtype)
        gain, bias = self.pre_norm_gain.to(dtype), self.pre_norm_bias.to(dtype)
        x = F.layer_norm(x, x.shape[-1:], gain, bias, epsilon)
        stacks = (stack.to(dtype).unbind(0) for stack in self.stacks())
        for weights in zip(*stacks, strict=True):
            x = vision_block(x, VisionBlock(*weights), self.sizes.heads, epsilon)
        inner = F.linear(x[:, 1:], self.projector1.to(dtype), self.projector1_bias.to(dtype))
        return F.linear(F.gelu(inner), self.projector2.to(dtype), self.projector2_bias.to(dtype))

    def _unfold(self, pixels: Tensor) -> Tensor:
        """Cut pictures into patches, `[B, P, 3 * patch * patch]`, as a convolution reads them."""
        side, patch = self.sizes.patches_per_side, self.sizes.patch
        blocks = pixels.view(len(pixels), 3, side, patch, side, patch)
        return blocks.permute(0, 2, 4, 1, 3, 5).reshape(len(pixels), side * side, -1)


class DemoModel(nn.Module):
    """The two trained parts; the codebook stage trains each alone."""

    def __init__(self, sizes: ModelSizes, run_block: BlockFunction = decoder_block) -> None:
        super().__init__()
        self.sizes = sizes
        self.vision = VisionTower(sizes)
        self.decoder = Decoder(sizes, run_block)


def grow(model: DemoModel, copies: int) -> DemoModel:
    """Split each decoder layer into `copies` equal ones that share its effect.

    The output projections of the copies are divided by their number: what they add to the
    residual stream sums to nearly what the layer added.
    """
    sizes = replace(model.sizes, layers=model.sizes.layers * copies)
    grown = DemoModel(sizes, model.decoder.run_block)
    state = model.state_dict()
    for name in DecoderBlock._fields:
        key = f"decoder.{name}"
        state[key] = state[key].repeat_interleave(copies, dim=0)
        if name in ("output", "down"):
            state[key] = state[key] / copies
    grown.load_state_dict(state)
    return grown.to(next(model.parameters()).device)


def _normal(*shape: int, gain: float = 1.0) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape) * (gain * shape[-1] ** -0.5))
