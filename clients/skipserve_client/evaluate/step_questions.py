"""Questions about a scene that take several steps: relations in a chain, counts behind filters.

A step is what has to be found before the next can be: the depth of a question is their number. The
demo model was trained on questions of one step, and on relations of two.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from skipserve_client.evaluate.questions import (
    DIRECTIONS,
    Description,
    objects_beyond,
)
from skipserve_client.evaluate.scenes import COLOURS, SHAPES, Scene, SceneObject

CHAIN, COUNT, COMPARISON = "chain", "count", "comparison"
DEPTHS = (1, 2, 3, 4)


@dataclass(frozen=True)
class StepQuestion:
    """One question with its only right answer.

    Attributes:
        depth: how many steps it takes.
        kind: what its steps are.
    """

    depth: int
    kind: str
    text: str
    answer: str


@dataclass(frozen=True)
class _Place:
    """An object, how a chain of relations names it, and where that chain starts."""

    item: SceneObject
    name: str
    start: SceneObject


def draw_step_question(scene: Scene, number: int, rng: random.Random) -> StepQuestion | None:
    """Draw question number so-and-so, or None where the scene has none of its depth and kind.

    The depths take turns, and with each round the kinds of a depth.
    """
    depth = DEPTHS[number % len(DEPTHS)]
    kinds = _DRAWERS[depth]
    kind, draw = kinds[number // len(DEPTHS) % len(kinds)]
    drawn = draw(scene, depth, rng)
    return None if drawn is None else StepQuestion(depth, kind, *drawn)


def _draw_chain(scene: Scene, depth: int, rng: random.Random) -> tuple[str, str] | None:
    """Ask for the colour or the shape at the end of `depth` - 1 relations, which leads elsewhere.

    A chain that comes back to where it began would name its own answer.
    """
    asks = rng.choice(("color", "shape"))
    places = [it for it in _places(scene, depth - 1) if it.item is not it.start]
    if not places:
        return None
    place = rng.choice(places)
    answer = place.item.colour if asks == "color" else place.item.shape
    return f"What {asks} is {place.name}?", str(answer)


def _places(scene: Scene, num_relations: int) -> list[_Place]:
    """List what is reached by so many relations from an object that its description tells apart."""
    places = [
        _Place(item, f"the {Description(colour=item.colour, shape=item.shape).singular()}", item)
        for item in _named_objects(scene)
    ]
    for _ in range(num_relations):
        places = [beyond for place in places for beyond in _related(scene, place)]
    return places


def _named_objects(scene: Scene) -> Iterator[SceneObject]:
    for item in scene.objects:
        if Description(colour=item.colour, shape=item.shape).count(scene) == 1:
            yield item


def _related(scene: Scene, place: _Place) -> Iterator[_Place]:
    for direction, vector in DIRECTIONS.items():
        beyond = objects_beyond(scene, place.item, vector)
        if beyond is not None and len(beyond) == 1:
            yield _Place(beyond[0], f"the object {direction} {place.name}", place.start)


def _draw_attribute(scene: Scene, depth: int, rng: random.Random) -> tuple[str, str] | None:
    """Ask for the colour of the only object of a shape, or for the shape of a colour's only one."""
    del depth
    options = [
        *(
            (f"What color is the {item.shape}?", str(item.colour))
            for item in scene.objects
            if Description(shape=item.shape).count(scene) == 1
        ),
        *(
            (f"What shape is the {item.colour} object?", str(item.shape))
            for item in scene.objects
            if Description(colour=item.colour).count(scene) == 1
        ),
    ]
    return rng.choice(options) if options else None


def _draw_count(scene: Scene, depth: int, rng: random.Random) -> tuple[str, str] | None:
    """Ask how many objects are on a side of another, from depth 3 on how many of one kind.

    At depth 4 the other one is reached by a relation first. The answer is drawn before the
    question, so that the small ones do not crowd the others out.
    """
    filters = [Description()] if depth == 2 else _one_attribute(rng)
    by_answer: dict[int, list[str]] = {}
    for place in _places(scene, 1 if depth == 4 else 0):
        for direction, vector in DIRECTIONS.items():
            beyond = objects_beyond(scene, place.item, vector)
            for wanted in filters if beyond is not None else ():
                count = sum(map(wanted.matches, beyond or ()))
                text = f"How many {wanted.plural()} are {direction} {place.name}?"
                by_answer.setdefault(count, []).append(text)
    if not by_answer:
        return None
    answer = rng.choice(sorted(by_answer))
    return rng.choice(by_answer[answer]), str(answer)


def _draw_comparison(scene: Scene, depth: int, rng: random.Random) -> tuple[str, str] | None:
    """Ask whether there are more of one colour or shape than of another, as often so as not."""
    del depth
    options = _one_attribute(rng)
    pairs = [(one, other) for one in options for other in options if one != other]
    is_more = rng.random() < 0.5
    fitting = [
        (one, other)
        for one, other in pairs
        if (one.count(scene) > other.count(scene)) == is_more
        and one.count(scene) + other.count(scene) > 0
    ]
    if not fitting:
        return None
    one, other = rng.choice(fitting)
    text = f"Are there more {one.plural()} than {other.plural()}?"
    return text, "yes" if is_more else "no"


def _one_attribute(rng: random.Random) -> list[Description]:
    """List descriptions by one attribute: all colours, or all shapes."""
    if rng.random() < 0.5:
        return [Description(colour=colour) for colour in COLOURS]
    return [Description(shape=shape) for shape in SHAPES]


_Drawer = Callable[[Scene, int, random.Random], tuple[str, str] | None]
_DRAWERS: dict[int, Sequence[tuple[str, _Drawer]]] = {
    1: ((CHAIN, _draw_attribute),),
    2: ((CHAIN, _draw_chain), (COUNT, _draw_count)),
    3: ((CHAIN, _draw_chain), (COUNT, _draw_count), (COMPARISON, _draw_comparison)),
    4: ((CHAIN, _draw_chain), (COUNT, _draw_count)),
}
