"""One question: what is sent of it, and what tells it from others."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from skipserve_client import PictureError, image_data_uri
from skipserve_client.evaluate.sample import Sample, demo_samples

pytestmark = pytest.mark.fast


def test_a_pictures_file_is_sent_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "picture.jpg"
    Image.effect_noise((20, 10), 90).save(file)
    sample = Sample(0, file, "What?", ("noise",), "all", "line 1")
    (message,) = sample.messages()
    assert message["content"][0]["image_url"]["url"] == image_data_uri(file.read_bytes())
    file.unlink()
    with pytest.raises(PictureError, match="no picture at"):
        sample.messages()


def test_the_demos_questions_have_their_places() -> None:
    samples = demo_samples(3)
    assert [sample.index for sample in samples] == [0, 1, 2]
    assert all(len(sample.answers) == 1 for sample in samples)
    assert len({sample.digest(sample.messages()) for sample in samples}) == 3


def test_how_it_is_scored_is_part_of_what_is_asked_but_for_exact_match() -> None:
    sample = Sample(0, b"", "What?", ("A",), "all", "line 1")
    messages = [{"role": "user", "content": "What?"}]
    # As in files of records from before there were other metrics.
    before = hashlib.sha256(json.dumps([messages, ["A"], "all"]).encode()).hexdigest()[:16]
    assert sample.digest(messages) == before
    others = [
        replace(sample, metric="letter", choices=("x", "y")),
        replace(sample, metric="letter", choices=("y", "x")),
        replace(sample, metric="mmbench", choices=("x", "y"), group="1"),
        replace(sample, metric="mmbench", choices=("x", "y"), group="2"),
    ]
    assert len({it.digest(messages) for it in (sample, *others)}) == 5
