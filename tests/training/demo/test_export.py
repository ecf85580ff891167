"""The checkpoint loads where it should, and renders prompts as LLaVA-1.5 does."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoProcessor, LlavaForConditionalGeneration

from skipserve_client.evaluate.dataset import demo_examples
from skipserve_client.evaluate.scenes import Split
from skipserve_training.demo.batches import prompt_prefix, to_pixels
from skipserve_training.demo.export import checkpoint_tensors, export
from skipserve_training.demo.model import DemoModel, ModelSizes
from skipserve_training.demo.stages import Lesson
from skipserve_training.demo.tokenizer import question_text

QUESTION = "What color is the star?"
USER = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]}


@pytest.fixture(scope="module")
def checkpoint(lesson: Lesson, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    export(DemoModel(ModelSizes(lesson.recipe.vocabulary, 2)), lesson.packer.tokenizer, folder)
    return folder


@pytest.fixture(scope="module")
def processor(checkpoint: Path) -> Any:
    return AutoProcessor.from_pretrained(checkpoint)


def test_transformers_finds_every_weight_and_no_other(checkpoint: Path) -> None:
    loaded: Any = LlavaForConditionalGeneration.from_pretrained(
        checkpoint, output_loading_info=True
    )
    model, report = loaded
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert model.dtype == torch.bfloat16
    assert model.generation_config.eos_token_id == 2


def test_weights_are_bfloat16_under_the_published_names(checkpoint: Path) -> None:
    tensors = load_file(checkpoint / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert tensors["language_model.model.layers.1.mlp.gate_proj.weight"].shape == (352, 128)
    assert tensors["language_model.lm_head.weight"].shape == (448, 128)
    name = "vision_tower.vision_model.embeddings.patch_embedding.weight"
    assert tensors[name].shape == (128, 3, 16, 16)
    assert not tensors["vision_tower.vision_model.encoder.layers.4.mlp.fc2.weight"].any()


def test_the_full_model_fits_in_twenty_megabytes() -> None:
    tensors = checkpoint_tensors(DemoModel(ModelSizes(448, 32)))
    assert sum(tensor.nbytes for tensor in tensors.values()) < 16e6


def test_the_processor_makes_training_pixels_and_ids(processor: Any, lesson: Lesson) -> None:
    (example,) = demo_examples(Split.HELD_OUT, 1)
    text = processor.apply_chat_template([USER], add_generation_prompt=True)
    inputs = processor(images=example.image, text=text, return_tensors="pt")
    assert torch.equal(inputs["pixel_values"], to_pixels([example.image]))
    tokenizer = lesson.packer.tokenizer
    ids = tokenizer.encode(question_text(QUESTION), add_special_tokens=False).ids
    assert inputs["input_ids"][0].tolist() == prompt_prefix(tokenizer, 36)[:-1] + ids


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([USER], f"USER: <image>\n{QUESTION} ASSISTANT:"),
        ([{"role": "user", "content": "Hello"}], "USER: Hello ASSISTANT:"),
        (
            [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hello"}],
            "SYSTEM: Be short. USER: Hello ASSISTANT:",
        ),
        (
            [
                USER,
                {"role": "assistant", "content": "red"},
                {"role": "user", "content": "And now?"},
            ],
            f"USER: <image>\n{QUESTION} ASSISTANT: red</s>USER: And now? ASSISTANT:",
        ),
    ],
)
def test_the_chat_template(processor: Any, messages: list[Any], expected: str) -> None:
    assert processor.apply_chat_template(messages, add_generation_prompt=True) == expected
