"""The mapping module against torch's own transformer encoder."""

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_llava import make_checkpoint, mapping_tensor_sizes
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from skipserve.model.config import ModelConfig, ModelFilesError
from skipserve.model.llava import Llava
from skipserve.model.projector import MappingModule
from skipserve_policies.flops import projector_flops
from skipserve_policies.sizes import MappingSizes

pytestmark = pytest.mark.fast

CPU = torch.device("cpu")
SIZES = MappingSizes(num_queries=3, hidden_size=16, num_layers=2, num_heads=2, ffn_size=24)
PARTS = {"attention": "self_attn", "ffn.up": "linear1", "ffn.down": "linear2"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path, mapping=SIZES)


def _module(model: Llava) -> MappingModule:
    module = model._vision._projector
    assert isinstance(module, MappingModule)
    return module


def _reference(folder: Path, features: Tensor) -> Tensor:
    """Read the module from the file, and run it as the paper draws it, in float64."""
    prefix = "multi_modal_projector."
    tensors = {
        name.removeprefix(prefix): tensor.double()
        for name, tensor in load_file(folder / "model.safetensors").items()
        if name.startswith(prefix)
    }
    layer = nn.TransformerEncoderLayer(
        16, 2, 24, dropout=0.0, batch_first=True, norm_first=True, dtype=torch.float64
    )
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    state = {}
    for name, tensor in tensors.items():
        if name.startswith("layers."):
            for ours, theirs in PARTS.items():
                name = name.replace(f".{ours}.", f".{theirs}.")  # noqa: PLW2901
            state[name] = tensor
    encoder.load_state_dict(state)

    def linear(name: str, x: Tensor) -> Tensor:
        return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

    queries = tensors["queries"].expand(len(features), -1, -1)
    states = encoder(torch.cat([linear("input", features.double()), queries], dim=1))
    return linear("to_llm", linear("output", states[:, -3:]))


def test_queries_read_the_features(folder: Path, device: torch.device) -> None:
    model = Llava.load(folder, device, torch.float32)
    features = torch.randn(2, 16, 32)
    rows = _module(model)(features.to(device)).cpu()
    with torch.inference_mode():
        expected = _reference(folder, features)
    assert rows.shape == (2, SIZES.num_queries, 64)
    assert (rows - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_picture_becomes_as_many_rows_as_there_are_queries(folder: Path) -> None:
    model = Llava.load(folder, CPU, torch.float32)
    pixels = torch.randint(0, 256, (2, 28, 28, 3), dtype=torch.uint8)
    rows = model.encode_images(pixels)
    assert rows.shape == (2, model.config.sizes.rows_per_image, 64)
    torch.testing.assert_close(rows[:1], model.encode_images(pixels[:1]), rtol=1e-5, atol=1e-5)
    assert not torch.allclose(rows[0], rows[1], atol=1e-3)


def test_what_is_counted_is_what_is_computed(folder: Path) -> None:
    model = Llava.load(folder, CPU, torch.float32)
    sizes = model.config.sizes
    rows = SIZES.num_queries + sizes.vision.num_features
    # torch does not count what the CPU's fused attention does.
    pairs = (SIZES.num_layers - 1) * rows**2 + SIZES.num_queries * rows
    with FlopCounterMode(display=False) as counter:
        _module(model)(torch.randn(1, sizes.vision.num_features, 32))
    assert counter.get_total_flops() + 4 * SIZES.hidden_size * pairs == projector_flops(sizes)


def test_the_papers_module_has_the_papers_size() -> None:
    sizes = mapping_tensor_sizes(MappingSizes(), feature_size=1024, hidden=4096)
    assert sum(math.prod(size) for _, size in sizes) == 7_362_048


@pytest.mark.parametrize(
    ("top_config", "message"),
    [
        ({"image_seq_length": 16}, "image_seq_length is 16, and num_query_tokens 3"),
        ({"projector_type": "pooler"}, "projector_type is 'pooler'; supported: mapping"),
        ({"projector_type": None}, "projector_type is None; supported: mapping"),
        ({"projector_type": ["mapping"]}, "projector_type is .* supported: mapping"),
        ({"num_query_tokens": 0}, "num_query_tokens must be a positive whole number"),
        ({"num_query_tokens": True, "image_seq_length": 1}, "num_query_tokens must be"),
        ({"projector_heads": 3}, "projector_heads is 3, which does not divide"),
        ({"model_type": "llava"}, "a model of type llava has none but mlp"),
    ],
    ids=str,
)
def test_a_configuration_that_contradicts_itself_is_refused(
    tmp_path: Path, top_config: dict[str, object], message: str
) -> None:
    make_checkpoint(tmp_path, mapping=SIZES, top_config=tuple(top_config.items()))
    with pytest.raises(ModelFilesError, match=message):
        ModelConfig.from_folder(tmp_path)


def test_what_the_configuration_leaves_out_is_as_in_the_paper(tmp_path: Path) -> None:
    silent = dict.fromkeys(
        (
            "num_query_tokens",
            "image_seq_length",
            "projector_hidden_size",
            "projector_layers",
            "projector_heads",
            "projector_ffn_size",
        )
    )
    make_checkpoint(tmp_path, mapping=SIZES, top_config=tuple(silent.items()))
    config = ModelConfig.from_folder(tmp_path)
    assert config.sizes.projector == MappingSizes(10, 256, 5, 8, 512)
    assert config.sizes.rows_per_image == 10


def test_tensors_of_another_size_are_named(folder: Path) -> None:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    tensors["multi_modal_projector.queries"] = torch.zeros(4, 16)
    save_file(tensors, file)
    with pytest.raises(ModelFilesError, match=r"multi_modal_projector\.queries .*\[4, 16\]"):
        Llava.load(folder, CPU, torch.float32)
