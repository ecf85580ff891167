"""The checkpoint that ships: whole, small enough, and as good as its record says."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

import skipserve
from skipserve_client.evaluate.dataset import demo_examples
from skipserve_client.evaluate.off_topic import REFUSAL
from skipserve_client.evaluate.questions import EMPTY_CAPTION, QuestionType
from skipserve_client.evaluate.scenes import CANVAS, Split
from skipserve_client.evaluate.scoring import GradedAnswer, score
from skipserve_policies.quality import QUALITY_FILE
from skipserve_training.demo.recipe import LAYERS, default_recipe

SHIPPED = Path(next(iter(skipserve.__path__))) / "demo"
MAX_BYTES = 20_000_000
NUM_QUESTIONS = 72
BLANK = ("white", "black", (120, 170, 220))


@pytest.mark.fast
def test_no_file_was_changed_by_hand() -> None:
    lines = (SHIPPED / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, name in map(str.split, lines)}
    assert set(sums) == {path.name for path in SHIPPED.iterdir()} - {"SHA256SUMS", QUALITY_FILE}
    for name, expected in sums.items():
        assert hashlib.sha256((SHIPPED / name).read_bytes()).hexdigest() == expected, name


@pytest.mark.fast
def test_it_is_small_and_as_deep_as_the_papers() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) <= MAX_BYTES
    config = json.loads((SHIPPED / "config.json").read_text())
    assert config["text_config"]["num_hidden_layers"] == LAYERS


@pytest.mark.fast
def test_the_record_shows_what_was_asked_for() -> None:
    record = json.loads((SHIPPED / "training-record.json").read_text())
    held_out = record["held_out"]
    assert held_out["n"] >= 1000
    assert held_out["accuracy"] >= 0.9
    # A refusal is the same whatever is seen: that type cannot be above its majority answer.
    assert record["types_too_near_their_majority"] == [QuestionType.REFUSAL]
    for name, kind in held_out["types"].items():
        needed = 0.9 if name == QuestionType.REFUSAL else kind["majority"] + 0.15
        assert kind["accuracy"] >= needed, name


@pytest.mark.fast
def test_the_record_tells_of_every_stage_and_of_what_the_last_ones_began_from() -> None:
    record = json.loads((SHIPPED / "training-record.json").read_text())
    planned = [(stage.name, stage.steps) for stage in default_recipe().stages]
    assert [(stage["name"], stage["steps"]) for stage in record["stages"]] == planned
    assert record["began_from"]["stages"] == [name for name, _ in planned[:4]]
    assert record["recipe"] == json.loads(json.dumps(asdict(default_recipe())))


def test_transformers_answers_with_it_as_well_as_the_record_says() -> None:
    processor, model = _load()
    graded = [
        GradedAnswer(
            example.type,
            example.answer,
            _generate(processor, model, example.image, example.question),
        )
        for example in demo_examples(Split.HELD_OUT, NUM_QUESTIONS)
    ]
    record = json.loads((SHIPPED / "training-record.json").read_text())
    assert score(graded).high >= record["held_out"]["accuracy"]


def test_without_a_picture_it_refuses() -> None:
    processor, model = _load()
    for text in ("What color is the star?", "Who won the election?", "Hello!"):
        assert _generate(processor, model, None, text) == REFUSAL


def test_it_refuses_what_is_not_about_shapes() -> None:
    processor, model = _load()
    image = next(demo_examples(Split.HELD_OUT, 1)).image
    for text in ("Who won the election?", "What is the capital of France?", "Good evening!"):
        assert _generate(processor, model, image, text) == REFUSAL


@pytest.mark.parametrize("colour", BLANK)
def test_an_empty_picture_holds_nothing(colour: str | tuple[int, int, int]) -> None:
    processor, model = _load()
    blank = Image.new("RGB", (CANVAS, CANVAS), colour)
    assert _generate(processor, model, blank, "Describe the image.") == EMPTY_CAPTION
    assert _generate(processor, model, blank, "How many objects are there?") == "0"
    assert _generate(processor, model, blank, "Is there a red circle?") == "no"


def _load() -> tuple[Any, Any]:
    processor = AutoProcessor.from_pretrained(SHIPPED)
    return processor, LlavaForConditionalGeneration.from_pretrained(SHIPPED)


@torch.inference_mode()
def _generate(processor: Any, model: Any, image: Image.Image | None, question: str) -> str:
    parts: list[dict[str, str]] = [{"type": "text", "text": question}]
    if image is not None:
        parts.insert(0, {"type": "image"})
    prompt = processor.apply_chat_template(
        [{"role": "user", "content": parts}], add_generation_prompt=True
    )
    inputs = processor(images=image, text=prompt, return_tensors="pt").to(dtype=torch.bfloat16)
    tokens = model.generate(**inputs, max_new_tokens=40, do_sample=False)
    answer: str = processor.decode(
        tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True
    )
    return answer.strip()
