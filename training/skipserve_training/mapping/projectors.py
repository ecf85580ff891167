"""What joins an encoder to a language model: the paper's mapping module, or LLaVA's MLP.

Shapes: B pictures, P encoder rows, d_vis the encoder's width, d_llm that of the embeddings.
"""

from enum import StrEnum

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from skipserve_policies.sizes import MappingSizes


class ProjectorType(StrEnum):
    """How many rows a picture becomes: a fixed few, or one a patch."""

    MAPPING = "mapping"
    MLP = "mlp"


class FeedForward(nn.Module):
    """Two matrices with a ReLU between them."""

    def __init__(self, sizes: MappingSizes) -> None:
        super().__init__()
        self.up = nn.Linear(sizes.hidden_size, sizes.ffn_size)
        self.down = nn.Linear(sizes.ffn_size, sizes.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """Run on each row."""
        rows: Tensor = self.down(F.relu(self.up(x)))
        return rows


class MappingLayer(nn.Module):
    """One pre-norm transformer encoder layer."""

    def __init__(self, sizes: MappingSizes) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(sizes.hidden_size)
        self.attention = nn.MultiheadAttention(sizes.hidden_size, sizes.num_heads, batch_first=True)
        self.norm2 = nn.LayerNorm(sizes.hidden_size)
        self.ffn = FeedForward(sizes)

    def forward(self, x: Tensor) -> Tensor:
        """Run on `[B, P + queries, hidden]`; every row sees every other."""
        normed = self.norm1(x)
        x = x + self.attention(normed, normed, normed, need_weights=False)[0]
        rows: Tensor = x + self.ffn(self.norm2(x))
        return rows


class MappingModule(nn.Module):
    """Ten learned queries read an encoder's rows and become rows of the prompt.

    Source: "Skipping Computations in Multimodal LLMs", arXiv 2410.09454. 7,362,048 parameters
    for d_vis 1024 and d_llm 4096.
    """

    def __init__(self, d_vis: int, d_llm: int, sizes: MappingSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.input = nn.Linear(d_vis, sizes.hidden_size)
        self.queries = nn.Parameter(torch.randn(sizes.num_queries, sizes.hidden_size) * 0.02)
        self.layers = nn.ModuleList(MappingLayer(sizes) for _ in range(sizes.num_layers))
        self.output = nn.Linear(sizes.hidden_size, d_vis)
        self.to_llm = nn.Linear(d_vis, d_llm)

    def rows(self, num_patches: int) -> int:
        """Return the rows that a picture of so many encoder rows becomes."""
        del num_patches
        return self.sizes.num_queries

    def forward(self, features: Tensor) -> Tensor:
        """Turn `[B, P, d_vis]` into `[B, queries, d_llm]`."""
        queries = self.queries.expand(len(features), -1, -1)
        x = torch.cat((self.input(features), queries), dim=1)
        for layer in self.layers:
            x = layer(x)
        rows: Tensor = self.to_llm(self.output(x[:, -self.sizes.num_queries :]))
        return rows


class PatchProjector(nn.Module):
    """LLaVA-1.5's projector: each encoder row becomes one row of the prompt."""

    def __init__(self, d_vis: int, d_llm: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(d_vis, d_llm)
        self.linear_2 = nn.Linear(d_llm, d_llm)

    def rows(self, num_patches: int) -> int:
        """Return the rows that a picture of so many encoder rows becomes."""
        return num_patches

    def forward(self, features: Tensor) -> Tensor:
        """Turn `[B, P, d_vis]` into `[B, P, d_llm]`."""
        rows: Tensor = self.linear_2(F.gelu(self.linear_1(features)))
        return rows


Projector = MappingModule | PatchProjector


def make_projector(
    kind: ProjectorType, d_vis: int, d_llm: int, sizes: MappingSizes | None = None
) -> Projector:
    """Build an untrained projector; `sizes` are the mapping module's."""
    if kind is ProjectorType.MAPPING:
        return MappingModule(d_vis, d_llm, sizes or MappingSizes())
    return PatchProjector(d_vis, d_llm)
