"""A checkpoint written anew."""

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
        assert (folder / file.name).stat().st_mode & 0o777 == 0o644
    left_out = {*measured, "training-record.json"}
    assert {it.name for it in folder.iterdir()} == {it.name for it in source.iterdir()} - left_out
    index = "model.safetensors.index.json"
    assert (folder / index).read_bytes() == (source / index).read_bytes()
