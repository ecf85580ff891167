"""Tests of where a chat template is found, against transformers' processor where it has one."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from skipserve.model.config import ModelFilesError
from skipserve.prompt.template_files import find_template

FILES = ("processor_config.json", "chat_template.json", "chat_template.jinja")
AMONG_OTHERS = "additional_chat_templates/default.jinja"


def write(folder: Path, name: str, template: Any) -> None:
    """Put a template into a file, beside what the file holds already."""
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".jinja":
        path.write_text(template)
        return
    fields = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(fields | {"chat_template": template}))


def found_in(folder: Path) -> str | None:
    found = find_template(folder)
    return None if found is None else found.text


@pytest.mark.fast
@pytest.mark.parametrize("name", [*FILES, AMONG_OTHERS, "tokenizer_config.json"])
def test_where_a_template_is_found(tmp_path: Path, name: str) -> None:
    write(tmp_path, name, "of " + name)
    found = find_template(tmp_path)
    assert found is not None
    assert (found.file, found.text) == (name, "of " + name)


@pytest.mark.fast
def test_a_folder_without_a_template(tmp_path: Path) -> None:
    assert find_template(tmp_path) is None


@pytest.mark.fast
def test_the_tokenizers_own_comes_last(tmp_path: Path) -> None:
    write(tmp_path, "tokenizer_config.json", "of the text model")
    write(tmp_path, "chat_template.jinja", "of the whole")
    assert found_in(tmp_path) == "of the whole"


@pytest.mark.parametrize("names", [FILES, FILES[1:], FILES[::2], FILES[2:]])
def test_of_several_files_the_one_that_transformers_takes(
    checkpoint: Path, tmp_path: Path, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    from transformers import LlavaProcessor  # noqa: PLC0415 (slow to import)

    folder = tmp_path / "model"
    shutil.copytree(checkpoint, folder)
    for name in names:
        write(folder, name, "of " + name)
    assert found_in(folder) == LlavaProcessor.from_pretrained(folder).chat_template


@pytest.mark.fast
@pytest.mark.parametrize(
    "template",
    [
        [{"name": "rag", "template": "no"}, {"name": "default", "template": "yes"}],
        {"default": "yes", "rag": "no"},
    ],
)
@pytest.mark.parametrize("name", ["tokenizer_config.json", "processor_config.json"])
def test_the_default_of_several(tmp_path: Path, name: str, template: Any) -> None:
    write(tmp_path, name, template)
    assert found_in(tmp_path) == "yes"


@pytest.mark.fast
@pytest.mark.parametrize(
    ("template", "message"),
    [
        (
            [{"name": "rag", "template": "x"}, {"name": "tool_use", "template": "y"}],
            "rag, tool_use",
        ),
        ({"rag": "x"}, "holds rag and no 'default'"),
        ([], "must be a text"),
        ({}, "must be a text"),
        (["x"], "must be a text"),
        ([{"default": "x"}], "must be a text"),
        (7, "must be a text"),
    ],
)
def test_several_without_a_default_or_of_no_form(
    tmp_path: Path, template: Any, message: str
) -> None:
    write(tmp_path, "tokenizer_config.json", template)
    with pytest.raises(ModelFilesError, match=message) as caught:
        find_template(tmp_path)
    assert "tokenizer_config.json" in str(caught.value)


@pytest.mark.fast
def test_the_default_among_others_comes_after_the_file_that_stands_alone(tmp_path: Path) -> None:
    write(tmp_path, AMONG_OTHERS, "among others")
    write(tmp_path, "chat_template.jinja", "alone")
    assert found_in(tmp_path) == "alone"


@pytest.mark.fast
def test_a_folder_of_templates_without_a_default(tmp_path: Path) -> None:
    """Though the tokenizer has one of its own, as transformers refuses it."""
    write(tmp_path, "tokenizer_config.json", "of the text model")
    write(tmp_path, "additional_chat_templates/rag.jinja", "x")
    with pytest.raises(ModelFilesError, match="additional_chat_templates holds rag and no"):
        find_template(tmp_path)


@pytest.mark.fast
def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ModelFilesError, match="cannot be read as text"):
        find_template(tmp_path)
