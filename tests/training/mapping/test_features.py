"""Features on disk: computed once, over interruptions, for one encoder."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from skipserve_training.mapping.features import FeatureMismatchError, compute_features
from skipserve_training.mapping.lessons import Media

pytestmark = pytest.mark.fast


class CountingEncoder:
    """Encodes the brightness of pictures, and counts them."""

    def __init__(self, digest: str = "one") -> None:
        self.digest = digest
        self.count = 0

    def encode(self, media: Sequence[Media]) -> Tensor:
        self.count += len(media)
        images = [image for image in media if isinstance(image, Image.Image)]
        values = [image.tobytes()[0] for image in images]
        return torch.tensor(values)[:, None, None].expand(-1, 3, 2)


def _load(index: int) -> Media:
    return Image.new("L", (1, 1), index)


def test_features_are_computed_once(tmp_path: Path) -> None:
    encoder = CountingEncoder()
    for _ in range(2):
        features = compute_features(tmp_path / "f.npy", encoder, 40, _load)
    assert encoder.count == 40
    assert (len(features), features.num_patches, features.width) == (40, 3, 2)
    taken = features.take([39, 0])
    assert taken.dtype == torch.bfloat16
    assert taken[:, 0, 0].tolist() == [39.0, 0.0]


def test_an_interrupted_computation_goes_on(tmp_path: Path) -> None:
    encoder = CountingEncoder()

    def stop(index: int) -> Media:
        if index == 35:
            raise InterruptedError
        return _load(index)

    with pytest.raises(InterruptedError):
        compute_features(tmp_path / "f.npy", encoder, 40, stop)
    assert encoder.count == 32
    features = compute_features(tmp_path / "f.npy", encoder, 40, _load)
    assert encoder.count == 40
    assert features.take(range(40))[:, 0, 0].tolist() == list(map(float, range(40)))


def test_who_comes_meanwhile_waits_and_takes_what_is_there(tmp_path: Path) -> None:
    encoders = [CountingEncoder() for _ in range(4)]
    with ThreadPoolExecutor(len(encoders)) as threads:
        found = list(
            threads.map(lambda it: compute_features(tmp_path / "f.npy", it, 100, _load), encoders)
        )
    assert sorted(it.count for it in encoders) == [0, 0, 0, 100]
    for features in found:
        assert features.take(range(100))[:, 0, 0].tolist() == list(map(float, range(100)))


def test_other_features_are_refused(tmp_path: Path) -> None:
    compute_features(tmp_path / "f.npy", CountingEncoder(), 4, _load)
    with pytest.raises(FeatureMismatchError, match="'encoder': 'two'"):
        compute_features(tmp_path / "f.npy", CountingEncoder("two"), 4, _load)
    with pytest.raises(FeatureMismatchError, match="'media': 5"):
        compute_features(tmp_path / "f.npy", CountingEncoder(), 5, _load)
