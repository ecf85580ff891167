"""Encoders on random checkpoints of each class."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_encoders import ENCODERS, RATE, save_encoder
from transformers import LlamaConfig

from skipserve_training.mapping.encoders import TransformersEncoder
from skipserve_training.mapping.lessons import Media, Sound
from skipserve_training.mapping.media import load_media

CPU = torch.device("cpu")


def _media(kind: str, folder: Path) -> Media:
    ENCODERS[kind].write_media(folder / "media-1", 1)
    (path,) = folder.glob("media-1*")
    return load_media(path)


@pytest.mark.parametrize("kind", ENCODERS)
def test_each_class_of_encoder(kind: str, tmp_path: Path) -> None:
    media = _media(kind, tmp_path)
    encoder = TransformersEncoder(save_encoder(kind, tmp_path / "encoder"), CPU)
    rows = encoder.encode([media, media])
    assert rows.shape == (2, ENCODERS[kind].num_rows, 32)
    torch.testing.assert_close(rows[0], rows[1])
    assert rows.std() > 0.1
    assert encoder.config.model_type == kind


def test_an_earlier_layer_without_its_class_row(tmp_path: Path) -> None:
    media, num_rows = _media("clip_vision_model", tmp_path), 5
    save_encoder("clip_vision_model", tmp_path)
    plain = TransformersEncoder(tmp_path, CPU)
    earlier = TransformersEncoder(tmp_path, CPU, layer=-2, keeps_class=False)
    assert earlier.encode([media]).shape == (1, num_rows - 1, 32)
    assert not torch.allclose(earlier.encode([media]), plain.encode([media])[:, 1:])
    assert len({plain.digest, earlier.digest}) == 2
    assert plain.digest == TransformersEncoder(tmp_path, CPU).digest


def test_the_output_of_clip_is_that_of_its_last_layer(tmp_path: Path) -> None:
    media = _media("clip_vision_model", tmp_path)
    save_encoder("clip_vision_model", tmp_path)
    last, counted = (TransformersEncoder(tmp_path, CPU, layer) for layer in (-1, 2))
    assert torch.equal(last.encode([media]), counted.encode([media]))
    assert last.digest == counted.digest


def test_a_sound_at_another_rate_is_refused(tmp_path: Path) -> None:
    save_encoder("audio-spectrogram-transformer", tmp_path)
    sound = Sound(np.zeros(4000, dtype=np.float32), RATE // 2)
    with pytest.raises(ValueError, match="8000 samples a second: the encoder expects 16000"):
        TransformersEncoder(tmp_path, CPU).encode([sound])


def test_other_types_are_refused(tmp_path: Path) -> None:
    LlamaConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="type 'llama': expected one of clip_vision_model"):
        TransformersEncoder(tmp_path, CPU)


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        ("vit", "timesformer", "takes pictures: expected no videos"),
        ("timesformer", "audio-spectrogram-transformer", "folder of frames: expected no sounds"),
        ("audio-spectrogram-transformer", "vit", "takes sounds: expected no pictures"),
    ],
)
def test_media_of_another_kind_are_refused(
    kind: str, given: str, said: str, tmp_path: Path
) -> None:
    encoder = TransformersEncoder(save_encoder(kind, tmp_path / "encoder"), CPU)
    with pytest.raises(ValueError, match=said):
        encoder.encode([_media(given, tmp_path)])
