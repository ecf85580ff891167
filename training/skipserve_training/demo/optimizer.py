"""Muon for the matrices of the blocks, AdamW for everything else."""

from typing import Any

import torch
from torch import Tensor, nn

# Quintic Newton-Schulz: Jordan et al., "Muon: an optimizer for hidden layers", 2024.
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_NEWTON_SCHULZ_STEPS = 5


class Muon(torch.optim.Optimizer):
    """Steps along the orthogonalised momentum; a parameter is a stack of matrices."""

    def __init__(self, groups: list[dict[str, Any]], momentum: float = 0.95) -> None:
        super().__init__(groups, {"lr": 0.0, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Apply one update."""
        del closure
        for group in self.param_groups:
            for parameter in group["params"]:
                momentum = self._momentum(parameter, group["momentum"])
                update = orthogonalise(momentum)
                height, width = parameter.shape[-2:]
                scale = max(1.0, height / width) ** 0.5
                parameter.add_(update, alpha=-group["lr"] * scale)

    def _momentum(self, parameter: nn.Parameter, beta: float) -> Tensor:
        assert parameter.grad is not None
        state: dict[str, Any] = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        buffer: Tensor = state["momentum"]
        buffer.lerp_(parameter.grad, 1 - beta)
        ahead: Tensor = parameter.grad.lerp(buffer, beta)  # Nesterov's
        return ahead


def orthogonalise(stack: Tensor) -> Tensor:
    """Move the singular values of each matrix of a stack near one."""
    first, second, third = _NEWTON_SCHULZ
    is_tall = stack.shape[-2] > stack.shape[-1]
    wide = stack.mT if is_tall else stack
    x = wide.flatten(0, -3).bfloat16()  # its noise only blurs values that are blurred anyway
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(_NEWTON_SCHULZ_STEPS):
        gram = x @ x.mT
        x = first * x + (second * gram + third * gram @ gram) @ x
    flat: Tensor = x.view(wide.shape).to(stack.dtype)
    return flat.mT if is_tall else flat


def make_optimizers(
    parameters: dict[str, nn.Parameter], eye_share: float
) -> tuple[Muon, torch.optim.AdamW]:
    """Sort parameters by shape; their rates are set at each step by `set_rates`.

    Args:
        parameters: what to train, by name.
        eye_share: the share of the rates for what is named "vision.": an eye that is good
            already must move slowly, or the decoder loses sight.
    """
    muon: list[dict[str, Any]] = []
    adam: list[dict[str, Any]] = []
    for name, parameter in parameters.items():
        share = eye_share if name.startswith("vision.") else 1.0
        groups = muon if _is_matrix_stack(parameter) else adam
        groups.append({"params": [parameter], "share": share})
    return Muon(muon), torch.optim.AdamW(adam, betas=(0.9, 0.95), weight_decay=0.0)


def set_rates(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give each group its share of a rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["share"]


def _is_matrix_stack(parameter: nn.Parameter) -> bool:
    # A stack of biases, [L, 3, D], has three dimensions too but no wide rows.
    return parameter.ndim >= 3 and parameter.shape[-2] > 3
