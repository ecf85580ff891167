"""What layers do to the rows that pass, against transformers' hidden states and attentions."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlavaForConditionalGeneration
from transformers_answers import Oracle

from skipserve.asking.processor import QuestionProcessor
from skipserve_training.calibration.anatomy import TEXT, VISUAL
from skipserve_training.calibration.probe import Probe
from skipserve_training.calibration.questions import Drawn

IMAGE = 4


def _mean(parts: list[Tensor]) -> float:
    return float(torch.cat(parts).mean())


def test_means_are_transformers(
    tiny_folder: Path, processor: QuestionProcessor, probe: Probe, drawn: Drawn
) -> None:
    places = range(3)
    found = probe.anatomy(places)
    assert found is not None
    oracle = Oracle(tiny_folder, processor)
    model = LlavaForConditionalGeneration.from_pretrained(
        tiny_folder, dtype=torch.float32, attn_implementation="eager"
    )
    through: dict[int, list[tuple[Tensor, Tensor]]] = {}
    for layer, block in enumerate(model.model.language_model.layers):
        block.register_forward_hook(
            lambda _, given, made, layer=layer: through.setdefault(layer, []).append(
                (given[0][0], (made[0] if isinstance(made, tuple) else made)[-1])
            )
        )
    visual, masses = [], []
    for place in places:
        ids, pixels = oracle.inputs(drawn.ranking[place])
        shows = torch.tensor(ids) == IMAGE
        shows[-1] = False
        with torch.inference_mode():
            out = model(
                input_ids=torch.tensor([ids]), pixel_values=pixels, use_cache=False,
                output_attentions=True,
            )  # fmt: skip
        visual.append(shows)
        masses.append([float(it[0, :, -1, shows].sum(-1).mean()) for it in out.attentions])
    for layer in range(4):
        cosines = [F.cosine_similarity(*pair, dim=-1) for pair in through[layer]]
        pairs = list(zip(cosines, visual, strict=True))
        for name, chosen in (
            (VISUAL, [cosine[shows] for cosine, shows in pairs]),
            (TEXT, [cosine[~shows] for cosine, shows in pairs]),
        ):
            assert found.cosine[name][layer] == pytest.approx(_mean(chosen), abs=1e-4)
        assert found.influence[layer] == pytest.approx(1 - _mean(cosines), abs=1e-4)
        mass = sum(it[layer] for it in masses) / len(masses)
        assert found.visual_mass[layer] == pytest.approx(mass, abs=1e-4)
    assert found.visual_share == pytest.approx(_mean([it.float() for it in visual]))


def test_watching_ends(probe: Probe) -> None:
    before = probe.compare([(probe.processor.policies.find("full"), 0)])
    probe.anatomy([1])
    assert probe.compare([(probe.processor.policies.find("full"), 0)]) == before
