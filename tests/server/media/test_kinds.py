"""What becomes of files of pictures, videos and sounds, and which are refused before they cost."""

import io

import numpy as np
import pytest
from media_models import film, gif_of, noise, video_file, wav_file
from PIL import Image

from skipserve.errors import UnusableImageError
from skipserve.media.data_uri import EncodedImage
from skipserve.media.fitting import Fitting
from skipserve.media.frames import pick_frames
from skipserve.media.hearing import Hearing
from skipserve.media.kinds import Made, MediaKind, Pictures, Sounds, Videos
from skipserve.media.wav import open_wav

pytestmark = pytest.mark.fast

FITTING = Fitting(16, None, {"height": 16, "width": 16}, 2, False, 10**6)
VIDEOS, SOUNDS = Videos(FITTING, 8), Sounds(16_000, 32, 16)
SIZE = 24 * 20


def make(kind: MediaKind, content: bytes, max_pixels: int = 10**6) -> Made:
    return kind.make(EncodedImage(content, "p"), max_pixels, lambda *_: None)


def fitted(frames: list[Image.Image]) -> bytes:
    return b"".join(it.resize((16, 16), Image.Resampling.BILINEAR).tobytes() for it in frames)


@pytest.mark.parametrize("form", ["WEBP", "PNG"])
@pytest.mark.parametrize("count", [8, 11, 30])
def test_eight_frames_of_a_video_are_shown(form: str, count: int) -> None:
    frames = film(count)
    made = make(VIDEOS, video_file(frames, form))
    assert made.content == fitted([frames[number] for number in pick_frames(count, 8)])
    assert len(made.content) == VIDEOS.num_bytes
    assert made.num_decoded == count * SIZE


def test_frames_of_a_gif_are_what_pillow_shows() -> None:
    content = video_file(film(9), "GIF")
    with Image.open(io.BytesIO(content)) as opened:
        shown = []
        for number in pick_frames(9, 8):
            opened.seek(number)
            shown.append(opened.convert("RGB"))
    assert make(VIDEOS, content).content == fitted(shown)


def test_a_video_of_pictures_is_their_frames() -> None:
    frames = film(8)
    files = tuple(video_file([frame], "PNG") for frame in frames)
    held: list[tuple[int, int]] = []
    file = EncodedImage(b"", "p", files)
    made = VIDEOS.make(file, 10**6, lambda *sizes: held.append(sizes))
    assert made.content == fitted(frames)
    assert held == [(SIZE, 8 * SIZE)]
    other = EncodedImage(b"", "p", (*files[:7], video_file(film(1, size=(20, 24)), "PNG")))
    with pytest.raises(UnusableImageError, match="is 20 x 24 pixels, and the first 24 x 20") as it:
        VIDEOS.make(other, 10**6, lambda *_: None)
    assert it.value.param == "p"
    with pytest.raises(UnusableImageError, match="at most 479 pixels are left"):
        VIDEOS.make(file, 8 * SIZE - 1, lambda *_: None)


@pytest.mark.parametrize(
    ("content", "max_pixels", "told"),
    [
        (b"", 10**6, "the video file is empty"),
        (b"\0\0\0\x18ftypmp42", 10**6, "video cannot be decoded; animated GIF, WebP and PNG"),
        (video_file(film(1), "JPEG"), 10**6, "cannot be decoded; animated GIF"),
        (video_file(film(1), "PNG"), 10**6, "has 1 frame; it must have 8 to 1000"),
        (video_file(film(7), "PNG"), 10**6, "has 7 frames; it must have 8 to 1000"),
        (
            video_file(film(10), "PNG"),
            10 * SIZE - 1,
            "too large: it is 24 x 20 pixels, and at most 479",
        ),
        (video_file(film(10), "GIF"), 10 * SIZE - 1, "too large"),
        (video_file(film(9))[:-200], 10**6, "the video file is cut off"),
    ],
)
def test_videos_that_are_refused(content: bytes, max_pixels: int, told: str) -> None:
    def never(*_: int) -> None:
        raise AssertionError

    with pytest.raises(UnusableImageError, match=told):
        VIDEOS.make(EncodedImage(content, "p"), max_pixels, never)


def test_ten_thousand_frames_are_refused_before_one_is_decoded() -> None:
    with pytest.raises(UnusableImageError, match="has 10000 frames; it must have 8 to 1000"):
        make(VIDEOS, gif_of(10_000), 10**9)
    assert make(VIDEOS, gif_of(1_000)).num_decoded == 1_000


def test_a_frame_may_not_reach_over_the_edge() -> None:
    with pytest.raises(UnusableImageError, match=r"video is 1 x 1 pixels, and a frame reaches to"):
        make(VIDEOS, gif_of(20, last_side=300))


@pytest.mark.parametrize(
    ("form", "first"), [("PNG", []), ("GIF", []), ("WEBP", [(SIZE, 8 * SIZE)])]
)
def test_all_frames_are_charged_before_they_are_decoded(
    form: str, first: list[tuple[int, int]]
) -> None:
    """And what a WebP's decoder takes before it is made."""
    held: list[tuple[int, int]] = []
    file = EncodedImage(video_file(film(12), form), "p")
    VIDEOS.make(file, 10**6, lambda *it: held.append(it))
    assert held == [*first, (SIZE, 12 * SIZE)]


def test_a_sound_is_its_energies() -> None:
    content = wav_file(noise(4000))
    made = make(SOUNDS, content)
    expected = Hearing(16_000, 32, 16).energies(open_wav(content).samples())
    assert made.content == expected.tobytes()
    assert len(made.content) == SOUNDS.num_bytes
    assert made.num_decoded == 4000
    stereo = np.repeat(noise(4000), 2)
    assert make(SOUNDS, wav_file(stereo, channels=2)).content == made.content
    with pytest.raises(UnusableImageError, match="too large together"):
        make(SOUNDS, content, 3999)


def test_a_picture_is_fitted() -> None:
    (frame,) = film(1)
    assert make(Pictures(FITTING), video_file([frame], "PNG")).content == fitted([frame])


def test_an_animation_shown_as_a_picture_is_its_first_frame() -> None:
    frames = film(9)
    assert make(Pictures(FITTING), video_file(frames)).content == fitted(frames[:1])
