"""The test split of easy-VQA as questions of an evaluation, beside what a blind model answers."""

import hashlib
import json
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from platformdirs import user_cache_path

from skipserve_client.command_group import CommandError
from skipserve_client.errors import PictureError
from skipserve_client.evaluate.easy_vqa import (
    EasyQuestion,
    EasySplit,
    EasyType,
    blind_answers,
    read_easy_vqa,
)
from skipserve_client.evaluate.question_file import decode_picture
from skipserve_client.evaluate.sample import Questions, Sample

EASY_VQA = "easy-vqa"
_PACKAGE = "easy-vqa==1.0"
# Of what the package holds, as `_digest` counts it.
_PINNED = "54143365f9ea018f921ef13dea2004bf957560fae84e36d907380ff21c9f1e7b"

POSITIVE, NEGATED = "yes/no positive", "yes/no negated"
PRESENT, ABSENT = "present", "absent"
# Each type as results name it, and which part of it: whether what the question names is there.
_KINDS: dict[EasyType, tuple[str, str | None]] = {
    EasyType.COLOUR: ("colour", None),
    EasyType.SHAPE: ("shape", None),
    EasyType.POSITIVE_PRESENT: (POSITIVE, PRESENT),
    EasyType.POSITIVE_ABSENT: (POSITIVE, ABSENT),
    EasyType.NEGATED_PRESENT: (NEGATED, PRESENT),
    EasyType.NEGATED_ABSENT: (NEGATED, ABSENT),
}


def easy_vqa_questions(folder: Path | None = None, count: int | None = None) -> Questions:
    """Return the first `count` questions of the test split, in an order that is always the same.

    However many are asked, each type has about the share of them that it has of the whole split.

    Args:
        folder: where the data set lies, or one of the same form, which is then named after what
            it holds; without it, the cache's, which must be as it was published.
        count: ask so many; None for all.

    Raises:
        CommandError: the data set is not there, or is not of its form.
    """
    train, test, digest = _read_kept(cache_folder()) if folder is None else _read(folder)
    samples = _samples(train, test, count)
    if digest == _PINNED:
        return Questions(EASY_VQA, samples)
    _check_pictures(test.images.values())
    return Questions(f"{EASY_VQA}-{digest[:8]}", samples)


def cache_folder() -> Path:
    """Return where the data set is kept when nobody says where it is."""
    return user_cache_path("skipserve") / "easy-vqa-1.0"


def _read_kept(folder: Path) -> tuple[EasySplit, EasySplit, str]:
    """Read the data set, which must be the published one."""
    if not folder.is_dir():
        raise CommandError(f"easy-VQA is not at {folder}: {_how_to_get_it(folder)}")
    try:
        found = _read(folder)
    except CommandError as error:
        raise CommandError(f"{error}; remove that folder; {_how_to_get_it(folder)}") from error
    if found[-1] != _PINNED:
        raise CommandError(
            f"{folder} does not hold {_PACKAGE} as it was published: remove it; "
            f"{_how_to_get_it(folder)}"
        )
    return found


def _read(folder: Path) -> tuple[EasySplit, EasySplit, str]:
    """Read what was trained on, what is asked, and the digest of both."""
    try:
        train, test = read_easy_vqa(folder, "train"), read_easy_vqa(folder, "test")
        digest = _digest(train, test)
    except (OSError, ValueError) as error:
        reason = str(error).removesuffix(".")
        raise CommandError(f"easy-VQA cannot be read: {reason}") from error
    if not test.questions:
        raise CommandError(f"easy-VQA cannot be read: {folder} holds no question of the test split")
    return train, test, digest


def _how_to_get_it(folder: Path) -> str:
    target = shlex.quote(str(folder))
    command = f"{shlex.quote(sys.executable)} -m pip install --no-deps --target {target} {_PACKAGE}"
    return (
        f"type `skipserve fetch {EASY_VQA}` (without a server's packages: `{command}`), or name "
        "the folder where it lies with --data-folder"
    )


def _check_pictures(pictures: Iterable[Path]) -> None:
    """Decode each picture.

    Raises:
        CommandError: one cannot be decoded.
    """
    for picture in pictures:
        try:
            decode_picture(picture)
        except PictureError as error:
            raise CommandError(f"easy-VQA cannot be read: {error}") from error


def _digest(train: EasySplit, test: EasySplit) -> str:
    """Return a digest of all questions and of the pictures of the test split."""
    questions = [
        [(it.text, it.answer, it.image) for it in split.questions] for split in (train, test)
    ]
    digest = hashlib.sha256(json.dumps(questions).encode())
    for image in sorted(test.images):
        digest.update(hashlib.sha256(test.images[image].read_bytes()).digest())
    return digest.hexdigest()


def _samples(train: EasySplit, test: EasySplit, count: int | None) -> tuple[Sample, ...]:
    blind = blind_answers(train)
    samples: list[Sample] = []
    for index, number in enumerate(asking_order(test.questions)[:count]):
        question = test.questions[number]
        kind, part = _KINDS[question.type]
        samples.append(
            Sample(
                index=index,
                image=test.images[question.image],
                question=question.text,
                answers=(question.answer,),
                type=kind,
                name=f"{EASY_VQA}, test question {number + 1}",
                id=f"test/{number}",
                part=part,
                blind=blind.get(question.text, ""),
            )
        )
    return tuple(samples)


def asking_order(questions: Sequence[EasyQuestion]) -> list[int]:
    """Return the questions' numbers, shuffled once and for all, the types evenly spread."""
    by_type: dict[EasyType, list[int]] = {}
    for number in sorted(range(len(questions)), key=lambda number: _lot(questions[number])):
        by_type.setdefault(questions[number].type, []).append(number)
    places = {
        number: ((rank + 0.5) / len(numbers), kind)
        for kind, numbers in by_type.items()
        for rank, number in enumerate(numbers)
    }
    return sorted(places, key=places.__getitem__)


def _lot(question: EasyQuestion) -> bytes:
    return hashlib.sha256(f"{question.image} {question.text}".encode()).digest()
