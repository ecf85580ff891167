"""Questions of several steps: their answers follow from the scene, read by other means."""

import random
import re
from collections import Counter
from collections.abc import Iterator

import pytest

from skipserve_client.evaluate.scenes import Scene, SceneObject, Split, make_scene
from skipserve_client.evaluate.step_questions import (
    CHAIN,
    COMPARISON,
    COUNT,
    StepQuestion,
    draw_step_question,
)

pytestmark = pytest.mark.fast

_AXES = {"left of": ("x", -1), "right of": ("x", 1), "above": ("y", -1), "below": ("y", 1)}
# "How many red objects are left of the ...": the relation follows "are" there.
_RELATION = re.compile(r"(?:object|is|are) (left of|right of|above|below) the ")


def drawn(num_scenes: int = 600) -> Iterator[tuple[Scene, StepQuestion]]:
    for index in range(num_scenes):
        scene = make_scene(Split.HELD_OUT, index)
        question = draw_step_question(scene, index, random.Random(index))
        if question is not None:
            yield scene, question


DRAWN = list(drawn())


def matching(objects: "list[SceneObject]", words: str) -> list[SceneObject]:
    """Return the objects that words such as "red squares" describe."""
    wanted = [word.removesuffix("s") for word in words.split() if "object" not in word]
    return [it for it in objects if all(word in (it.colour, it.shape) for word in wanted)]


def beyond(scene: Scene, anchor: SceneObject, relation: str) -> list[SceneObject]:
    axis, sign = _AXES[relation]
    return [
        it
        for it in scene.objects
        if it is not anchor and sign * (getattr(it, axis) - getattr(anchor, axis)) > 0
    ]


def follow(scene: Scene, relations: list[str], named: str) -> SceneObject:
    """Walk a chain from its end, the object that is named, to its beginning."""
    (place,) = matching(list(scene.objects), named)
    for relation in reversed(relations):
        (place,) = beyond(scene, place, relation)
    return place


def read(scene: Scene, question: StepQuestion) -> str:
    """Answer a question from its text and the scene's objects."""
    text = question.text.removesuffix("?")
    if question.kind == COMPARISON:
        one, other = text.removeprefix("Are there more ").split(" than ")
        everything = list(scene.objects)
        is_more = len(matching(everything, one)) > len(matching(everything, other))
        return "yes" if is_more else "no"
    relations = _RELATION.findall(text)
    named = text.rsplit("the ", maxsplit=1)[1]
    if question.kind == COUNT:
        place = follow(scene, relations[1:], named)
        wanted = text.removeprefix("How many ").split(" are ")[0]
        return str(len(matching(beyond(scene, place, relations[0]), wanted)))
    found = follow(scene, relations, named)
    return str(found.colour if "color" in text else found.shape)


def test_answers_follow_from_the_scene() -> None:
    assert len(DRAWN) > 300
    for scene, question in DRAWN:
        if question.depth > 1:
            assert read(scene, question) == question.answer, question


def test_depth_is_the_number_of_steps() -> None:
    for _, question in DRAWN:
        relations = len(_RELATION.findall(question.text))
        if question.kind == CHAIN:
            assert relations == question.depth - 1
        elif question.kind == COUNT:
            is_filtered = "How many objects" not in question.text
            assert 1 + relations + is_filtered == question.depth
        else:
            assert question.depth == 3


def test_every_depth_has_its_kinds() -> None:
    found = Counter((question.depth, question.kind) for _, question in DRAWN)
    assert found.keys() == {
        (1, CHAIN),
        *((depth, kind) for depth in (2, 3, 4) for kind in (CHAIN, COUNT)),
        (3, COMPARISON),
    }


def test_a_comparison_is_as_often_so_as_not() -> None:
    answers = Counter(question.answer for _, question in DRAWN if question.kind == COMPARISON)
    assert 0.3 < answers["yes"] / answers.total() < 0.7
