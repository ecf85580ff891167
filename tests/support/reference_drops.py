"""A LLaMA decoder of whose prompts visual rows leave, by the published formulas, in float64.

It computes one sequence whole, answer and all, in every block, and lets rows leave between blocks.
It shares no code with the product beside the form in which a rule is written.
"""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import torch
from golden_drops import MERGED
from reference_llava import ReferenceDecoder, Steps, column
from safetensors.torch import load_file
from torch import Tensor

from skipserve_policies.plan import TokenClass


@dataclass(frozen=True)
class Drop:
    """What leaves: before which blocks, and how many visual rows are kept there."""

    method: str
    stages: tuple[tuple[int, int], ...]
    renumbers: bool = False


@dataclass
class Alive:
    """The rows that are still there.

    Attributes:
        hidden: [T, D].
        pair: the input of the block before, [T, D].
        ids: their places in the whole sequence, or MERGED.
        positions: what they are turned by.
        classes: theirs.
    """

    hidden: Tensor
    pair: Tensor
    ids: list[int]
    positions: Tensor
    classes: list[TokenClass]

    def rows(self, token_class: TokenClass) -> list[int]:
        """Return where the rows of a class are."""
        return [row for row, it in enumerate(self.classes) if it is token_class]


class DroppingReference(ReferenceDecoder):
    """The decoder of a checkpoint of known answers.

    Attributes:
        margin: how far the closest choice was from another one, relative to what was compared.
    """

    def __init__(self, folder: Path, num_heads: int, num_kv_heads: int) -> None:
        tensors = load_file(folder / "model.safetensors")
        self.weights = {
            name.replace("model.language_model.", "model."): tensor.double()
            for name, tensor in tensors.items()
        }
        self.num_heads, self.num_kv_heads = num_heads, num_kv_heads
        names = {name.split(".")[2] for name in self.weights if name.startswith("model.layers.")}
        self.num_layers = len(names)
        self.margin = float("inf")
        self._positions = torch.empty(0)
        # Of the block that ran last, mean over heads, [T, T], and its keys, [T, K * C].
        self._attention_seen = self._keys_seen = torch.empty(0)

    def run(
        self, embedded: Tensor, classes: list[TokenClass], steps: Steps, drop: Drop
    ) -> tuple[Tensor, list[tuple[int, ...]]]:
        """Run a prompt and its answer so far.

        Args:
            embedded: all rows, [T, D].
            classes: theirs.
            steps: what rows do.
            drop: what leaves.

        Returns:
            The logits of the rows that are left, [N, V], and by stage at which any row leaves, the
            places of the visual rows that are left.
        """
        self.margin = float("inf")
        places = torch.arange(len(classes))
        alive = Alive(embedded, embedded, places.tolist(), places.double(), list(classes))
        raters = self._raters(embedded, alive)
        left: list[tuple[int, ...]] = []
        stages = dict(drop.stages)
        for layer in range(self.num_layers):
            visual = alive.rows(TokenClass.VISUAL)
            if layer in stages and visual:
                entering = self._drop(layer, min(stages[layer], len(visual)), drop, alive, raters)
                if entering is not None:
                    alive = entering
                    left.append(tuple(alive.ids[it] for it in alive.rows(TokenClass.VISUAL)))
            alive = self._run_block(layer, alive, steps)
        return self._head(alive.hidden), left

    def _run_block(self, layer: int, alive: Alive, steps: Steps) -> Alive:
        self._positions = alive.positions
        todo = [steps(layer, token_class) for token_class in alive.classes]
        is_second = column([step.pair == "second" for step in todo])
        entering = torch.where(is_second, alive.pair, alive.hidden)
        output = self._block(layer, entering, todo)
        hidden = torch.where(is_second, (alive.hidden + output) / 2, output)
        return Alive(hidden, entering, alive.ids, alive.positions, alive.classes)

    def _attention(self, name: str, normed: Tensor) -> Tensor:
        _, key, attention = self._look(name, normed)
        value = self._heads(f"{name}.self_attn.v_proj", normed, self.num_kv_heads)
        spread = value.repeat_interleave(self.num_heads // self.num_kv_heads, dim=1)
        mixed = torch.einsum("hqk,khc->qhc", attention, spread).flatten(1)
        self._attention_seen, self._keys_seen = attention.mean(dim=0), key.flatten(1)
        return mixed @ self.weights[f"{name}.self_attn.o_proj.weight"].T

    def _look(self, name: str, normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and attention [H, T, T]."""
        query = self._heads(f"{name}.self_attn.q_proj", normed, self.num_heads)
        key = self._heads(f"{name}.self_attn.k_proj", normed, self.num_kv_heads)
        query, key = (_turn(it, self._positions) for it in (query, key))
        spread = key.repeat_interleave(self.num_heads // self.num_kv_heads, dim=1)
        scores = torch.einsum("qhc,khc->hqk", query, spread) / query.shape[-1] ** 0.5
        unseen = torch.ones(len(normed), len(normed), dtype=torch.bool).triu(1)
        return query, key, scores.masked_fill(unseen, -torch.inf).softmax(-1)

    # --- which rows leave

    def _drop(
        self, layer: int, count: int, drop: Drop, alive: Alive, raters: list[int]
    ) -> Alive | None:
        """Return the rows that enter a block; None where all do."""
        visual, last = alive.rows(TokenClass.VISUAL), alive.classes.index(TokenClass.LAST)
        if drop.method == "sparsevlm":
            return None if len(visual) == 1 else self._merge(alive, visual, count, drop, raters)
        match drop.method:
            case "vtw":
                kept: list[int] = []
            case "fastv":
                scores = self._attention_seen[last, visual].tolist()
                kept = [visual[it] for it in self._best(scores, count)]
            case "pyramiddrop":
                self._positions = alive.positions
                name = f"model.layers.{layer}"
                normed = self._norm(alive.hidden, f"{name}.input_layernorm")
                attention = self._look(name, normed)[2].mean(dim=0)
                kept = [visual[it] for it in self._best(attention[last, visual].tolist(), count)]
            case _:
                kept = self._least_alike(alive, visual, last, count)
        if len(kept) == len(visual):
            return None
        rows = [it for it in range(len(alive.ids)) if it not in visual or it in kept]
        return self._take(alive, rows, drop)

    def _take(self, alive: Alive, rows: list[int], drop: Drop) -> Alive:
        positions = alive.positions[rows]
        if drop.renumbers:
            positions = torch.arange(len(rows)).double()
        return Alive(
            alive.hidden[rows],
            alive.pair[rows],
            [alive.ids[it] for it in rows],
            positions,
            [alive.classes[it] for it in rows],
        )

    def _least_alike(self, alive: Alive, visual: list[int], last: int, count: int) -> list[int]:
        """Choose as dart does."""
        norms = self._keys_seen.abs().sum(dim=1).tolist()
        behind = list(range(visual[-1] + 1, last + 1))
        of_image = [visual[it] for it in self._best([norms[it] for it in visual], 4)]
        of_text = [behind[it] for it in self._best([norms[it] for it in behind], 4)]
        pivots = sorted(of_image) + sorted(of_text)
        normed = self._norm(alive.hidden, "model.norm")
        units = normed / normed.norm(dim=1, keepdim=True)
        kept = set(of_image)
        if len(kept) + len(pivots) * (count // len(pivots)) >= len(visual):
            return visual
        for pivot in pivots:
            free = [it for it in visual if it not in kept]
            unlike = [-float(units[it] @ units[pivot]) for it in free]
            kept |= {free[it] for it in self._best(unlike, count // len(pivots))}
        return sorted(kept)

    def _raters(self, embedded: Tensor, alive: Alive) -> list[int]:
        """Return the rows behind the images that see them best, from the end of the prompt."""
        visual = alive.rows(TokenClass.VISUAL)
        if not visual:
            return []
        last = alive.classes.index(TokenClass.LAST)
        behind = embedded[visual[-1] + 1 : last + 1]
        share = (embedded[visual] @ behind.T).softmax(dim=1).mean(dim=0)
        mean = float(share.mean())
        found = [it for it, got in enumerate(share.tolist()) if got > mean]
        if len(behind) > 1:
            self.margin = min(self.margin, *(abs(it - mean) / mean for it in share.tolist()))
        return [it - len(behind) for it in found or range(len(behind))]

    def _merge(
        self, alive: Alive, visual: list[int], count: int, drop: Drop, raters: list[int]
    ) -> Alive:
        """Choose and merge as sparsevlm does."""
        last = alive.classes.index(TokenClass.LAST)
        looks = self._attention_seen[[last + 1 + it for it in raters]].mean(dim=0)
        scores = looks[visual].tolist()
        count = min(count, len(visual) - 1)
        num_merging = int(Fraction(3, 10) * (len(visual) - count)) + 1
        kept = [visual[it] for it in self._best(scores, count)]
        best = self._best(scores, count + num_merging)
        merging = [visual[it] for it in best if visual[it] not in kept]
        merged = self._clusters(alive.hidden[merging], num_merging // 10 + 1)
        place = min(visual)
        before = [it for it in range(visual[-1] + 1) if it not in visual or it in kept]
        rows = before + [place] * len(merged) + list(range(visual[-1] + 1, len(alive.ids)))
        result = self._take(alive, rows, drop)
        for number, members in enumerate(merged, len(before)):
            result.hidden[number] = alive.hidden[[merging[it] for it in members]].mean(dim=0)
            result.ids[number], result.classes[number] = MERGED, TokenClass.VISUAL
        return result

    def _clusters(self, rows: Tensor, count: int) -> list[list[int]]:
        """Return the members of the clusters of some rows (DPC-kNN)."""
        num_rows = len(rows)
        apart = (rows[:, None] - rows).norm(dim=2) / rows.shape[1] ** 0.5
        density = (-apart.sort(dim=1).values[:, :count].square().mean(dim=1)).exp().tolist()
        peaks = []
        for row in range(num_rows):
            denser = [
                float(apart[row, it])
                for it in range(num_rows)
                if (-density[it], it) < (-density[row], row)
            ]
            peaks.append(density[row] * min(denser, default=float(apart.max())))
        centres = self._best(peaks, count)
        nearest = [
            centres.index(row)
            if row in centres
            else self._best((-apart[row, centres]).tolist(), 1)[0]
            for row in range(num_rows)
        ]
        if count == 2 and num_rows > 2:
            # Rows that are each other's nearest are equally dense: what is first decides.
            self.margin = 0.0
        return [[row for row in range(num_rows) if nearest[row] == it] for it in range(count)]

    def _best(self, scores: list[float], count: int) -> list[int]:
        """Return the places of the highest scores, the best first; note how clear the cut is."""
        order = sorted(range(len(scores)), key=lambda it: (-scores[it], it))
        if 0 < count < len(order):
            taken, other = scores[order[count - 1]], scores[order[count]]
            self.margin = min(self.margin, (taken - other) / max(abs(taken), abs(other)))
        return order[:count]


def _turn(heads: Tensor, positions: Tensor) -> Tensor:
    """Turn heads [T, H, C] by positions [T], as pairs of elements half a head apart."""
    half = heads.shape[-1] // 2
    frequency = 10_000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = positions[:, None, None] * frequency
    first, second = heads[..., :half], heads[..., half:]
    cosine, sine = angle.cos(), angle.sin()
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)
