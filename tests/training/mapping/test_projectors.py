"""The paper's module by its size, its names, and torch's own encoder layer."""

import pytest
import torch
from torch import nn

from skipserve_policies.sizes import MappingSizes
from skipserve_training.mapping.projectors import (
    MappingModule,
    PatchProjector,
    ProjectorType,
    make_projector,
)

pytestmark = pytest.mark.fast

TINY = MappingSizes(num_queries=3, hidden_size=16, num_layers=2, num_heads=4, ffn_size=24)


def test_the_module_has_the_papers_size() -> None:
    with torch.device("meta"):
        module = make_projector(ProjectorType.MAPPING, 1024, 4096)
    assert sum(parameter.numel() for parameter in module.parameters()) == 7_362_048


def test_it_computes_what_torchs_encoder_layers_compute() -> None:
    torch.manual_seed(0)
    module = MappingModule(8, 20, TINY).eval()
    features = torch.randn(2, 5, 8)
    x = torch.cat((module.input(features), module.queries.expand(2, -1, -1)), dim=1)
    for layer in module.layers:
        known = nn.TransformerEncoderLayer(16, 4, 24, 0.0, norm_first=True, batch_first=True)
        renamed = {
            name.replace("attention", "self_attn")
            .replace("ffn.up", "linear1")
            .replace("ffn.down", "linear2"): value
            for name, value in layer.state_dict().items()
        }
        known.load_state_dict(renamed)
        x = known.eval()(x)
    expected = module.to_llm(module.output(x[:, -3:]))
    torch.testing.assert_close(module(features), expected)


def test_the_names_of_a_checkpoint() -> None:
    names = set(MappingModule(8, 20, TINY).state_dict())
    layer = {
        f"{part}.{kind}"
        for part in ("norm1", "norm2", "attention.out_proj", "ffn.up", "ffn.down")
        for kind in ("weight", "bias")
    } | {"attention.in_proj_weight", "attention.in_proj_bias"}
    assert names == {
        "queries",
        *(
            f"{part}.{kind}"
            for part in ("input", "output", "to_llm")
            for kind in ("weight", "bias")
        ),
        *(f"layers.{number}.{name}" for number in range(2) for name in layer),
    }


def test_rows_of_a_picture() -> None:
    mapping = make_projector(ProjectorType.MAPPING, 8, 20, TINY)
    patches = make_projector(ProjectorType.MLP, 8, 20)
    features = torch.randn(2, 7, 8)
    assert mapping(features).shape == (2, mapping.rows(7), 20) == (2, 3, 20)
    assert patches(features).shape == (2, patches.rows(7), 20) == (2, 7, 20)
    assert isinstance(patches, PatchProjector)
    assert set(patches.state_dict()) == {
        f"linear_{number}.{kind}" for number in (1, 2) for kind in ("weight", "bias")
    }
