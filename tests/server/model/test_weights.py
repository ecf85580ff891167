"""Reading weight files: names, shards, damage."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_llava import Naming, make_checkpoint
from torch import Tensor

from skipserve.model.config import ModelFilesError
from skipserve.model.llava import Llava
from skipserve.model.weights import Weights, stored_dtype, weight_files, weights_digest

pytestmark = pytest.mark.fast

CPU = torch.device("cpu")
UP = "decoder.layers.0.mlp.up_proj.weight"


def open_weights(folder: Path, dtype: torch.dtype = torch.float32) -> Weights:
    return Weights(folder, CPU, dtype, arithmetic=dtype)


def change(folder: Path, edit: Callable[[dict[str, Tensor]], object]) -> None:
    """Rewrite the only weight file of a checkpoint."""
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


@pytest.mark.parametrize("naming", Naming)
@pytest.mark.parametrize("num_shards", [1, 3])
def test_all_names_and_files_give_the_same_tensors(
    tmp_path: Path, naming: Naming, num_shards: int
) -> None:
    make_checkpoint(tmp_path / "published")
    make_checkpoint(tmp_path / "other", naming=naming, num_shards=num_shards)
    expected = load_file(tmp_path / "published" / "model.safetensors")
    name = "language_model.model.layers.0.mlp.up_proj.weight"
    with open_weights(tmp_path / "other") as weights:
        assert torch.equal(weights.take(UP, 176, 64), expected[name])
        weights.take("head.weight", 320, 64)
        weights.take("vision.encoder.layers.0.mlp.fc1.bias", 64)
        weights.take("projector.linear_1.weight", 64, 32)


def test_a_tensor_is_rounded_and_then_widened(tmp_path: Path) -> None:
    make_checkpoint(tmp_path)
    with open_weights(tmp_path) as exact:
        expected = exact.take(UP, 176, 64).bfloat16()
    with Weights(tmp_path, CPU, torch.bfloat16, arithmetic=torch.float32) as weights:
        taken = weights.take(UP, 176, 64)
    assert taken.dtype is torch.float32
    assert torch.equal(taken, expected.float())


def test_a_missing_tensor_is_refused(tmp_path: Path) -> None:
    make_checkpoint(tmp_path)
    change(tmp_path, lambda t: t.pop("language_model.model.layers.2.mlp.up_proj.weight"))
    with pytest.raises(ModelFilesError, match=r"no tensor decoder\.layers\.2\.mlp\.up_proj"):
        Llava.load(tmp_path, CPU, torch.float32)


def test_a_tensor_of_another_shape_is_refused(tmp_path: Path) -> None:
    make_checkpoint(tmp_path)
    change(tmp_path, lambda t: t.update({"language_model.model.norm.weight": torch.ones(63)}))
    with pytest.raises(ModelFilesError, match=r"\[63\].*asks for \[64\]"):
        Llava.load(tmp_path, CPU, torch.float32)


@pytest.mark.parametrize(
    "name",
    ["language_model.model.layers.4.mlp.up_proj.weight", "vision_tower.more", "image_newline"],
)
def test_a_tensor_without_a_use_is_refused(tmp_path: Path, name: str) -> None:
    make_checkpoint(tmp_path)
    change(tmp_path, lambda t: t.update({name: torch.ones(2)}))
    with pytest.raises(ModelFilesError, match=name):
        Llava.load(tmp_path, CPU, torch.float32)


def test_derived_tables_are_ignored(tmp_path: Path) -> None:
    make_checkpoint(tmp_path)
    tables = {
        "language_model.model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8),
        "vision_tower.vision_model.embeddings.position_ids": torch.arange(17),
    }
    change(tmp_path, lambda t: t.update(tables))
    Llava.load(tmp_path, CPU, torch.float32)


def test_what_the_used_vision_layers_do_not_need_may_be_absent(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, vision_layers=3, feature_layer=-2)

    def edit(tensors: dict[str, Tensor]) -> None:
        for name in list(tensors):
            if "post_layernorm" in name or "vision_model.encoder.layers.2" in name:
                del tensors[name]

    change(tmp_path, edit)
    Llava.load(tmp_path, CPU, torch.float32)


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn, torch.int32])
def test_numbers_that_mean_something_without_scales_are_refused(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    make_checkpoint(tmp_path)
    key = "language_model.model.layers.1.mlp.up_proj.weight"
    change(tmp_path, lambda t: t.update({key: torch.ones(176, 64).to(dtype)}))
    with pytest.raises(ModelFilesError, match=rf"1 tensors .*{re.escape(key)}: quantised") as told:
        Llava.load(tmp_path, CPU, torch.float32)
    assert "\n" not in str(told.value)


def test_packed_weights_are_told_by_their_type_and_not_by_their_shape(tmp_path: Path) -> None:
    """As bitsandbytes packs them, in a checkpoint whose configuration says nothing."""
    make_checkpoint(tmp_path)
    name = "language_model.model.layers.1.mlp.up_proj.weight"

    def pack(tensors: dict[str, Tensor]) -> None:
        tensors[name] = torch.zeros(176 * 64 // 2, 1, dtype=torch.uint8)
        tensors[f"{name}.absmax"] = torch.ones(176)

    change(tmp_path, pack)
    with pytest.raises(ModelFilesError, match=r"U8.*quantised weights are not supported"):
        Llava.load(tmp_path, CPU, torch.float32)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_all_types_of_plain_numbers_are_read(tmp_path: Path, dtype: torch.dtype) -> None:
    make_checkpoint(tmp_path, dtype=dtype)
    assert stored_dtype(tmp_path) == str(dtype).removeprefix("torch.")
    with open_weights(tmp_path) as weights:
        assert weights.take(UP, 176, 64).dtype is torch.float32


def test_one_file_goes_before_an_index(tmp_path: Path) -> None:
    """As in transformers: the index is left over from before the files were joined."""
    make_checkpoint(tmp_path, num_shards=2)
    make_checkpoint(tmp_path)
    assert [file.name for file in weight_files(tmp_path)] == ["model.safetensors"]


def test_two_names_of_one_tensor_are_refused(tmp_path: Path) -> None:
    make_checkpoint(tmp_path)
    change(tmp_path, lambda t: t.update({"lm_head.weight": torch.ones(320, 64)}))
    with pytest.raises(ModelFilesError, match="are the same"):
        open_weights(tmp_path)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelFilesError, match="convert them to safetensors"):
        weight_files(tmp_path)


def test_weights_of_another_name_are_named(tmp_path: Path) -> None:
    (tmp_path / "consolidated.safetensors").write_bytes(b"")
    with pytest.raises(
        ModelFilesError, match=r"no model\.safetensors .*; consolidated\.safetensors"
    ):
        weight_files(tmp_path)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFilesError, match=r"no model\.safetensors in"):
        weight_files(tmp_path)


def test_a_missing_shard_is_refused(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, num_shards=3)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(ModelFilesError, match="no model-00002-of-00003"):
        weight_files(tmp_path)


@pytest.mark.parametrize(
    "index",
    [
        *("{", "{}", "[]", "[" * 100_000, '{"weight_map": {}}', '{"weight_map": ["a"]}'),
        *('{"weight_map": {"a": 3}}', '{"weight_map": {"a": "../a.safetensors"}}'),
    ],
)
def test_a_damaged_index_is_refused(tmp_path: Path, index: str) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(ModelFilesError, match="index"):
        weight_files(tmp_path)


@pytest.mark.parametrize("kept", [0, 7, 1000])
def test_a_damaged_weight_file_is_refused(tmp_path: Path, kept: int) -> None:
    make_checkpoint(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(ModelFilesError, match="cannot be read as safetensors"):
        open_weights(tmp_path)


def test_the_digest_is_that_of_all_bytes_in_order(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, num_shards=2)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    files = sorted(set(index["weight_map"].values()))
    joined = b"".join((tmp_path / file).read_bytes() for file in files)
    assert weights_digest(tmp_path) == hashlib.sha256(joined).hexdigest()
