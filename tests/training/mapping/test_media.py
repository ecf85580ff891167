"""Pictures, videos and sounds from disk."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import wavfile

from skipserve_training.mapping.lessons import Sound
from skipserve_training.mapping.media import find_media, load_media

pytestmark = pytest.mark.fast


def test_a_video_is_eight_frames_at_equal_distances(tmp_path: Path) -> None:
    for number in range(15):
        Image.new("L", (2, 2), number).save(tmp_path / f"{number:03}.png")
    frames = load_media(tmp_path)
    assert isinstance(frames, list)
    assert [frame.getpixel((0, 0)) for frame in frames] == [(n, n, n) for n in range(0, 15, 2)]


@pytest.mark.parametrize(("kind", "lowest"), [(np.int16, -32768), (np.uint8, 0)])
def test_samples_run_from_minus_one_to_one(
    kind: type[np.integer], lowest: int, tmp_path: Path
) -> None:
    middle = 128 if kind is np.uint8 else 0
    wavfile.write(tmp_path / "s.wav", 8000, np.array([lowest, middle], dtype=kind))
    sound = load_media(tmp_path / "s.wav")
    assert isinstance(sound, Sound)
    assert sound.samples.tolist() == [-1.0, 0.0]
    assert sound.rate == 8000


def test_channels_are_averaged(tmp_path: Path) -> None:
    wavfile.write(tmp_path / "s.wav", 8000, np.array([[1.0, 0.0]], dtype=np.float32))
    sound = load_media(tmp_path / "s.wav")
    assert isinstance(sound, Sound)
    assert sound.samples.tolist() == [0.5]


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"x\.jpg cannot be read"):
        load_media(tmp_path / "x.jpg")
    with pytest.raises(ValueError, match="has 1 frames: expected at least 8"):
        load_media(tmp_path)


def test_media_are_found_by_their_last_number(tmp_path: Path) -> None:
    for name in ("COCO_val2014_000000000042.jpg", "video7", "notes.txt"):
        (tmp_path / name).touch()
    assert {number: path.name for number, path in find_media(tmp_path).items()} == {
        42: "COCO_val2014_000000000042.jpg",
        7: "video7",
    }
    (tmp_path / "42.png").touch()
    with pytest.raises(ValueError, match="have the same number"):
        find_media(tmp_path)
    with pytest.raises(ValueError, match="is no folder"):
        find_media(tmp_path / "nowhere")
