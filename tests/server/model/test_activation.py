"""Activations by name."""

from typing import Any

import pytest
import torch
from transformers.activations import ACT2FN

from skipserve.model.activation import activation_function
from skipserve.model.config import ModelFilesError

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("name", sorted(set(ACT2FN) - {"prelu", "xielu"}))
def test_what_transformers_knows_is_known(name: str) -> None:
    x = torch.linspace(-2, 2, 9)
    assert torch.equal(activation_function("act", name)(x), ACT2FN[name](x))


@pytest.mark.parametrize("name", ["prelu"])
def test_what_would_be_drawn_at_random_is_refused(name: str) -> None:
    with pytest.raises(ModelFilesError, match=f"act is '{name}', which has weights of its own"):
        activation_function("act", name)


@pytest.mark.parametrize("name", ["step", "", None, 1, ["relu"], {"relu": 1}])
def test_what_transformers_does_not_know_is_refused(name: Any) -> None:
    with pytest.raises(ModelFilesError, match=r"act is .*, which transformers does not know"):
        activation_function("act", name)
