"""Questions about a scene, with answers that are balanced within each type."""

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from skipserve_client.evaluate.off_topic import REFUSAL, draw_off_topic
from skipserve_client.evaluate.scenes import (
    COLOURS,
    MAX_OBJECTS,
    SHAPES,
    SIZES,
    Colour,
    Scene,
    SceneObject,
    Shape,
    Size,
)

PARAPHRASED_SHARE = 0.25
MAX_CAPTION_OBJECTS = 4
EMPTY_CAPTION = "nothing"
_CLEAR_PIXELS = 4.0  # two objects closer than this on an axis have no order on it


class QuestionType(StrEnum):
    """What a question asks for."""

    COLOUR = "colour"
    SHAPE = "shape"
    SIZE = "size"
    COUNT = "count"
    EXISTENCE = "existence"
    RELATION = "relation"
    CAPTION = "caption"
    REFUSAL = "refusal"  # the question is about something else


QUESTION_TYPES = tuple(QuestionType)


@dataclass(frozen=True)
class Question:
    """One question with its only right answer."""

    type: QuestionType
    text: str
    answer: str


@dataclass(frozen=True)
class Description:
    """What is said of an object: any of its three attributes."""

    size: Size | None = None
    colour: Colour | None = None
    shape: Shape | None = None

    def matches(self, item: SceneObject) -> bool:
        """Say whether every attribute that is named is the object's."""
        return (
            self.size in (None, item.size)
            and self.colour in (None, item.colour)
            and self.shape in (None, item.shape)
        )

    def count(self, scene: Scene) -> int:
        """Count the objects of a scene that match."""
        return sum(map(self.matches, scene.objects))

    def singular(self) -> str:
        """Name one such object, without an article."""
        words = (self.size, self.colour, self.shape or "object")
        return " ".join(word for word in words if word)

    def plural(self) -> str:
        """Name several such objects."""
        return self.singular() + "s"

    def with_article(self) -> str:
        """Name one such object after "a" or "an"."""
        name = self.singular()
        return f"an {name}" if name[0] in "aeiou" else f"a {name}"


# The first phrasing is the usual one, the others are the paraphrases. What is asked beyond the
# shapes has none: it is drawn whole.
PHRASINGS: dict[QuestionType, tuple[str, ...]] = {
    QuestionType.COLOUR: (
        "What color is the {}?",
        "What colour is the {}?",
        "Which color is the {}?",
    ),
    QuestionType.SHAPE: (
        "What shape is the {}?",
        "Which shape is the {}?",
        "What is the shape of the {}?",
    ),
    QuestionType.SIZE: (
        "What size is the {}?",
        "How big is the {}?",
        "Is the {} small or large?",
    ),
    QuestionType.COUNT: (
        "How many {} are there?",
        "How many {} do you see?",
        "How many {} are in the image?",
        "Count the {}.",
    ),
    QuestionType.EXISTENCE: (
        "Is there {}?",
        "Do you see {}?",
        "Can you see {}?",
        "Is there {} in the image?",
    ),
    QuestionType.RELATION: (
        "What shape is {}?",
        "Which shape is {}?",
        "What is {}?",
    ),
    QuestionType.CAPTION: (
        "Describe the image.",
        "Describe the picture.",
        "What is in the image?",
        "What do you see?",
    ),
}

# Each direction with its unit vector; y grows downwards.
DIRECTIONS: dict[str, tuple[int, int]] = {
    "left of": (-1, 0),
    "right of": (1, 0),
    "above": (0, -1),
    "below": (0, 1),
}


def draw_question(scene: Scene, kind: QuestionType, rng: random.Random) -> Question | None:
    """Draw a question of one type, or None where the scene has no unambiguous one."""
    if kind is QuestionType.REFUSAL:
        return Question(kind, draw_off_topic(scene.split, rng), REFUSAL)
    drawn = _DRAWERS[kind](scene, rng)
    if drawn is None:
        return None
    subject, answer = drawn
    usual, *others = PHRASINGS[kind]
    phrasing = rng.choice(others) if rng.random() < PARAPHRASED_SHARE else usual
    return Question(kind, phrasing.format(subject), answer)


