"""A LLaMA decoder that follows the formulas of skip policies word by word, in float64.

It recomputes the whole sequence, every row in every block, and then drops what a row skips. It
shares no code with the product, reads the checkpoint itself and knows no trimming.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file
from torch import Tensor

from skipserve_policies.plan import Plan, TokenClass
from skipserve_policies.schema import (
    Action,
    LayerInterval,
    LayerRange,
    Rule,
    Scope,
    SkipPolicy,
)


@dataclass(frozen=True)
class Step:
    """What a row does in a block."""

    attention: bool = True
    ffn: Literal["none", "serial", "parallel", "parallel_shared"] = "serial"
    pair: Literal["none", "first", "second"] = "none"


Steps = Callable[[int, TokenClass], Step]

_CLASSES = {
    Scope.GENERATED: {TokenClass.GENERATED},
    Scope.ANSWER: {TokenClass.LAST, TokenClass.GENERATED},
    Scope.PROMPT: {TokenClass.TEXT, TokenClass.VISUAL, TokenClass.LAST},
    Scope.VISUAL: {TokenClass.VISUAL},
    Scope.ALL: set(TokenClass),
}


def steps_of_plan(plan: Plan) -> Steps:
    """Read the steps off a table, which must not be trimmed for the test to mean much."""

    def step(layer: int, token_class: TokenClass) -> Step:
        cell = plan.cell(layer, token_class)
        return Step(cell.attention, cell.ffn.value, cell.pair.value)

    return step


def steps_of_policy(policy: SkipPolicy, num_layers: int) -> Steps:
    """Follow the rules of a policy as they are written."""

    def step(layer: int, token_class: TokenClass) -> Step:
        followed = Step()
        for rule in policy.rules:
            assert isinstance(rule, Rule)  # it knows no images
            if token_class in _CLASSES[rule.scope]:
                followed = _follow(rule, layer, _layers(rule, num_layers), followed)
        return followed

    return step


def _follow(rule: Rule, layer: int, layers: list[int], step: Step) -> Step:
    if rule.action is Action.PARALLEL_BLOCKS and layer - 1 in layers:
        return replace(step, pair="second")
    if layer not in layers:
        return step
    match rule.action:
        case Action.SKIP_BLOCK:
            followed = replace(step, attention=False, ffn="none")
        case Action.SKIP_FFN:
            followed = replace(step, ffn="none")
        case Action.SKIP_ATTENTION:
            ffn = "parallel_shared" if rule.shared_norm is True else step.ffn
            followed = replace(step, attention=False, ffn=ffn)
        case Action.PARALLEL_FFN_ATTENTION:
            ffn = "parallel" if rule.shared_norm is False else "parallel_shared"
            followed = replace(step, ffn=ffn)
        case Action.PARALLEL_BLOCKS:
            followed = replace(step, pair="first")
    return followed


def _layers(rule: Rule, num_layers: int) -> list[int]:
    layers = rule.layers
    if isinstance(layers, LayerRange):
        end = _before(layers.last, num_layers) + (1 if isinstance(layers.last, int) else 0)
        named = range(_before(layers.first, num_layers), end)
        return [it for it in named if layers.except_every is None or it % layers.except_every]
    if isinstance(layers, LayerInterval):
        (interval,) = layers.interval
        inner = range(_before(layers.start, num_layers) + 1, num_layers - 1)
        return [layer for layer in inner if layer % interval == 0]
    return [_before(layer, num_layers) for layer in layers]


def _before(position: int | str, num_layers: int) -> int:
    if isinstance(position, int):
        return position
    return int((Decimal(position[:-1]) * num_layers / 100).quantize(Decimal(1), ROUND_HALF_UP))


class ReferenceDecoder:
    """The decoder of a checkpoint with the published names, in one file.

    Args:
        folder: the checkpoint.
        num_heads: query heads.
        num_kv_heads: key/value heads.
    """

    layers_name = "model.layers"

    def __init__(self, folder: Path, num_heads: int, num_kv_heads: int) -> None:
        prefix = "language_model."
        tensors = load_file(folder / "model.safetensors")
        self.weights = {
            name.removeprefix(prefix): tensor.double()
            for name, tensor in tensors.items()
            if name.startswith(prefix)
        }
        self.num_heads = num_heads
        self.num_kv_heads = num_kv_heads
        of_layers = f"{self.layers_name}."
        names = [name for name in self.weights if name.startswith(of_layers)]
        self.num_layers = len({name.removeprefix(of_layers).split(".")[0] for name in names})

    def embed(self, ids: Tensor, is_visual: Tensor, features: Tensor) -> Tensor:
        """Return [T, D]: embeddings, with the features at the visual rows."""
        rows = self.weights["model.embed_tokens.weight"][ids]
        rows[is_visual] = features.double()
        return rows

    def logits(self, x: Tensor, classes: tuple[TokenClass, ...], steps: Steps) -> Tensor:
        """Return the logits of all rows, [T, V], given their embeddings [T, D]."""
        pair_input = x
        for layer in range(self.num_layers):
            row_steps = [steps(layer, token_class) for token_class in classes]
            is_second = column([step.pair == "second" for step in row_steps])
            block_input = torch.where(is_second, pair_input, x)
            output = self._block(layer, block_input, row_steps)
            pair_input = block_input
            x = torch.where(is_second, (x + output) / 2, output)
        return self._head(x)

    def _head(self, x: Tensor) -> Tensor:
        return self._norm(x, "model.norm") @ self.weights["lm_head.weight"].T

    def _block(self, layer: int, h: Tensor, steps: list[Step]) -> Tensor:
        name = f"model.layers.{layer}"
        normed = self._norm(h, f"{name}.input_layernorm")
        attends = column([step.attention for step in steps])
        attended = h + attends * self._attention(name, normed)
        feeds = {
            "serial": self._norm(attended, f"{name}.post_attention_layernorm"),
            "parallel": self._norm(h, f"{name}.post_attention_layernorm"),
            "parallel_shared": normed,
        }
        output = attended
        for kind, fed in feeds.items():
            output = output + column([step.ffn == kind for step in steps]) * self._ffn(name, fed)
        return output

    def _attention(self, name: str, normed: Tensor) -> Tensor:
        """Causal attention of all rows over all rows before them, and the output projection."""
        num_rows = len(normed)
        query = self._heads(f"{name}.self_attn.q_proj", normed, self.num_heads)
        key = self._heads(f"{name}.self_attn.k_proj", normed, self.num_kv_heads)
        value = self._heads(f"{name}.self_attn.v_proj", normed, self.num_kv_heads)
        query, key = _turn(query), _turn(key)
        mixed = []
        for head in range(self.num_heads):
            group = head * self.num_kv_heads // self.num_heads
            scores = query[:, head] @ key[:, group].T / query.shape[-1] ** 0.5
            is_unseen = self._unseen(name, num_rows)
            mixed.append(scores.masked_fill(is_unseen, -torch.inf).softmax(-1) @ value[:, group])
        return torch.cat(mixed, dim=-1) @ self.weights[f"{name}.self_attn.o_proj.weight"].T

    def _unseen(self, name: str, num_rows: int) -> Tensor:
        """Return which rows [T] each row [T] does not look at in a layer: those behind it."""
        return torch.ones(num_rows, num_rows, dtype=torch.bool).triu(1)

    def _ffn(self, name: str, fed: Tensor) -> Tensor:
        gate = fed @ self.weights[f"{name}.mlp.gate_proj.weight"].T
        up = fed @ self.weights[f"{name}.mlp.up_proj.weight"].T
        return (gate * gate.sigmoid() * up) @ self.weights[f"{name}.mlp.down_proj.weight"].T

    def _heads(self, name: str, x: Tensor, num_heads: int) -> Tensor:
        projected = x @ self.weights[f"{name}.weight"].T + self.weights.get(f"{name}.bias", 0)
        return projected.view(len(x), num_heads, -1)

    def _norm(self, x: Tensor, name: str) -> Tensor:
        scale = (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return x / scale * self.weights[f"{name}.weight"]


def _turn(heads: Tensor) -> Tensor:
    """Turn heads [T, H, C] by their position, as pairs of elements half a head apart."""
    half = heads.shape[-1] // 2
    frequency = 10_000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = torch.arange(len(heads), dtype=torch.float64)[:, None, None] * frequency
    first, second = heads[..., :half], heads[..., half:]
    cosine, sine = angle.cos(), angle.sin()
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)


def column(flags: list[bool]) -> Tensor:
    """Return flags of rows beside what they have, [T, 1]."""
    return torch.tensor(flags)[:, None]
