"""Random weights are the same for the same name, and make a model that works."""

import pytest
import torch
from contenders import OurEngine, Transformers
from questions import QuestionSource
from random_weights import SHAPES, RandomWeights, model_config, transformers_model, with_layers
from timing import agreement, time_set

from skipserve.engine.engine import Engine
from skipserve.model.llava import Llava
from skipserve_policies.sizes import KNOWN_MODELS

pytestmark = pytest.mark.fast

CPU = torch.device("cpu")


def test_a_name_has_one_tensor() -> None:
    weights = RandomWeights(CPU, torch.float32)
    first, again, other = (weights.take(f"{name}.weight", 8, 4) for name in "aab")
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_matrices_keep_sizes_and_gains_are_near_one() -> None:
    weights = RandomWeights(CPU, torch.float32)
    matrix = weights.take("decoder.layers.0.mlp.up_proj.weight", 500, 400)
    assert matrix.norm(dim=1).mean() == pytest.approx(1, rel=0.05)
    assert weights.take("decoder.norm.weight", 1000).mean() == pytest.approx(1, abs=0.02)


def test_wide_weights_hold_rounded_numbers() -> None:
    wide = RandomWeights(CPU, torch.float32, rounding=torch.bfloat16).take("a.weight", 9, 9)
    narrow = RandomWeights(CPU, torch.bfloat16).take("a.weight", 9, 9)
    assert wide.dtype is torch.float32
    assert torch.equal(wide, narrow.float())


def test_the_large_shape_is_that_of_llava() -> None:
    sizes, known = model_config(SHAPES["7b"]).sizes, KNOWN_MODELS["llava-1.5-7b"]
    assert sizes.vision == known.vision
    assert sizes.decoder.vocab_size == 32064
    assert sizes.decoder.hidden_size == known.decoder.hidden_size
    assert model_config(SHAPES["7b"]).image_token_id == 32000
    assert model_config(with_layers(SHAPES["7b"], 3)).sizes.decoder.num_layers == 3


def test_transformers_has_the_same_model() -> None:
    shape = with_layers(SHAPES["tiny"], 2)
    weights, config = RandomWeights(CPU, torch.float32), model_config(shape)
    questions = [QuestionSource(config, seed).question(9, 4) for seed in range(3)]
    ours = OurEngine(Engine(Llava.assemble(config, weights)), 3)
    theirs = Transformers(transformers_model(shape, weights), 3)
    assert agreement([time_set(ours, questions)], [time_set(theirs, questions)]) == 1