def _draw_colour(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    if not scene.objects:
        return None
    item = rng.choice(scene.objects)
    options = (
        Description(),
        Description(shape=item.shape),
        Description(size=item.size),
        Description(size=item.size, shape=item.shape),
    )
    return _ask_attribute(scene, rng, options, item.colour)


def _draw_shape(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    if not scene.objects:
        return None
    item = rng.choice(scene.objects)
    options = (
        Description(),
        Description(colour=item.colour),
        Description(size=item.size),
        Description(size=item.size, colour=item.colour),
    )
    return _ask_attribute(scene, rng, options, item.shape)


def _draw_size(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    wanted = rng.choice(SIZES)
    items = [item for item in scene.objects if item.size is wanted]
    if not items:
        return None
    item = rng.choice(items)
    options = (
        Description(colour=item.colour),
        Description(shape=item.shape),
        Description(colour=item.colour, shape=item.shape),
    )
    return _ask_attribute(scene, rng, options, item.size)


def _ask_attribute(
    scene: Scene, rng: random.Random, options: tuple[Description, ...], answer: str
) -> tuple[str, str] | None:
    unique = [option for option in options if option.count(scene) == 1]
    return (rng.choice(unique).singular(), str(answer)) if unique else None


def _draw_count(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    """Draw the answer first, the rarer ones more often, then a description that has it."""
    by_count: dict[int, list[Description]] = {}
    for description in _countable(scene, rng):
        by_count.setdefault(description.count(scene), []).append(description)
    counts = sorted(by_count)
    weights = [1 + count * count / 2 for count in counts]
    count = rng.choices(counts, weights=weights)[0]
    return rng.choice(by_count[count]).plural(), str(count)


def _countable(scene: Scene, rng: random.Random) -> list[Description]:
    """List descriptions worth counting: of each object here, and of two drawn at random."""
    found = [Description(), _random_pair(rng), Description(colour=rng.choice(COLOURS))]
    for item in scene.objects:
        found += (
            Description(colour=item.colour),
            Description(shape=item.shape),
            Description(size=item.size),
            Description(colour=item.colour, shape=item.shape),
            Description(size=item.size, shape=item.shape),
        )
    return found


def _draw_existence(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    is_there = bool(scene.objects) and rng.random() < 0.5
    description = _present(scene, rng) if is_there else _absent(scene, rng)
    if description is None:
        return None
    return description.with_article(), "yes" if is_there else "no"


def _present(scene: Scene, rng: random.Random) -> Description:
    item = rng.choice(scene.objects)
    if rng.random() < 0.25:
        return Description(size=item.size, colour=item.colour, shape=item.shape)
    return Description(colour=item.colour, shape=item.shape)


def _absent(scene: Scene, rng: random.Random) -> Description | None:
    """Draw what is not there; half of the time something that differs in one attribute."""
    for _ in range(8):
        candidate = (
            _near_miss(scene, rng) if scene.objects and rng.random() < 0.5 else _random_pair(rng)
        )
        if candidate.count(scene) == 0:
            return candidate
    return None


def _near_miss(scene: Scene, rng: random.Random) -> Description:
    item, other = rng.choice(scene.objects), rng.choice(scene.objects)
    if rng.random() < 0.4:
        size = Size.LARGE if item.size is Size.SMALL else Size.SMALL
        return Description(size=size, colour=item.colour, shape=item.shape)
    shape = other.shape if other.shape is not item.shape else rng.choice(SHAPES)
    return Description(colour=item.colour, shape=shape)


def _random_pair(rng: random.Random) -> Description:
    return Description(colour=rng.choice(COLOURS), shape=rng.choice(SHAPES))


def _draw_relation(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    """Ask for the only object on one side of an anchor that colour and shape make unique.

    Where it can, it asks past a decoy, so that knowing which shapes there are is not enough.
    """
    plain: list[tuple[str, str]] = []
    with_decoy: list[tuple[str, str]] = []
    for anchor in scene.objects:
        description = Description(colour=anchor.colour, shape=anchor.shape)
        if description.count(scene) != 1:
            continue
        for name, direction in DIRECTIONS.items():
            item = _only_object(scene, anchor, direction)
            if item is None:
                continue
            others = {other.shape for other in scene.objects if other is not anchor}
            options = with_decoy if len(others) > 1 else plain
            options.append((f"{name} the {description.singular()}", str(item.shape)))
    options = with_decoy or plain
    return rng.choice(options) if options else None


def _only_object(
    scene: Scene, anchor: SceneObject, direction: tuple[int, int]
) -> SceneObject | None:
    """Find the one object on a side; None where there are several or an order is unclear."""
    beyond = objects_beyond(scene, anchor, direction)
    return beyond[0] if beyond is not None and len(beyond) == 1 else None


def objects_beyond(
    scene: Scene, anchor: SceneObject, direction: tuple[int, int]
) -> list[SceneObject] | None:
    """List the objects on a side of another; None where an order is unclear."""
    beyond: list[SceneObject] = []
    for item in scene.objects:
        if item is anchor:
            continue
        ahead = (item.x - anchor.x) * direction[0] + (item.y - anchor.y) * direction[1]
        if abs(ahead) < _CLEAR_PIXELS:
            return None
        if ahead > 0:
            beyond.append(item)
    return beyond


def _draw_caption(scene: Scene, rng: random.Random) -> tuple[str, str] | None:
    """List the objects from left to right, where that order is clear."""
    del rng  # a scene has one caption
    items = sorted(scene.objects, key=lambda item: item.x)
    gaps = [right.x - left.x for left, right in itertools.pairwise(items)]
    if len(items) > MAX_CAPTION_OBJECTS or any(gap < _CLEAR_PIXELS for gap in gaps):
        return None
    if not items:
        return "", EMPTY_CAPTION
    named = [Description(item.size, item.colour, item.shape).with_article() for item in items]
    return "", ", ".join(named)


_DRAWERS: dict[QuestionType, Callable[[Scene, random.Random], tuple[str, str] | None]] = {
    QuestionType.COLOUR: _draw_colour,
    QuestionType.SHAPE: _draw_shape,
    QuestionType.SIZE: _draw_size,
    QuestionType.COUNT: _draw_count,
    QuestionType.EXISTENCE: _draw_existence,
    QuestionType.RELATION: _draw_relation,
    QuestionType.CAPTION: _draw_caption,
}


def vocabulary() -> tuple[str, ...]:
    """List sentences that hold every word of the questions and answers, for a tokenizer."""
    names = [
        Description(size, colour, shape)
        for size in (None, *SIZES)
        for colour in (None, *COLOURS)
        for shape in (None, *SHAPES)
    ]
    subjects = [name.singular() for name in names] + [name.plural() for name in names]
    subjects += [name.with_article() for name in names]
    phrased = [
        phrasing.format(subject)
        for phrasings in PHRASINGS.values()
        for phrasing in phrasings
        for subject in subjects
    ]
    relations = [f"What shape is {name} the object?" for name in DIRECTIONS]
    answers = [f"{word}, {word}" for word in ("yes", "no", *map(str, range(MAX_OBJECTS + 1)))]
    return (*phrased, *relations * len(SHAPES), *answers * len(COLOURS))
