"""COCO's captions, from its own file and from Karpathy's."""

from collections.abc import Callable
from pathlib import Path

import pytest

from skipserve_client.evaluate.data_sets.coco_captions import COCO_CAPTIONS, COCO_KARPATHY

pytestmark = pytest.mark.fast

NAME = "COCO_val2014_000000391895.jpg"


def test_cocos_own_file(write: Callable[[str, object], Path], paint: Callable[[str], Path]) -> None:
    paint(f"val2014/{NAME}")
    content = {
        "images": [{"id": 391895, "file_name": NAME}],
        "annotations": [
            {"image_id": 391895, "id": 1, "caption": "A man."},
            {"image_id": 391895, "id": 2, "caption": "A person."},
        ],
    }
    root = write("captions_val2014.json", content).parent
    (found,) = COCO_CAPTIONS.questions(root, None).samples
    assert found.question == "Provide a one-sentence caption for the provided image."
    assert (found.answers, found.metric) == (("A man.", "A person."), "cider")


def test_karpathys_test_split(
    write: Callable[[str, object], Path], paint: Callable[[str], Path]
) -> None:
    paint(f"val2014/{NAME}")
    picture = {
        "filepath": "val2014",
        "filename": NAME,
        "cocoid": 391895,
        "split": "test",
        "sentences": [{"raw": "A man."}],
    }
    root = write("dataset_coco.json", {"images": [picture, picture | {"split": "restval"}]}).parent
    (found,) = COCO_KARPATHY.questions(root, None).samples
    assert (found.answers, found.id) == (("A man.",), "391895")
