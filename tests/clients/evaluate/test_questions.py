"""Every answer follows from the scene, and no constant answer gets far."""

import random
from collections import Counter, defaultdict

import pytest

from skipserve_client.evaluate.backgrounds import BackgroundKind, draw_background
from skipserve_client.evaluate.questions import (
    EMPTY_CAPTION,
    MAX_CAPTION_OBJECTS,
    PHRASINGS,
    QUESTION_TYPES,
    Description,
    Question,
    QuestionType,
    draw_question,
    vocabulary,
)
from skipserve_client.evaluate.scenes import (
    Colour,
    Scene,
    SceneObject,
    Shape,
    Size,
    Split,
    make_scene,
)

pytestmark = pytest.mark.fast


def _object(shape: Shape, colour: Colour, size: Size, x: float, y: float) -> SceneObject:
    return SceneObject(shape, colour, size, x, y, 8.0, 0.0, (0, 0, 0))


def _scene(*objects: SceneObject) -> Scene:
    background = draw_background(BackgroundKind.SHADED, random.Random(0))
    return Scene(Split.TRAIN, 0, objects, background)


RED_STAR = _object(Shape.STAR, Colour.RED, Size.SMALL, 20, 30)
BLUE_CIRCLE = _object(Shape.CIRCLE, Colour.BLUE, Size.LARGE, 50, 60)
BLUE_SQUARE = _object(Shape.SQUARE, Colour.BLUE, Size.LARGE, 80, 20)
THREE = _scene(RED_STAR, BLUE_CIRCLE, BLUE_SQUARE)


def _drawn(scene: Scene, kind: QuestionType, count: int = 200) -> set[Question]:
    rng = random.Random(0)
    drawn = (draw_question(scene, kind, rng) for _ in range(count))
    return {question for question in drawn if question is not None}


def _answers(scene: Scene, kind: QuestionType) -> dict[str, str]:
    return {question.text: question.answer for question in _drawn(scene, kind)}


def test_attributes_are_asked_of_unique_objects_only() -> None:
    colours = _answers(THREE, QuestionType.COLOUR)
    assert colours["What color is the star?"] == "red"
    assert colours["What color is the large square?"] == "blue"
    assert "What color is the large object?" not in colours
    shapes = _answers(THREE, QuestionType.SHAPE)
    assert shapes["What shape is the red object?"] == "star"
    assert "What shape is the blue object?" not in shapes
    sizes = _answers(THREE, QuestionType.SIZE)
    assert sizes["What size is the red star?"] == "small"
    assert sizes["What size is the circle?"] == "large"


def test_counts_are_right() -> None:
    counts = _answers(THREE, QuestionType.COUNT)
    assert counts["How many objects are there?"] == "3"
    assert counts["How many blue objects are there?"] == "2"
    assert counts["How many red stars are there?"] == "1"


def test_existence_is_right() -> None:
    answers = _answers(THREE, QuestionType.EXISTENCE)
    assert answers["Is there a red star?"] == "yes"
    assert answers["Is there a red circle?"] == "no"
    assert answers["Is there a large red star?"] == "no"


def test_relations_follow_the_axes() -> None:
    answers = _answers(THREE, QuestionType.RELATION)
    assert answers["What shape is left of the blue circle?"] == "star"
    assert answers["What shape is right of the blue circle?"] == "square"
    assert answers["What shape is below the red star?"] == "circle"
    assert answers["What shape is above the red star?"] == "square"
    assert "What shape is right of the red star?" not in answers  # two of them


def test_relations_need_a_clear_order() -> None:
    level = _object(Shape.CIRCLE, Colour.BLUE, Size.LARGE, 50, 31)
    texts = _answers(_scene(RED_STAR, level), QuestionType.RELATION)
    assert texts
    assert not any("above" in text or "below" in text for text in texts)


def test_relations_prefer_a_decoy() -> None:
    for question in _drawn(THREE, QuestionType.RELATION):
        anchor = next(item for item in THREE.objects if question.text[:-1].endswith(item.shape))
        others = {item.shape for item in THREE.objects if item is not anchor}
        assert len(others) > 1


def test_captions_read_from_left_to_right() -> None:
    (answer,) = set(_answers(THREE, QuestionType.CAPTION).values())
    assert answer == "a small red star, a large blue circle, a large blue square"


def test_captions_need_a_clear_order_and_few_objects() -> None:
    above = _object(Shape.CIRCLE, Colour.BLUE, Size.LARGE, 22, 80)
    assert not _drawn(_scene(RED_STAR, above), QuestionType.CAPTION)
    row = [
        _object(Shape.STAR, Colour.RED, Size.SMALL, 10 + 20 * number, 30)
        for number in range(MAX_CAPTION_OBJECTS + 1)
    ]
    assert not _drawn(_scene(*row), QuestionType.CAPTION)


def test_an_empty_picture_holds_nothing() -> None:
    empty = _scene()
    for kind in (QuestionType.COLOUR, QuestionType.SHAPE, QuestionType.SIZE, QuestionType.RELATION):
        assert not _drawn(empty, kind)
    assert {question.answer for question in _drawn(empty, QuestionType.COUNT)} == {"0"}
    assert {question.answer for question in _drawn(empty, QuestionType.EXISTENCE)} == {"no"}
    assert {question.answer for question in _drawn(empty, QuestionType.CAPTION)} == {EMPTY_CAPTION}


def test_only_what_is_refused_has_no_phrasings() -> None:
    assert set(QUESTION_TYPES) - set(PHRASINGS) == {QuestionType.REFUSAL}


def test_names_read_as_english() -> None:
    orange = Description(colour=Colour.ORANGE, shape=Shape.STAR)
    assert orange.with_article() == "an orange star"
    assert orange.plural() == "orange stars"
    assert Description(size=Size.SMALL).singular() == "small object"
    assert Description().plural() == "objects"


def test_some_questions_are_paraphrased() -> None:
    starts = Counter(question.text.split()[0] for question in _drawn(THREE, QuestionType.COUNT))
    assert set(starts) == {"How", "Count"}


def test_no_constant_answer_gets_far() -> None:
    rng = random.Random(1)
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for index in range(600):
        scene = make_scene(Split.TRAIN, index)
        for kind in PHRASINGS:
            question = draw_question(scene, kind, rng)
            if question is not None:
                answers[kind][question.answer] += 1
    limits = {
        QuestionType.COLOUR: 0.2,
        QuestionType.SHAPE: 0.35,
        QuestionType.SIZE: 0.6,
        QuestionType.COUNT: 0.35,
        QuestionType.EXISTENCE: 0.6,
        QuestionType.RELATION: 0.35,
        QuestionType.CAPTION: 0.05,
    }
    for kind, limit in limits.items():
        counts = answers[kind]
        assert counts.total() > 250, kind
        assert max(counts.values()) / counts.total() < limit, kind


def test_the_vocabulary_covers_every_question_about_shapes_and_its_answer() -> None:
    known = {word for line in vocabulary() for word in _words(line)}
    rng = random.Random(2)
    for index in range(300):
        scene = make_scene(Split.TRAIN, index)
        for kind in PHRASINGS:
            question = draw_question(scene, kind, rng)
            if question is not None:
                assert {*_words(question.text), *_words(question.answer)} <= known


def _words(text: str) -> list[str]:
    return text.replace("?", "").replace(".", "").replace(",", "").split()
