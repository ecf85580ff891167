"""Writes a small model as `fetch` leaves one: a tower, a mapping module, a language model."""

from pathlib import Path

import torch
from tiny_language import save_llama

from skipserve.pretrained.joining import join
from skipserve_policies.sizes import MappingSizes
from skipserve_training.mapping.encoders import TransformersEncoder
from skipserve_training.mapping.export import export_trained
from skipserve_training.mapping.language import load_language_model, load_tokenizer
from skipserve_training.mapping.parts import Parts
from skipserve_training.mapping.projectors import ProjectorType, make_projector
from skipserve_training.mapping.tower import LabelledTower, TowerSizes
from skipserve_training.mapping.tower_export import FEATURE_LAYER, export_tower

SIZES = MappingSizes(num_queries=3, hidden_size=16, num_layers=1, num_heads=2, ffn_size=16)


def make_served(folder: Path) -> Path:
    """Write the model, and what was measured of it; returns its folder, called `small`."""
    torch.manual_seed(0)
    language = save_llama(folder / "language")
    export_tower(LabelledTower(TowerSizes(32, 48, 1, 1, 32, 8)), folder / "tower")
    projector = make_projector(ProjectorType.MAPPING, 32, 32, SIZES)
    cpu = torch.device("cpu")
    parts = Parts(
        load_language_model(language, torch.bfloat16, cpu),
        TransformersEncoder(folder / "tower", cpu, FEATURE_LAYER, keeps_class=False),
        projector,
        load_tokenizer(language),
    )
    export_trained(parts, SIZES.num_queries, folder / "trained")
    model = folder / "small"
    join(folder / "trained", language, model)
    (model / "skip-quality.json").write_text("{}")
    (model / "README.md").write_text("What was measured.")
    return model
