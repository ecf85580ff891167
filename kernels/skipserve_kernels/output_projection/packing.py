"""The weights of a block's output side in one matrix, so that one product can serve both."""

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

# A weight [D, inputs] and its bias [D], if it has one.
Linear: TypeAlias = tuple[Tensor, Tensor | None]


@dataclass(frozen=True, slots=True)
class OutputWeights:
    """W_out = [W_o | W_down], for inputs [attention | activation].

    Attributes:
        weight: [D, QN + F].
        output_bias: attention's, [D], or None.
        down_bias: the FFN's, [D], or None.
        both_biases: their sum, or None where neither exists.
        query_size: QN, the columns that attention's output meets.
    """

    weight: Tensor
    output_bias: Tensor | None
    down_bias: Tensor | None
    both_biases: Tensor | None
    query_size: int

    @property
    def output(self) -> Linear:
        """Attention's part: a slice [D, QN] of the one weight."""
        return self.weight[:, : self.query_size], self.output_bias

    @property
    def down(self) -> Linear:
        """The FFN's part: a slice [D, F] of the one weight."""
        return self.weight[:, self.query_size :], self.down_bias

    @property
    def all(self) -> Linear:
        """Both at once."""
        return self.weight, self.both_biases


def pack_outputs(output: Linear, down: Linear) -> OutputWeights:
    """Join attention's output projection, [D, QN], and the FFN's down projection, [D, F]."""
    biases = [bias for _, bias in (output, down) if bias is not None]
    both = torch.stack(biases).sum(0) if biases else None
    return OutputWeights(
        weight=torch.cat((output[0], down[0]), dim=1),
        output_bias=output[1],
        down_bias=down[1],
        both_biases=both,
        query_size=output[0].shape[1],
    )
