"""How the engine drives the model: which pictures it encodes, and when."""

import pytest
import torch
from fake_decoder import CONFIG, FakeDecoder, make_request

from skipserve.engine.runner import Runner
from skipserve.engine.sequence import Sequence
from skipserve.engine.types import Stage

pytestmark = pytest.mark.fast


def test_pictures_of_all_sequences_are_encoded_together_in_order() -> None:
    model = FakeDecoder()
    sequences = [
        Sequence(make_request("a", num_images=2)),
        Sequence(make_request("b"), first_slot=20),
        Sequence(make_request("c", num_images=1), first_slot=40),
    ]
    logits = Runner(model).run(sequences)
    assert logits.shape == (3, CONFIG.sizes.decoder.vocab_size)
    (pixels,) = model.seen_pixels
    assert pixels.dtype == torch.uint8
    assert pixels.shape == (3, 4, 4, 3)
    assert [int(picture.max()) for picture in pixels] == [50, 100, 50]
    assert [Stage.VISION_ENCODE in s.stage_seconds for s in sequences] == [True, False, True]


def test_pictures_are_encoded_once() -> None:
    model = FakeDecoder()
    runner = Runner(model)
    sequence = Sequence(make_request(num_images=1))
    runner.run([sequence])
    sequence.num_computed = sequence.num_tokens
    sequence.generated_ids.append(9)
    runner.run([sequence])
    assert len(model.seen_pixels) == 1


def test_the_cache_holds_the_longest_context() -> None:
    longest = make_request(num_text=CONFIG.max_positions - 3, max_tokens=1)
    assert not Runner(FakeDecoder()).run([Sequence(longest)]).isnan().any()
