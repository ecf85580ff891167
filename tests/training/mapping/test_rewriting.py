"""A checkpoint written anew."""

import errno
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_llava import make_checkpoint
from torch import Tensor

from skipserve_training.mapping.rewriting import rewrite

pytestmark = pytest.mark.fast


def test_tensors_are_changed_by_name_and_the_rest_is_copied(tmp_path: Path) -> None:
    source, folder = make_checkpoint(tmp_path / "source", num_shards=2), tmp_path / "new"
    measured = ("README.md", "skip-quality.json", "SHA256SUMS", "fetched-from.txt")
    for name in (*measured, "training-record.json"):
        (source / name).write_text("{}")

    def double(name: str, value: Tensor) -> Tensor:
        return 2 * value if name == "decoder.layers.1.mlp.up_proj.weight" else value

    rewrite(source, folder, double)
    for file in source.glob("*.safetensors"):
        new = load_file(folder / file.name)
        for name, value in load_file(file).items():
            factor = 2 if name == "language_model.model.layers.1.mlp.up_proj.weight" else 1
            assert torch.equal(new[name], factor * value)
        is_changed = any(not torch.equal(new[name], it) for name, it in load_file(file).items())
        assert (folder / file.name).samefile(file) is not is_changed
        if is_changed:
            assert (folder / file.name).stat().st_mode & 0o777 == 0o644
    left_out = {*measured, "training-record.json"}
    assert {it.name for it in folder.iterdir()} == {it.name for it in source.iterdir()} - left_out
    index = "model.safetensors.index.json"
    assert (folder / index).read_bytes() == (source / index).read_bytes()


def test_a_second_run_leaves_the_source_alone(tmp_path: Path) -> None:
    """What has a second name is written anew under another, and not through it."""
    source, folder = make_checkpoint(tmp_path / "source"), tmp_path / "new"
    before = (source / "model.safetensors").read_bytes()
    rewrite(source, folder, lambda name, value: value)
    assert (folder / "model.safetensors").samefile(source / "model.safetensors")
    rewrite(source, folder, lambda name, value: value + 1)
    assert (source / "model.safetensors").read_bytes() == before
    assert (folder / "model.safetensors").read_bytes() != before


def test_files_are_copied_where_no_second_name_can_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*paths: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    source = make_checkpoint(tmp_path / "source")
    rewrite(source, tmp_path / "new", lambda name, value: value)
    copy = tmp_path / "new" / "model.safetensors"
    assert copy.read_bytes() == (source / "model.safetensors").read_bytes()
    assert not copy.samefile(source / "model.safetensors")
