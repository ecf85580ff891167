"""The fixed list of questions about generated pictures that quality is measured on."""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image

from skipserve_client.evaluate.questions import QUESTION_TYPES, Question, draw_question
from skipserve_client.evaluate.scenes import Scene, Split, make_scene

# Training counts its scenes from 0; questions drawn here from that split start far beyond.
_FIRST_SCENE = {Split.TRAIN: 1 << 40, Split.HELD_OUT: 0}


@dataclass(frozen=True)
class Example:
    """One picture, a question about it and the right answer."""

    image: Image.Image
    question: str
    answer: str
    type: str


def demo_examples(split: Split, count: int) -> Iterator[Example]:
    """Yield the first `count` questions of a split, one a scene, the types in turn."""
    for scene, question in _drawn(split, count):
        yield Example(scene.render(), question.text, question.answer, question.type)


def _drawn(split: Split, count: int) -> Iterator[tuple[Scene, Question]]:
    """Walk over the scenes; one without a question of the type that is due is passed over."""
    found = 0
    index = _FIRST_SCENE[split]
    while found < count:
        scene = make_scene(split, index)
        rng = random.Random(f"question/{split}/{index}")
        question = draw_question(scene, QUESTION_TYPES[found % len(QUESTION_TYPES)], rng)
        index += 1
        if question is not None:
            found += 1
            yield scene, question
