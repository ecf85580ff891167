"""Questions of several steps about the demo's held-out scenes, as questions of an evaluation."""

import random
from collections.abc import Iterator
from itertools import count

from skipserve_client.evaluate.sample import Sample
from skipserve_client.evaluate.scenes import Scene, Split, make_scene
from skipserve_client.evaluate.step_questions import StepQuestion, draw_step_question

DEMO_STEPS = "demo-steps"


def step_samples(num: int) -> tuple[Sample, ...]:
    """Return the first `num` questions, the depths in turn; a type is a depth, a part a kind."""
    drawn = _drawn()
    return tuple(_sample(index, *next(drawn)) for index in range(num))


def _drawn() -> Iterator[tuple[Scene, StepQuestion]]:
    """Walk over the scenes, one a question; one without the question that is due is passed over."""
    found = 0
    for index in count():
        scene = make_scene(Split.HELD_OUT, index)
        rng = random.Random(f"steps/{Split.HELD_OUT}/{index}")
        question = draw_step_question(scene, found, rng)
        if question is not None:
            found += 1
            yield scene, question


def _sample(index: int, scene: Scene, question: StepQuestion) -> Sample:
    steps = "1 step" if question.depth == 1 else f"{question.depth} steps"
    return Sample(
        index=index,
        image=scene.render(),
        question=question.text,
        answers=(question.answer,),
        type=steps,
        name=f"{DEMO_STEPS}, question {index + 1}",
        part=question.kind,
    )
