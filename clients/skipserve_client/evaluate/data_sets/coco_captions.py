"""COCO's captions: pictures that five people have described, of 2014's validation split."""

from collections.abc import Iterable, Iterator
from pathlib import Path

from skipserve_client.evaluate.data_sets.data_set import UNPLACED, DataSet
from skipserve_client.evaluate.data_sets.folder import Folder
from skipserve_client.evaluate.data_sets.prompts import CAPTION
from skipserve_client.evaluate.sample import Sample

_FILE, _KARPATHY_FILE = "captions_val2014.json", "dataset_coco.json"
_PICTURES, _SPLIT = "val2014", "test"


def _read(folder: Folder) -> Iterator[Sample]:
    with folder.reading(folder.path / _FILE):
        found = folder.json(_FILE)
        captions: dict[int, list[str]] = {}
        for annotation in found["annotations"]:
            captions.setdefault(annotation["image_id"], []).append(annotation["caption"])
        for picture in found["images"]:
            number = picture["id"]
            file = folder.path / _PICTURES / picture["file_name"]
            yield _sample(folder.data, number, file, captions[number])


def _read_karpathy(folder: Folder) -> Iterator[Sample]:
    """Yield the 5,000 pictures of Karpathy's test split, which papers report."""
    with folder.reading(folder.path / _KARPATHY_FILE):
        for picture in folder.json(_KARPATHY_FILE)["images"]:
            if picture["split"] == _SPLIT:
                file = folder.path / picture["filepath"] / picture["filename"]
                captions = [sentence["raw"] for sentence in picture["sentences"]]
                yield _sample(folder.data, picture["cocoid"], file, captions)


def _sample(data: str, number: int, file: Path, captions: Iterable[str]) -> Sample:
    return Sample(
        index=UNPLACED,
        image=file,
        question=CAPTION,
        answers=tuple(captions),
        type="all",
        name=f"{data}, picture {number}",
        id=str(number),
        metric="cider",
    )


COCO_CAPTIONS = DataSet("coco-captions", f"{_FILE} and {_PICTURES}/*.jpg", _read)
COCO_KARPATHY = DataSet("coco-karpathy", f"{_KARPATHY_FILE} and {_PICTURES}/*.jpg", _read_karpathy)
