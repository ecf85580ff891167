"""Writes a trained tower as a folder of CLIP's type, as transformers and LLaVA load it."""

from pathlib import Path

import torch
from transformers import CLIPImageProcessorPil, CLIPVisionModel

from skipserve_training.mapping.tower import LabelledTower

FEATURE_LAYER = -2  # as in LLaVA-1.5


def export_tower(tower: LabelledTower, folder: Path) -> None:
    """Write the tower without its heads, in bf16.

    LLaVA reads the last layer but one, so a layer that nothing reads comes after the trained
    ones: zeros, an identity.
    """
    model = CLIPVisionModel(tower.sizes.config(unread_layers=1))
    last = f"encoder.layers.{tower.sizes.layers}."
    zeros = {
        name: torch.zeros_like(value) for name, value in model.state_dict().items() if last in name
    }
    model.load_state_dict(tower.vision.state_dict() | zeros)
    model.bfloat16().save_pretrained(folder)
    make_image_processor(tower.sizes.side).save_pretrained(folder)


def make_image_processor(side: int) -> CLIPImageProcessorPil:
    """Resize to the tower's side; pictures that are not square lose their ends."""
    return CLIPImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    )
