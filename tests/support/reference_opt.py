"""An OPT decoder that follows the formulas of skip policies word by word, in float64.

As `reference_llava`, whose way through the stack it takes: blocks, pairs and steps.
"""

from pathlib import Path

import torch
from reference_llava import ReferenceDecoder, Step, column
from tiny_opt import OptShape
from torch import Tensor


class ReferenceOpt(ReferenceDecoder):
    """The decoder of a checkpoint with the published names, in one file.

    Args:
        folder: the checkpoint.
        num_heads: of the attention.
        opt: how the decoder is built; its activation is the default.
    """

    layers_name = "model.decoder.layers"

    def __init__(self, folder: Path, num_heads: int, opt: OptShape) -> None:
        super().__init__(folder, num_heads, num_heads)
        self.opt = opt

    def embed(self, ids: Tensor, is_visual: Tensor, features: Tensor) -> Tensor:
        """Return [T, D]: embeddings, with the features at the visual rows, in their positions."""
        rows = self.weights["model.decoder.embed_tokens.weight"][ids]
        rows[is_visual] = features.double()
        if self.opt.word_size is not None:
            rows = rows @ self.weights["model.decoder.project_in.weight"].T
        positions = torch.arange(len(ids)) + 2
        return rows + self.weights["model.decoder.embed_positions.weight"][positions]

    def _head(self, x: Tensor) -> Tensor:
        if self.opt.has_last_norm:
            x = self._norm(x, "model.decoder.final_layer_norm")
        if self.opt.word_size is not None:
            x = x @ self.weights["model.decoder.project_out.weight"].T
        return x @ self.weights["lm_head.weight"].T

    def _block(self, layer: int, h: Tensor, steps: list[Step]) -> Tensor:
        form = self._post_norm if self.opt.is_post_norm else self._pre_norm
        return form(f"{self.layers_name}.{layer}", h, steps)

    def _pre_norm(self, name: str, h: Tensor, steps: list[Step]) -> Tensor:
        ln1, ln2 = f"{name}.self_attn_layer_norm", f"{name}.final_layer_norm"
        attends = column([step.attention for step in steps])
        a = h + attends * self._attention(name, self._norm(h, ln1))
        output = a
        for kind, fed in {
            "serial": self._norm(a, ln2),
            "parallel": self._norm(h, ln2),
            "parallel_shared": self._norm(self._norm(h, ln1), ln2),
        }.items():
            output = output + column([step.ffn == kind for step in steps]) * self._ffn(name, fed)
        return output

    def _post_norm(self, name: str, h: Tensor, steps: list[Step]) -> Tensor:
        ln1, ln2 = f"{name}.self_attn_layer_norm", f"{name}.final_layer_norm"
        attends = column([step.attention for step in steps])
        a = torch.where(attends, self._norm(h + self._attention(name, h), ln1), h)
        fed = torch.where(column([step.ffn == "serial" for step in steps]), a, h)
        runs = column([step.ffn != "none" for step in steps])
        return torch.where(runs, self._norm(a + self._ffn(name, fed), ln2), a)

    def _attention(self, name: str, normed: Tensor) -> Tensor:
        query, key, value = (
            self._linear(f"{name}.self_attn.{part}_proj", normed).view(
                len(normed), self.num_heads, -1
            )
            for part in "qkv"
        )
        scores = torch.einsum("qhc,khc->hqk", query, key) / query.shape[-1] ** 0.5
        is_later = torch.ones(len(normed), len(normed), dtype=torch.bool).triu(1)
        weights = scores.masked_fill(is_later, -torch.inf).softmax(-1)
        mixed = torch.einsum("hqk,khc->qhc", weights, value).flatten(1)
        return self._linear(f"{name}.self_attn.out_proj", mixed)

    def _ffn(self, name: str, fed: Tensor) -> Tensor:
        return self._linear(f"{name}.fc2", self._linear(f"{name}.fc1", fed).clamp(min=0))

    def _linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.weights[f"{name}.weight"].T + self.weights.get(f"{name}.bias", 0.0)

    def _norm(self, x: Tensor, name: str) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        gain, bias = (self.weights.get(f"{name}.{part}") for part in ("weight", "bias"))
        return scaled if gain is None or bias is None else scaled * gain + bias
