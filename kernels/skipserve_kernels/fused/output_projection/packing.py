"""The weights of a block's output side in one matrix, so that one product can serve both."""

from dataclasses import dataclass

import torch
from torch import Tensor

from skipserve_kernels.projection import Projection


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
    def output(self) -> Projection:
        """Attention's part: a slice [D, QN] of the one weight."""
        return Projection(self.weight[:, : self.query_size], self.output_bias)

    @property
    def down(self) -> Projection:
        """The FFN's part: a slice [D, F] of the one weight."""
        return Projection(self.weight[:, self.query_size :], self.down_bias)

    @property
    def all(self) -> Projection:
        """Both at once."""
        return Projection(self.weight, self.both_biases)


def pack_outputs(output: Projection, down: Projection) -> OutputWeights:
    """Join attention's output projection, [D, QN], and the FFN's down projection, [D, F]."""
    biases = [it.bias for it in (output, down) if it.bias is not None]
    both = torch.stack(biases).sum(0) if biases else None
    return OutputWeights(
        weight=torch.cat((output.weight, down.weight), dim=1),
        output_bias=output.bias,
        down_bias=down.bias,
        both_biases=both,
        query_size=output.weight.shape[1],
    )
