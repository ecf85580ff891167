"""Batches against a plain reading of the plans, row by row."""

from dataclasses import fields, replace

import pytest
import torch
from fake_decoder import EOS_ID, IMAGE_ID, NUM_LAYERS, VOCAB, FakeDecoder, make_request
from hypothesis import given
from hypothesis import strategies as st
from model_batches import row_does
from plan_strategies import plans
from torch import Tensor

from skipserve.engine.inputs import build_batch
from skipserve.engine.sequence import Sequence
from skipserve.model.batch import Batch, Every, LayerRows, RowSet
from skipserve_policies.plan import TokenClass, trim

pytestmark = pytest.mark.fast

CPU = torch.device("cpu")


def _build(sequences: list[Sequence], features: Tensor | None = None) -> Batch:
    return build_batch(sequences, image_token_id=IMAGE_ID, visual_features=features, device=CPU)


def _rows(rows: RowSet, num_rows: int) -> list[int]:
    if isinstance(rows, Every):
        return list(range(num_rows)) if rows is Every.ALL else []
    assert rows.dtype == torch.int64
    assert 0 < len(rows) < num_rows, "a set that needs no index has one"
    return rows.tolist()


@st.composite
def _sequences(draw: st.DrawFn) -> list[Sequence]:
    """Draw some sequences in any state, each with a plan of its own."""
    drawn = []
    first_slot = 0
    for i in range(draw(st.integers(1, 4))):
        plan = draw(plans(NUM_LAYERS))
        request = make_request(
            str(i),
            num_text=draw(st.integers(0, 4)),
            num_images=draw(st.integers(0, 2)),
            plan=trim(plan) if draw(st.booleans()) else plan,
        )
        generated = draw(st.lists(st.integers(0, VOCAB - 1), max_size=3))
        num_known = request.num_prompt + len(generated)
        num_computed = draw(st.sampled_from([0, request.num_prompt - 1, num_known - 1]))
        drawn.append(
            Sequence(
                request, first_slot=first_slot, generated_ids=generated, num_computed=num_computed
            )
        )
        first_slot += num_known
    return drawn


@given(_sequences())
def test_each_row_does_what_its_plan_says(sequences: list[Sequence]) -> None:
    batch = _build(sequences)
    rows = [(s.request.plan, c) for s in sequences for c in s.pending_classes]
    for layer, layer_rows in enumerate(batch.layers):
        wanted = [row_does(plan, layer, token_class) for plan, token_class in rows]
        for name in (field.name for field in fields(LayerRows)):
            expected = [row for row, work in enumerate(wanted) if work[name]]
            assert _rows(getattr(layer_rows, name), len(rows)) == expected


@given(_sequences())
def test_layers_that_do_the_same_share_one_object(sequences: list[Sequence]) -> None:
    batch = _build(sequences)
    pairs = {(s.request.plan, c) for s in sequences for c in s.pending_classes}
    columns = [
        tuple(tuple(row_does(plan, layer, c).values()) for plan, c in pairs)
        for layer in range(NUM_LAYERS)
    ]
    assert len({id(rows) for rows in batch.layers}) == len(set(columns))


@given(_sequences())
def test_rows_know_their_place(sequences: list[Sequence]) -> None:
    batch = _build(sequences)
    assert batch.token_ids.tolist() == [i for s in sequences for i in s.pending_ids]
    for span, sequence in zip(batch.spans, sequences, strict=True):
        positions = list(range(sequence.num_computed, sequence.num_tokens))
        assert span.num_cached == sequence.num_computed
        assert batch.positions[span.start : span.stop].tolist() == positions
        slots = batch.slots[span.start : span.stop] - sequence.first_slot
        assert slots.tolist() == positions
    assert batch.logit_rows.tolist() == [span.stop - 1 for span in batch.spans]
    assert batch.spans[-1].stop == len(batch.token_ids)


def test_visual_rows_are_those_of_the_prompt() -> None:
    """An image may end the prompt, and an answer may hold an image token, which shows nothing."""
    asking = make_request(num_text=1, num_images=1)
    ending = replace(
        asking, prompt_ids=(5, 6, 7, *(IMAGE_ID,) * 4), token_classes=asking.token_classes
    )
    answering = Sequence(asking, num_computed=7, generated_ids=[IMAGE_ID])
    batch = _build([Sequence(asking), answering, Sequence(ending)])
    assert batch.visual_rows.tolist() == [1, 2, 3, 4, 8 + 3, 8 + 4, 8 + 5, 8 + 6]
    assert batch.visual_rows.dtype == torch.int64


def test_a_batch_without_images_has_no_visual_rows() -> None:
    batch = _build([Sequence(make_request())])
    assert batch.visual_rows.tolist() == []
    assert batch.visual_features is None


def test_the_first_row_is_the_last_token_of_one() -> None:
    request = replace(make_request(), prompt_ids=(EOS_ID,), token_classes=(TokenClass.LAST,))
    batch = _build([Sequence(request)])
    assert batch.logit_rows.tolist() == [0]


@given(_sequences())
def test_a_mixed_batch_computes_what_each_sequence_computes_alone(
    sequences: list[Sequence],
) -> None:
    model = FakeDecoder()
    prompts = [Sequence(s.request, first_slot=64 * i) for i, s in enumerate(sequences)]
    cache = model.new_cache(64 * len(prompts))
    features = _features(model, prompts)
    together = model.forward(_build(prompts, features), cache)
    for row, sequence in zip(together, prompts, strict=True):
        alone = Sequence(sequence.request)
        batch = _build([alone], _features(model, [alone]))
        logits = model.forward(batch, model.new_cache(64))
        torch.testing.assert_close(row, logits[0], atol=1e-5, rtol=1e-5)


def _features(model: FakeDecoder, sequences: list[Sequence]) -> Tensor | None:
    images = [image for s in sequences for image in s.request.images]
    if not images:
        return None
    pixels = torch.frombuffer(bytearray().join(i.pixels for i in images), dtype=torch.uint8)
    return model.encode_images(pixels.view(-1, 4, 4, 3)).flatten(0, 1)
