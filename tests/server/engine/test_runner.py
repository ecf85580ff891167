"""How the engine drives the model: which pictures it encodes, and when."""

from dataclasses import replace

import pytest
import torch
from engine_parts import EngineParts
from fake_decoder import CONFIG, TOKENS_PER_IMAGE, FakeDecoder, make_image, make_request

from skipserve.engine.limits import EngineLimits
from skipserve.engine.request import Request
from skipserve.engine.runner import Launched, Runner

pytestmark = pytest.mark.fast

BYTES_PER_IMAGE = TOKENS_PER_IMAGE * CONFIG.sizes.decoder.hidden_size * 4


class Rig:
    """A runner with a scheduler to feed it."""

    def __init__(
        self, cache_bytes: int = 4 * BYTES_PER_IMAGE, max_rows: int = 64, max_images: int = 9
    ) -> None:
        self.parts = EngineParts(max_rows=max_rows)
        self.model = FakeDecoder()
        tables, plans = self.parts.tables, self.parts.plans
        num_pages = self.parts.pool.num_pages
        limits = EngineLimits(encoder_cache_bytes=cache_bytes)
        self.runner = Runner(self.model, tables, plans, num_pages, max_images, limits)

    @property
    def encoded(self) -> list[list[int]]:
        """The brightness of the pictures of each call of the vision tower."""
        return [[int(picture.max()) for picture in pixels] for pixels in self.model.seen_pixels]

    def step(self, *requests: Request) -> Launched:
        for request in requests:
            self.parts.add(request)
        launched = self.runner.launch(self.parts.scheduler.schedule())
        self.parts.finish(launched.step)
        return launched


def _asking(name: str, *brightness: int, num_text: int = 3, salt: str = "") -> Request:
    request = make_request(name, num_text=num_text, num_images=len(brightness))
    return replace(request, images=tuple(map(make_image, brightness)), cache_salt=salt)


def test_pictures_of_all_sequences_are_encoded_together_in_order() -> None:
    rig = Rig()
    launched = rig.step(_asking("a", 50, 100), make_request("b"), _asking("c", 80))
    assert rig.encoded == [[50, 100, 80]]
    assert rig.model.seen_pixels[0].dtype == torch.uint8
    assert rig.model.seen_pixels[0].shape == (3, 4, 4, 3)
    assert {s.request.id: count for s, count in launched.num_encoded.items()} == {"a": 2, "c": 1}
    assert launched.encoding is not None
    assert launched.encoding.seconds() > 0
    assert launched.samples is not None
    assert len(launched.samples.read().token_ids) == 3


def test_a_picture_twice_in_a_step_is_encoded_once() -> None:
    rig = Rig()
    launched = rig.step(_asking("a", 50, 50), _asking("b", 50, 70, num_text=4))
    assert rig.encoded == [[50, 70]]
    assert sum(launched.num_encoded.values()) == 2
    assert (rig.runner.num_encoder_queries, rig.runner.num_encoder_hits) == (4, 2)


def test_a_picture_that_was_seen_is_not_encoded_again() -> None:
    rig = Rig()
    first, second = rig.step(_asking("a", 50)), rig.step(_asking("b", 50))
    assert rig.encoded == [[50]]
    assert list(first.num_encoded.values()) == [1]
    assert second.num_encoded == {}


def test_pictures_beyond_what_there_is_room_for_are_encoded_afterwards() -> None:
    rig = Rig(max_images=2)
    launched = rig.step(_asking("a", 50, 60, 70), _asking("b", 80, 90))
    assert rig.encoded == [[50, 60], [70, 80], [90]]
    together = Rig().step(_asking("a", 50, 60, 70), _asking("b", 80, 90))
    assert launched.samples is not None
    assert together.samples is not None
    assert launched.samples.read().token_ids == together.samples.read().token_ids


def test_the_first_to_show_a_picture_pays_for_it() -> None:
    launched = Rig().step(_asking("a", 50), _asking("b", 50, num_text=4))
    assert {s.request.id: count for s, count in launched.num_encoded.items()} == {"a": 1}


def test_a_salt_keeps_pictures_apart() -> None:
    rig = Rig()
    rig.step(_asking("a", 50), _asking("b", 50, salt="other"))
    assert rig.encoded == [[50, 50]]


def test_a_picture_is_encoded_only_when_a_chunk_reaches_it() -> None:
    """3 text rows, 4 of a picture, 4 of another, 2 text rows, in chunks of 5."""
    rig = Rig(max_rows=5)
    rig.step(_asking("a", 50, 70))
    assert rig.encoded == [[50]]
    rig.step()
    assert rig.encoded == [[50], [70]]
    rig.step()
    assert len(rig.encoded) == 2


def test_a_picture_that_was_given_up_between_chunks_is_encoded_again() -> None:
    rig = Rig(cache_bytes=0, max_rows=5)
    launched = [rig.step(_asking("a", 50)), rig.step()]
    assert rig.encoded == [[50], [50]]
    assert [sum(each.num_encoded.values()) for each in launched] == [1, 1]


def test_chunks_see_their_own_rows_of_a_picture() -> None:
    """However a prompt is cut, its answer starts alike."""
    tokens = []
    for max_rows in (64, 5, 1):
        rig = Rig(max_rows=max_rows)
        launched = rig.step(_asking("a", 50, 200, num_text=2))
        while launched.samples is None:
            launched = rig.step()
        tokens.append(launched.samples.read().token_ids)
    assert tokens[0] == tokens[1] == tokens[2]


def test_a_step_of_mere_chunks_samples_nothing() -> None:
    assert Rig(max_rows=2).step(make_request()).samples is None


def test_the_cache_holds_the_longest_context() -> None:
    launched = Rig().step(make_request(num_text=CONFIG.max_positions - 3, max_tokens=1))
    assert launched.samples is not None
    assert len(launched.samples.read().token_ids) == 1
