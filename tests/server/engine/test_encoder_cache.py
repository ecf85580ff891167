"""Projected images: what is kept, what is given up, and under which key."""

import hashlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from skipserve.engine.encoder_cache import EncoderCache, image_key
from skipserve.engine.request import Image

pytestmark = pytest.mark.fast


def features(num_bytes: int) -> Tensor:
    """Return features [1, D] of so many bytes."""
    return torch.ones(1, num_bytes // 4)


def image(name: str) -> Image:
    return Image(b"", hashlib.sha256(name.encode()).digest(), num_rows=0)


def test_what_was_put_is_found() -> None:
    cache = EncoderCache(100)
    kept = features(40)
    cache.put(b"a", kept)
    assert cache.get(b"a") is kept
    assert cache.get(b"b") is None
    assert cache.num_bytes == 40


def test_the_least_recently_used_is_given_up_first() -> None:
    cache = EncoderCache(100)
    for key in (b"a", b"b"):
        cache.put(key, features(40))
    cache.get(b"a")
    cache.put(b"c", features(40))
    assert [cache.get(key) is not None for key in (b"a", b"b", b"c")] == [True, False, True]
    assert (cache.num_bytes, cache.num_evictions) == (80, 1)


def test_a_large_one_takes_the_place_of_several() -> None:
    cache = EncoderCache(100)
    for key in (b"a", b"b", b"c"):
        cache.put(key, features(32))
    cache.put(b"d", features(64))
    assert [cache.get(key) is not None for key in (b"a", b"b", b"c", b"d")] == [False] * 2 + [
        True
    ] * 2
    assert (cache.num_bytes, cache.num_evictions) == (96, 2)


def test_one_larger_than_the_cache_is_not_kept_and_costs_nobody_a_place() -> None:
    cache = EncoderCache(100)
    cache.put(b"a", features(100))
    cache.put(b"b", features(104))
    assert cache.get(b"a") is not None
    assert cache.get(b"b") is None
    assert (cache.num_bytes, cache.num_evictions) == (100, 0)


def test_without_room_nothing_is_kept() -> None:
    cache = EncoderCache(0)
    cache.put(b"a", features(4))
    assert cache.get(b"a") is None


def test_putting_again_counts_once() -> None:
    cache = EncoderCache(100)
    for num_bytes in (80, 60):
        cache.put(b"a", features(num_bytes))
    assert (cache.num_bytes, cache.num_evictions) == (60, 0)


def test_a_part_of_a_larger_tensor_does_not_keep_it_alive() -> None:
    several = torch.arange(30.0).view(3, 2, 5)
    cache = EncoderCache(40)
    cache.put(b"a", several[1])
    kept = cache.get(b"a")
    assert kept is not None
    assert torch.equal(kept, several[1])
    assert kept.untyped_storage().nbytes() == cache.num_bytes == 40


USES = st.lists(st.tuples(st.booleans(), st.sampled_from(b"abcde"), st.integers(0, 14)))


@given(USES, st.integers(0, 60))
def test_it_behaves_like_a_list_in_order_of_use(
    uses: list[tuple[bool, int, int]], max_bytes: int
) -> None:
    cache = EncoderCache(max_bytes)
    model: list[tuple[bytes, int]] = []
    num_evictions = 0
    for is_put, letter, size in uses:
        key, num_bytes = bytes([letter]), 4 * size
        found = [entry for entry in model if entry[0] == key]
        if is_put and num_bytes <= max_bytes:
            cache.put(key, features(num_bytes))
            model = [entry for entry in model if entry[0] != key] + [(key, num_bytes)]
            while sum(n for _, n in model) > max_bytes:
                model.pop(0)
                num_evictions += 1
        elif is_put:
            cache.put(key, features(num_bytes))
        else:
            assert (cache.get(key) is not None) == bool(found)
            model = [entry for entry in model if entry[0] != key] + found
        assert cache.num_bytes == sum(n for _, n in model)
        assert cache.num_evictions == num_evictions
    assert [cache.get(key) is not None for key, _ in model] == [True] * len(model)


def test_keys_tell_images_and_salts_apart() -> None:
    keys = {image_key(image(name), salt) for name in ("cat", "dog") for salt in ("", "a", "ab")}
    assert len(keys) == 6
    assert image_key(image("cat"), "a") == image_key(image("cat"), "a")


def test_salt_and_digest_do_not_run_into_each_other() -> None:
    shifted = Image(b"", b"bc", num_rows=0)
    assert image_key(shifted, "a") != image_key(Image(b"", b"c", num_rows=0), "ab")
