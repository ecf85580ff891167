"""What is written beside the language model, joined with it: does it load, and what refuses it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from jinja2.sandbox import ImmutableSandboxedEnvironment
from safetensors.torch import load_file
from tiny_language import IMAGE_ID, save_llama
from transformers import AutoConfig, AutoProcessor, LlavaForConditionalGeneration

from skipserve.pretrained.joining import TRAINED_WEIGHTS, join
from skipserve_client.evaluate.easy_vqa import EasySplit
from skipserve_policies.sizes import MappingSizes
from skipserve_training.mapping.encoders import TransformersEncoder
from skipserve_training.mapping.export import CHAT_TEMPLATE, export_trained
from skipserve_training.mapping.language import load_language_model, load_tokenizer
from skipserve_training.mapping.lessons import Exchange, PromptForm
from skipserve_training.mapping.packing import pack
from skipserve_training.mapping.projectors import ProjectorType, make_projector
from skipserve_training.mapping.tower import LabelledTower, TowerSizes
from skipserve_training.mapping.tower_export import FEATURE_LAYER, export_tower
from skipserve_training.mapping.training import answer

SIZES = TowerSizes(hidden=32, ffn=48, layers=1, heads=1, side=32, patch=8)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of a tower and of a language model."""
    torch.manual_seed(0)
    encoder = tmp_path_factory.mktemp("encoder")
    export_tower(LabelledTower(SIZES), encoder)
    return encoder, save_llama(tmp_path_factory.mktemp("llama"))


def _export(kind: ProjectorType, parts: tuple[Path, Path], folder: Path) -> Any:
    torch.manual_seed(1)
    sizes = MappingSizes(num_queries=3, hidden_size=16, num_layers=1, num_heads=2, ffn_size=16)
    projector = make_projector(kind, 32, 32, sizes).bfloat16().float()
    export_trained(projector, *parts, IMAGE_ID, folder)
    return projector


def test_transformers_answers_as_the_training_does(
    parts: tuple[Path, Path], easy_split: EasySplit, tmp_path: Path
) -> None:
    projector = _export(ProjectorType.MLP, parts, tmp_path / "trained")
    join(tmp_path / "trained", parts[1], tmp_path)
    loaded: Any = LlavaForConditionalGeneration.from_pretrained(
        tmp_path, output_loading_info=True, dtype=torch.float32
    )
    model, report = loaded
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    processor = AutoProcessor.from_pretrained(tmp_path)
    image = easy_split.load(0)
    messages = [
        {
            "role": "user",
            "content": [{"type": "image"}, {"type": "text", "text": "what color is the shape?"}],
        }
    ]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    inputs = processor(images=image, text=text, return_tensors="pt")
    with torch.inference_mode():
        expected = model(**inputs).logits[0, -1]

    encoder = TransformersEncoder(parts[0], CPU, FEATURE_LAYER, keeps_class=False)
    language = load_language_model(parts[1], torch.float32, CPU)
    prompts = PromptForm(load_tokenizer(parts[1]), projector.rows(16), ["x"])
    example = prompts.example(Exchange("what color is the shape?", "r", "x"))
    seen: list[torch.Tensor] = []
    original = language.logits
    language.logits = lambda hidden: seen.append(original(hidden)) or seen[-1]  # type: ignore[func-returns-value,method-assign]
    answer(language, projector, encoder.encode([image]), pack([[example]]))
    torch.testing.assert_close(seen[0][0], expected, rtol=1e-4, atol=1e-4)


def test_transformers_refuses_the_mapping_modules_type_by_name(
    parts: tuple[Path, Path], tmp_path: Path
) -> None:
    _export(ProjectorType.MAPPING, parts, tmp_path)
    with pytest.raises(ValueError, match="skipserve_llava"):
        AutoConfig.from_pretrained(tmp_path)


@pytest.mark.fast
def test_the_mapping_module_says_what_it_is(parts: tuple[Path, Path], tmp_path: Path) -> None:
    _export(ProjectorType.MAPPING, parts, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["projector_type"] == "mapping"
    assert config["num_query_tokens"] == config["image_seq_length"] == 3
    assert config["projector_hidden_size"] == 16
    assert "projector_hidden_act" not in config
    tensors = load_file(tmp_path / TRAINED_WEIGHTS)
    assert {name.split(".")[0] for name in tensors} == {"vision_tower", "multi_modal_projector"}
    assert {value.dtype for value in tensors.values()} == {torch.bfloat16}
    names = {line.split()[1] for line in (tmp_path / "SHA256SUMS").read_text().splitlines()}
    assert names == {path.name for path in tmp_path.iterdir()} - {"SHA256SUMS"}


@pytest.mark.fast
@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([{"role": "user", "content": "Is it red?"}], "Question: Is it red? Answer:"),
        (
            [
                {"role": "system", "content": "Be short."},
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "What?"}, {"type": "image"}],
                },
                {"role": "assistant", "content": "red"},
                {"role": "user", "content": "And now?"},
            ],
            "Be short.\n<image>Question: What? Answer: red</s>\nQuestion: And now? Answer:",
        ),
    ],
)
def test_the_chat_template(messages: list[dict[str, object]], expected: str) -> None:
    template = ImmutableSandboxedEnvironment().from_string(CHAT_TEMPLATE)
    given = template.render(messages=messages, add_generation_prompt=True, eos_token="</s>")
    assert given == expected
