"""Batches of several sequences and plans on the real model: each gets what it gets alone."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_strategies import plans
from tiny_llava import make_checkpoint
from torch import Tensor

from skipserve.engine.inputs import build_batch
from skipserve.engine.sequence import Sequence
from skipserve.engine.types import Request, SamplingParams
from skipserve.model.decoder import KVCache
from skipserve.model.llava import Llava
from skipserve_policies.flops import prompt_classes
from skipserve_policies.plan import TokenClass, trim

pytestmark = pytest.mark.fast

NUM_LAYERS = 4
CPU = torch.device("cpu")
IMAGE_ID = 4
NUM_VISUAL = 16
HIDDEN = 64
NUM_STEPS = 3
SLOTS = 64


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Llava:
    folder = make_checkpoint(tmp_path_factory.mktemp("mixed"), num_layers=NUM_LAYERS)
    return Llava.load(folder, CPU, torch.float32)


@st.composite
def _requests(draw: st.DrawFn) -> Request:
    """Draw a prompt with a picture or without, a forced answer, and a plan."""
    num_before, num_after = draw(st.integers(0, 5)), draw(st.integers(1, 5))
    num_visual = draw(st.sampled_from([0, NUM_VISUAL]))
    classes = prompt_classes(
        [
            (TokenClass.TEXT, num_before),
            (TokenClass.VISUAL, num_visual),
            (TokenClass.TEXT, num_after),
        ]
    )
    text = draw(st.lists(st.integers(10, 250), min_size=10, max_size=10))
    ids = (
        *text[:num_before],
        *(IMAGE_ID,) * num_visual,
        *text[num_before : num_before + num_after],
    )
    plan = trim(draw(plans(NUM_LAYERS)))
    return Request("r", ids, classes, (), SamplingParams(9), "inline", plan)


def _run(model: Llava, requests: list[Request]) -> list[list[Tensor]]:
    """Return the logits of each request's steps; one request joins in each step."""
    cache = model.new_cache(SLOTS * len(requests))
    sequences = [Sequence(request, first_slot=SLOTS * i) for i, request in enumerate(requests)]
    logits: list[list[Tensor]] = [[] for _ in requests]
    for now in range(len(requests) + NUM_STEPS):
        active = [i for i in range(len(requests)) if 0 <= now - i < NUM_STEPS]
        if active:
            rows = _step(model, [sequences[i] for i in active], cache)
            for i, row in zip(active, rows, strict=True):
                logits[i].append(row)
    return logits


def _step(model: Llava, sequences: list[Sequence], cache: KVCache) -> Tensor:
    num_visual = sum(s.pending_prompt_ids.count(IMAGE_ID) for s in sequences)
    features = torch.linspace(-1, 1, NUM_VISUAL * HIDDEN).view(NUM_VISUAL, HIDDEN)
    batch = build_batch(
        sequences,
        image_token_id=IMAGE_ID,
        visual_features=features.repeat(num_visual // NUM_VISUAL, 1) if num_visual else None,
        device=CPU,
    )
    logits = model.forward(batch, cache)
    for sequence in sequences:
        sequence.num_computed = sequence.num_tokens
        # Chosen beforehand: a near tie would send two runs different ways.
        sequence.generated_ids.append(20 + len(sequence.generated_ids))
    return logits


@given(st.lists(_requests(), min_size=1, max_size=4))
@settings(max_examples=25)
def test_each_sequence_gets_what_it_gets_alone(model: Llava, requests: list[Request]) -> None:
    together = _run(model, requests)
    for request, mixed_steps in zip(requests, together, strict=True):
        (alone_steps,) = _run(model, [request])
        for alone, mixed in zip(alone_steps, mixed_steps, strict=True):
            assert (alone - mixed).abs().max() <= 1e-4 * alone.abs().max()
