"""The blocks of frozen decoders, in the halves that a plan may leave out. Knows no plan.

Shapes: B sequences, T rows each, D hidden, R some of the rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

_ATTENTION = "self_attn."


@dataclass(frozen=True)
class Sight:
    """What attention needs to know of the rows of a forward.

    Attributes:
        mask: what is added to scores, [B, 1, T, T].
        factors: cosine and sine by which heads are turned; None where positions are in the rows.
    """

    mask: Tensor
    factors: tuple[Tensor, Tensor] | None


class Block(Protocol):
    """One layer; how a policy's forms come out is told in docs/decisions/0013-policies-on-opt.md.

    Attributes:
        layer: transformers' own.
    """

    layer: nn.Module

    def add_attention(self, hidden: Tensor, sight: Sight) -> Tensor:
        """Return `hidden` [B, T, D] with the attention of all rows added to it."""

    def add_ffn(self, fed: Tensor, residual: Tensor) -> Tensor:
        """Return `residual` [R, D] with what the FFN makes of `fed` [R, D] added to it."""

    def own_norm(self, rows: Tensor) -> Tensor:
        """Normalise what the FFN is fed, [R, D]."""

    def shared_norm(self, rows: Tensor) -> Tensor:
        """Normalise the same for rows whose FFN reads through the attention's norm, [R, D]."""


class LlamaBlock:
    """A block of LLaMA's type."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        self.own_norm = layer.post_attention_layernorm
        self.shared_norm = layer.input_layernorm

    def add_attention(self, hidden: Tensor, sight: Sight) -> Tensor:
        """Return `hidden` [B, T, D] with the attention of all rows added to it."""
        added: Tensor = self.layer.self_attn(
            hidden_states=self.layer.input_layernorm(hidden),
            position_embeddings=sight.factors,
            attention_mask=sight.mask,
        )[0]
        return hidden + added

    def add_ffn(self, fed: Tensor, residual: Tensor) -> Tensor:
        """Return `residual` [R, D] with what the FFN makes of `fed` [R, D] added to it."""
        added: Tensor = self.layer.mlp(fed)
        return residual + added


class OptBlock:
    """A block of OPT's type, its norms before the halves."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer
        self.own_norm = layer.final_layer_norm

    def shared_norm(self, rows: Tensor) -> Tensor:
        """Normalise the same for rows whose FFN reads through the attention's norm, [R, D]."""
        normed: Tensor = self.layer.final_layer_norm(self.layer.self_attn_layer_norm(rows))
        return normed

    def add_attention(self, hidden: Tensor, sight: Sight) -> Tensor:
        """Return `hidden` [B, T, D] with the attention of all rows added to it."""
        return hidden + self._attention(self.layer.self_attn_layer_norm(hidden), sight)

    def add_ffn(self, fed: Tensor, residual: Tensor) -> Tensor:
        """Return `residual` [R, D] with what the FFN makes of `fed` [R, D] added to it."""
        added: Tensor = self.layer.fc2(self.layer.activation_fn(self.layer.fc1(fed)))
        return residual + added

    def _attention(self, normed: Tensor, sight: Sight) -> Tensor:
        added: Tensor = self.layer.self_attn(hidden_states=normed, attention_mask=sight.mask)[0]
        return added


class PostNormOptBlock(OptBlock):
    """A block of OPT-350M's type: halves are fed what there is, and each sum is normalised."""

    def __init__(self, layer: Any) -> None:
        super().__init__(layer)
        self.own_norm = nn.Identity()

    def shared_norm(self, rows: Tensor) -> Tensor:
        """Return rows as they are, [R, D]."""
        return rows

    def add_attention(self, hidden: Tensor, sight: Sight) -> Tensor:
        """Return `hidden` [B, T, D] with the attention of all rows added to it, normalised."""
        summed: Tensor = self.layer.self_attn_layer_norm(hidden + self._attention(hidden, sight))
        return summed

    def add_ffn(self, fed: Tensor, residual: Tensor) -> Tensor:
        """Return `residual` [R, D] with what the FFN makes of `fed` added to it, normalised."""
        summed: Tensor = self.layer.final_layer_norm(super().add_ffn(fed, residual))
        return summed


class Stack(Protocol):
    """The blocks of a decoder, and what stands before and behind them.

    Attributes:
        blocks: in order.
        name: of the blocks' list in the language model, `model.layers` for example.
    """

    blocks: tuple[Block, ...]
    name: str

    def enter(self, rows: Tensor, positions: Tensor) -> Tensor:
        """Turn embeddings [B, T, d_llm] into the first block's input [B, T, D]."""

    def factors(self, rows: Tensor, positions: Tensor) -> tuple[Tensor, Tensor] | None:
        """Return what turns heads at positions [B, T]; None where nothing does."""

    def leave(self, hidden: Tensor) -> Tensor:
        """Turn the last block's output [B, T, D] into what the head reads [B, T, d_llm]."""


class LlamaStack:
    """A decoder of LLaMA's type."""

    name = "model.layers"

    def __init__(self, model: Any) -> None:
        self._model = model.model
        self.blocks = tuple(map(LlamaBlock, self._model.layers))
        self.leave = self._model.norm

    def enter(self, rows: Tensor, positions: Tensor) -> Tensor:
        """Return embeddings as they are, [B, T, D]."""
        del positions
        return rows

    def factors(self, rows: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosine and sine of positions [B, T]."""
        cosine, sine = self._model.rotary_emb(rows, position_ids=positions)
        return cosine, sine


class OptStack:
    """A decoder of OPT's type."""

    name = "model.decoder.layers"

    def __init__(self, model: Any) -> None:
        self._decoder = model.model.decoder
        kind = OptBlock if model.config.do_layer_norm_before else PostNormOptBlock
        self.blocks = tuple(map(kind, self._decoder.layers))

    def enter(self, rows: Tensor, positions: Tensor) -> Tensor:
        """Widen embeddings [B, T, d_llm] to [B, T, D], and add those of the positions."""
        if self._decoder.project_in is not None:
            rows = self._decoder.project_in(rows)
        placed: Tensor = self._decoder.embed_positions(None, position_ids=positions)
        return rows + placed

    def factors(self, rows: Tensor, positions: Tensor) -> None:
        """Turn no heads: positions are in the rows."""
        del rows, positions

    def leave(self, hidden: Tensor) -> Tensor:
        """Normalise [B, T, D] where OPT does, and narrow it to [B, T, d_llm]."""
        for part in (self._decoder.final_layer_norm, self._decoder.project_out):
            hidden = hidden if part is None else part(hidden)
        return hidden


STACKS: dict[str, type[LlamaStack | OptStack]] = {"llama": LlamaStack, "opt": OptStack}


def linears(block: Block, *, in_attention: bool) -> Iterator[tuple[str, nn.Linear]]:
    """Yield the linear layers of a block's attention, or of its FFN, by their names in it."""
    for name, module in block.layer.named_modules():
        if isinstance(module, nn.Linear) and name.startswith(_ATTENTION) == in_attention:
            yield name, module
