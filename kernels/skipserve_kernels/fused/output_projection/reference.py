"""The meaning of the output projection, in float32."""

import torch
import torch.nn.functional as F
from torch import Tensor

from skipserve_kernels.fused.launch import Selection
from skipserve_kernels.projection import Projection


def output_projection(
    x: Tensor,
    layer: Projection,
    hidden: Tensor,
    selection: Selection,
    bits: int = 0,
) -> Tensor:
    """Return hidden with x @ weight.T + bias added to the rows that take part."""
    weight, bias = layer
    rows = selection.index
    if rows is None:
        rows = torch.arange(selection.num_rows, device=x.device)
    if selection.gates is not None:
        takes_part = selection.gates & bits != 0
        x, rows = x[takes_part], rows[takes_part]
    product = F.linear(x.float(), weight.float(), None if bias is None else bias.float())
    return hidden.float().index_add(0, rows, product)
