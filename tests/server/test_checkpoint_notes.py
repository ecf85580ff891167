"""What is told of a checkpoint's files when it starts."""

import json
from pathlib import Path
from typing import Any

import pytest
from media_models import AST, TIMESFORMER, VIT, make_media_model
from tiny_llava import DecoderType, TowerType, make_checkpoint

from skipserve.checkpoint_notes import checkpoint_notes
from skipserve.model.config import ModelConfig

pytestmark = pytest.mark.fast


def notes_of(folder: Path) -> list[str]:
    return checkpoint_notes(folder, ModelConfig.from_folder(folder))


def edit(file: Path, **changes: Any) -> None:
    """Change fields of a JSON file; those of None go."""
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def test_nothing_is_told_of_a_complete_checkpoint(tmp_path: Path) -> None:
    assert notes_of(make_checkpoint(tmp_path)) == []


@pytest.mark.parametrize(
    ("name", "notes"),
    [
        ("chat_template.jinja", ["there is no chat template: that of LLaVA-1.5 stands in"]),
        ("generation_config.json", ["no generation_config.json: the end tokens are those of"]),
        ("tokenizer_config.json", ["no tokenizer_config.json: the special tokens are those that"]),
        (
            "processor_config.json",
            [
                "no image processor, in processor_config.json or preprocessor_config.json: "
                "pictures are prepared as for LLaVA-1.5, at 28 x 28"
            ],
        ),
    ],
)
def test_one_line_says_what_stands_in_for_what_is_missing(
    tmp_path: Path, name: str, notes: list[str]
) -> None:
    (make_checkpoint(tmp_path) / name).unlink()
    told = notes_of(tmp_path)
    assert len(told) == len(notes)
    for line, note in zip(told, notes, strict=True):
        assert note in line


@pytest.mark.parametrize(
    ("kind", "note"),
    [
        (VIT, "pictures are prepared as for ViT, at 16 x 16"),
        (TIMESFORMER, "pictures are prepared as for ViT, at 16 x 16"),
        (AST, "there is no feature extractor, in processor_config.json or preprocessor_config"),
    ],
)
def test_encoders_of_other_kinds_have_stand_ins_of_their_own(
    kind: str, note: str, tmp_path: Path
) -> None:
    folder = make_media_model(tmp_path / "model", kind)
    written = ModelConfig.from_folder(folder).processor
    (folder / "preprocessor_config.json").unlink()
    assert ModelConfig.from_folder(folder).processor == written
    assert any(note in line for line in notes_of(folder))


@pytest.mark.parametrize("name", ["tokenizer_config.json", "processor_config.json"])
@pytest.mark.parametrize("template", ["{{ 1 }}", [{"name": "default", "template": "{{ 1 }}"}]])
def test_a_template_inside_another_file_is_one(tmp_path: Path, name: str, template: object) -> None:
    (make_checkpoint(tmp_path) / "chat_template.jinja").unlink()
    edit(tmp_path / name, chat_template=template)
    assert notes_of(tmp_path) == []


def test_the_older_file_of_the_image_processor_is_enough(tmp_path: Path) -> None:
    make_checkpoint(tmp_path)
    newer = tmp_path / "processor_config.json"
    nested = json.loads(newer.read_text())["image_processor"]
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(nested))
    edit(newer, image_processor=None)
    assert notes_of(tmp_path) == []
    newer.unlink()
    (note,) = notes_of(tmp_path)
    assert note == "there is no processor_config.json: config.json says what an image becomes"


def test_fields_without_a_meaning_are_named(tmp_path: Path) -> None:
    make_checkpoint(tmp_path)
    edit(
        tmp_path / "processor_config.json",
        image_processor={"size": 28, "crop_size": 28, "image_maen": 0, "do_flip": True},
    )
    (note,) = notes_of(tmp_path)
    assert note.endswith("have no effect: do_flip, image_maen")


def test_an_older_file_that_is_not_followed_is_told(tmp_path: Path) -> None:
    make_checkpoint(tmp_path)
    older = {"resample": 2, "image_mean": [0, 0, 0], "do_resize": True}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(older))
    (note,) = notes_of(tmp_path)
    assert "differ in image_mean, resample: the latter is followed" in note


def test_what_generation_would_do_besides_is_told(tmp_path: Path) -> None:
    file = make_checkpoint(tmp_path) / "generation_config.json"
    edit(file, repetition_penalty=1.0, min_length=0, suppress_tokens=[], temperature=0.2)
    assert notes_of(tmp_path) == []
    edit(file, repetition_penalty=1.2, suppress_tokens=[7])
    assert notes_of(tmp_path) == [
        "generation_config.json sets repetition_penalty, suppress_tokens: not followed"
    ]


def test_a_context_that_is_cut_to_a_window_is_told(tmp_path: Path) -> None:
    """As bakLlava's: its configuration says nothing of the window, which is Mistral's default."""
    text = (("max_position_embeddings", 32768),)
    make_checkpoint(tmp_path, num_layers=1, decoder=DecoderType.MISTRAL, text_config=text)
    assert notes_of(tmp_path) == [
        "attention slides over 4,096 positions (sliding_window in config.json), which is not "
        "computed here: the context is cut to them, from 32,768"
    ]


def test_pictures_are_prepared_for_the_tower_where_no_file_says_how(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, tower=TowerType.SIGLIP, select_strategy="full")
    (tmp_path / "processor_config.json").unlink()
    (note,) = notes_of(tmp_path)
    assert note.endswith("pictures are prepared as for SigLIP, at 28 x 28")


def test_a_type_that_is_not_run_is_told(tmp_path: Path) -> None:
    edit(make_checkpoint(tmp_path) / "config.json", dtype="float64")
    assert notes_of(tmp_path) == ["config.json declares float64, which is run as float32"]
