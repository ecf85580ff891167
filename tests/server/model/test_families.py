"""Tests of which families of models can be loaded."""

from pathlib import Path

import pytest
import torch
from tiny_llava import make_checkpoint

from skipserve.model.config import ModelFilesError
from skipserve.model.families import load_model
from skipserve.model.llava import Llava

pytestmark = pytest.mark.fast

CPU = torch.device("cpu")


def test_the_model_type_says_which_family_it_is(tmp_path: Path) -> None:
    model = load_model(make_checkpoint(tmp_path), CPU, torch.float32)
    assert isinstance(model, Llava)
    assert model.weights_digest


@pytest.mark.parametrize("kind", ["llava_next", None, ["llava"]])
def test_another_family_is_refused(tmp_path: Path, kind: object) -> None:
    folder = make_checkpoint(tmp_path, top_config=(("model_type", kind),))
    with pytest.raises(ModelFilesError, match=r"model_type is .*; supported: llava"):
        load_model(folder, CPU, torch.float32)
