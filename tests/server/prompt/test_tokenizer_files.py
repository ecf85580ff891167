"""Tests of what the files of a tokenizer say together, against transformers' tokenizer."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from tokenizer_forms import llama_like, metaspace
from tokenizers import Tokenizer

from skipserve.model.config import ModelFilesError
from skipserve.prompt.tokenizer_files import TokenizerFilesError, read_tokenizer_files

NAMES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
MARK = {"content": "<mark>", "special": False, "lstrip": True, "normalized": False}


def without_image() -> str:
    """Return a definition that has lost its image token."""
    fields = json.loads(llama_like().to_str())
    fields["added_tokens"] = [t for t in fields["added_tokens"] if t["content"] != "<image>"]
    return json.dumps(fields)


def make_folder(folder: Path, definition: str, files: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(definition)
    for name, fields in files.items():
        (folder / name).write_text(json.dumps(fields))
    return folder


FOLDERS: dict[str, dict[str, Any]] = {
    "complete": {"tokenizer_config.json": NAMES},
    "listed": {
        "tokenizer_config.json": NAMES
        | {"added_tokens_decoder": {"263": MARK, "262": {"content": "<image>", "special": True}}}
    },
    "named": {"tokenizer_config.json": NAMES | {"image_token": "<image>"}},
    "extra": {
        "tokenizer_config.json": NAMES | {"extra_special_tokens": {"image_token": "<image>"}}
    },
    "additional": {
        "tokenizer_config.json": NAMES | {"additional_special_tokens": ["<image>", "<mark>"]}
    },
    "older": {
        "tokenizer_config.json": NAMES,
        "added_tokens.json": {"<mark>": 263, "<image>": 262},
        "special_tokens_map.json": {"additional_special_tokens": ["<image>"]},
    },
    "older_that_does_not_count": {
        "tokenizer_config.json": NAMES | {"added_tokens_decoder": {}},
        "added_tokens.json": {"<image>": 262},
        "special_tokens_map.json": {"eos_token": "<unk>"},
    },
    "mapped": {
        "tokenizer_config.json": {"bos_token": "<unk>"},
        "special_tokens_map.json": {"bos_token": {"content": "<s>"}, "eos_token": "</s>"},
    },
}


@pytest.mark.parametrize("files", FOLDERS.values(), ids=FOLDERS)
def test_tokens_are_those_of_transformers(
    tmp_path: Path, files: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    from transformers import AutoTokenizer  # noqa: PLC0415 (slow to import)

    folder = make_folder(tmp_path, without_image(), files)
    (folder / "config.json").write_text('{"model_type": "llava"}')
    theirs = AutoTokenizer.from_pretrained(folder)
    read = read_tokenizer_files(folder)
    ours = Tokenizer.from_str(read.definition)
    text = "a <image> b <mark></s>"
    assert ours.encode(text).ids == theirs(text)["input_ids"]
    assert read.added == {i: str(token) for i, token in theirs.added_tokens_decoder.items()}
    for key in ("bos_token", "eos_token"):
        assert read.names.get(key) == getattr(theirs, key)


@pytest.mark.fast
def test_flags_are_no_names(tmp_path: Path) -> None:
    config = {"add_bos_token": True, "bos_token": None, "eos_token": {"content": "</s>"}}
    folder = make_folder(tmp_path, llama_like().to_str(), {"tokenizer_config.json": config})
    assert read_tokenizer_files(folder).names == {"eos_token": "</s>"}


@pytest.mark.fast
def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(TokenizerFilesError, match=r"no tokenizer\.json"):
        read_tokenizer_files(tmp_path)


@pytest.mark.fast
@pytest.mark.parametrize("definition", ["{}", "version https://git-lfs.github.com/spec/v1", ""])
def test_a_damaged_tokenizer(tmp_path: Path, definition: str) -> None:
    with pytest.raises(TokenizerFilesError, match="cannot be read"):
        read_tokenizer_files(make_folder(tmp_path, definition, {}))


@pytest.mark.fast
@pytest.mark.parametrize("listed", [{"x": MARK}, {"3": {}}, {"3": "<image>"}, [1]])
def test_damaged_tokens(tmp_path: Path, listed: Any) -> None:
    files = {"tokenizer_config.json": {"added_tokens_decoder": listed}}
    with pytest.raises(TokenizerFilesError, match="cannot be read"):
        read_tokenizer_files(make_folder(tmp_path, metaspace("first").to_str(), files))


@pytest.mark.fast
def test_a_damaged_file_beside_it(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, llama_like().to_str(), {})
    (folder / "tokenizer_config.json").write_text("{")
    with pytest.raises(ModelFilesError, match=r"tokenizer_config\.json"):
        read_tokenizer_files(folder)
