"""Muon orthogonalises, and each parameter goes to the right optimizer."""

import pytest
import torch
from torch import nn

from skipserve_training.demo.model import DemoModel
from skipserve_training.demo.optimizer import Muon, make_optimizers, orthogonalise, set_rates

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("shape", [(3, 32, 32), (2, 2, 48, 16), (2, 16, 48)])
def test_singular_values_come_near_one(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)))
    assert values.max() < 1.3
    assert values.median() > 0.6


def test_matrices_of_a_stack_do_not_mix() -> None:
    torch.manual_seed(0)
    stack = torch.randn(3, 16, 16)
    one = orthogonalise(stack[1:2])
    assert torch.allclose(orthogonalise(stack)[1], one[0], atol=0.02)


def test_muon_lowers_a_loss() -> None:
    torch.manual_seed(0)
    parameter = nn.Parameter(torch.randn(1, 8, 8))
    optimizer = Muon([{"params": [parameter], "share": 1.0}])
    set_rates(optimizer, 0.05)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = parameter.square().sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_block_matrices_go_to_muon_and_the_rest_to_adam(model: DemoModel) -> None:
    named = dict(model.named_parameters())
    muon, adam = make_optimizers(named, eye_share=1.0)
    sizes = [sum(map(len, (group["params"] for group in o.param_groups))) for o in (muon, adam)]
    assert sum(sizes) == len(named)
    in_muon = {id(parameter) for group in muon.param_groups for parameter in group["params"]}
    names = {name for name, parameter in named.items() if id(parameter) in in_muon}
    assert names == {
        *(f"decoder.{name}" for name in ("qkv", "output", "gate_up", "down")),
        *(f"vision.{name}" for name in ("qkv", "output", "fc1", "fc2")),
    }


def test_the_eye_gets_its_share_of_the_rate(model: DemoModel) -> None:
    named = dict(model.named_parameters())
    for optimizer in make_optimizers(named, eye_share=0.25):
        set_rates(optimizer, 0.4)
        for group in optimizer.param_groups:
            (parameter,) = group["params"]
            name = next(name for name, value in named.items() if value is parameter)
            assert group["lr"] == pytest.approx(0.1 if name.startswith("vision.") else 0.4), name
