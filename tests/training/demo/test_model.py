"""The training model against transformers' LLaVA with the same weights, and growth."""

from pathlib import Path

import pytest
import torch
from transformers import LlavaForConditionalGeneration

from skipserve_client.evaluate.dataset import demo_examples
from skipserve_client.evaluate.scenes import Split
from skipserve_training.demo.batches import prompt_prefix, to_pixels
from skipserve_training.demo.export import EXPORTED_TYPE, export
from skipserve_training.demo.model import DemoModel, grow
from skipserve_training.demo.similarity import sibling_cosines
from skipserve_training.demo.stages import Lesson, embed
from skipserve_training.demo.tokenizer import question_text


def _rounded(model: DemoModel) -> DemoModel:
    """Round the weights to what the checkpoint holds, so that only the arithmetic may differ."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(EXPORTED_TYPE).float()
    return model


@torch.inference_mode()
def test_logits_equal_transformers(model: DemoModel, lesson: Lesson, tmp_path: Path) -> None:
    _rounded(model)
    tokenizer = lesson.packer.tokenizer
    export(model, tokenizer, tmp_path)
    oracle = LlavaForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32)
    (example,) = demo_examples(Split.HELD_OUT, 1)
    text = tokenizer.encode(question_text(example.question), add_special_tokens=False).ids
    ids = torch.tensor([prompt_prefix(tokenizer, 36)[:-1] + text])
    pixels = to_pixels([example.image])
    expected = oracle(input_ids=ids, pixel_values=pixels).logits
    rows = ids.shape[1]
    allowed = torch.ones(1, rows, rows, dtype=torch.bool).tril()
    hidden = model.decoder(
        embed(model, ids, model.vision(pixels)), torch.arange(rows)[None], allowed
    )
    difference = (model.decoder.logits(hidden) - expected).abs().max()
    assert difference < 1e-4 * expected.abs().max()


@pytest.mark.fast
def test_padding_on_the_right_changes_nothing(model: DemoModel) -> None:
    ids = torch.tensor([[1, 50, 60, 70, 3, 3]])
    allowed = torch.ones(1, 6, 6, dtype=torch.bool).tril()
    embedded = model.decoder.embedding[ids]
    positions = torch.arange(6)[None]
    long = model.decoder(embedded, positions, allowed)[:, :4]
    short = model.decoder(embedded[:, :4], positions[:, :4], allowed[:, :4, :4])
    assert torch.allclose(long, short, atol=1e-6)


@pytest.mark.fast
def test_visual_tokens_take_the_images_places(model: DemoModel) -> None:
    ids = torch.tensor([[1, 4, 4, 9], [1, 4, 4, 8]])
    tokens = torch.arange(4.0).view(2, 2, 1).expand(2, 2, 128)
    rows = embed(model, ids, tokens)
    assert torch.equal(rows[:, 1:3], tokens)
    assert torch.equal(rows[:, 3], model.decoder.embedding[ids[:, 3]])


@pytest.mark.fast
def test_growth_keeps_small_steps_of_the_stream(model: DemoModel) -> None:
    with torch.no_grad():
        # Halves of a small step see nearly the same stream.
        model.decoder.output.mul_(0.05)
        model.decoder.down.mul_(0.05)
    grown = grow(model, 3)
    assert grown.sizes.layers == 6
    embedded = model.decoder.embedding[torch.tensor([[1, 50, 60, 70]])]
    allowed = torch.ones(1, 4, 4, dtype=torch.bool).tril()
    before = model.decoder(embedded, torch.arange(4)[None], allowed)
    after = grown.decoder(embedded, torch.arange(4)[None], allowed)
    assert (after - before).abs().max() < 0.02 * before.abs().max()


@pytest.mark.fast
def test_siblings_start_as_copies(model: DemoModel) -> None:
    cosines = sibling_cosines(grow(model, 2), 2)
    assert cosines["siblings"] == pytest.approx(1.0, abs=1e-3)
    assert abs(cosines["others"]) < 0.05


@pytest.mark.fast
def test_bfloat16_follows_fp32(model: DemoModel) -> None:
    pixels = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    wide = model.vision(pixels)
    narrow = model.vision(pixels.bfloat16()).float()
    assert (wide - narrow).abs().max() < 0.05 * wide.abs().max()
