"""What a varied stage does to scenes and questions, by the scene's seed."""

import random
from dataclasses import replace

from skipserve_client.evaluate.questions import Question, QuestionType
from skipserve_client.evaluate.scenes import Scene
from skipserve_training.demo.recipe import EMPTY_SHARE, REWORDED_SHARE

_CAPTIONS = (
    "Describe this image.",
    "Describe this picture.",
    "Describe the image in one sentence.",
    "Describe what you see.",
    "Describe it.",
    "What is this?",
    "What is it?",
    "What do you see here?",
    "What do you see in the picture?",
    "What can you see?",
    "What can you see in this image?",
    "What is in this image?",
    "What is in this picture?",
    "What is in the picture?",
    "What is shown here?",
    "What is shown in the image?",
    "What is there?",
    "What does the image show?",
    "What does the picture show?",
    "What shapes are there?",
    "What shapes do you see?",
    "What shapes are in the image?",
    "What shapes are in the picture?",
    "Which shapes are there?",
    "What objects are in the image?",
    "What objects do you see?",
    "List the shapes.",
    "List all objects.",
    "Name the shapes in the picture.",
    "Tell me what you see.",
    "Tell me what is in the picture.",
    "Caption this image.",
    "Give me a caption.",
)
_SWAPS: dict[QuestionType, tuple[tuple[str, str], ...]] = {
    QuestionType.COLOUR: (
        ("What color is", "What is the color of"),
        ("What color is", "Tell me the color of"),
        ("What color is", "What color has"),
        ("What color is", "Name the color of"),
    ),
    QuestionType.SHAPE: (
        ("What shape is", "Tell me the shape of"),
        ("What shape is", "What kind of shape is"),
        ("What shape is", "Name the shape of"),
        ("What shape is", "What form has"),
    ),
    QuestionType.SIZE: (
        ("What size is", "What is the size of"),
        ("What size is", "Tell me the size of"),
        ("small or large", "large or small"),
        ("small or large", "big or small"),
    ),
    QuestionType.COUNT: (
        ("are there", "are here"),
        ("are there", "can you see"),
        ("are there", "can you count"),
        ("are there", "are shown"),
        ("How many", "Tell me how many"),
    ),
    QuestionType.EXISTENCE: (
        ("Is there", "Does the image show"),
        ("Is there", "Does the picture have"),
        ("Is there", "Can you find"),
        ("Is there", "Is there also"),
    ),
    QuestionType.RELATION: (
        ("What shape is", "What kind of shape is"),
        ("What shape is", "What object is"),
        ("What shape is", "Which object is"),
        ("What shape is", "Tell me what is"),
        ("left of", "to the left of"),
        ("right of", "to the right of"),
    ),
}
_OTHER_NAMES = ("shape", "thing", "figure", "item", "form")
_PLACES = (" in the image", " in the picture", " in this image", " in this picture", " here")
_OPENINGS = ("Please tell me: ", "Hello! ", "Hi, ", "Tell me, ", "Look: ")


def emptied(scene: Scene) -> Scene:
    """Take all objects out of a few scenes."""
    rng = random.Random(f"empty/{scene.split}/{scene.index}")
    return replace(scene, objects=()) if rng.random() < EMPTY_SHARE else scene


def reworded(question: Question, rng: random.Random) -> Question:
    """Ask some questions in words that are never evaluated; the answer stays."""
    if rng.random() >= REWORDED_SHARE:
        return question
    text = question.text
    if question.type is QuestionType.CAPTION:
        text = rng.choice(_CAPTIONS)
    elif question.type in _SWAPS:
        text = _swapped(text, question.type, rng)
    return replace(question, text=_casual(text, rng))


def _swapped(text: str, kind: QuestionType, rng: random.Random) -> str:
    if rng.random() < 0.5:
        old, new = rng.choice(_SWAPS[kind])
        text = text.replace(old, new)
    if rng.random() < 0.5:
        text = text.replace("object", rng.choice(_OTHER_NAMES))
    if rng.random() < 0.25 and "the image" not in text:
        text = text[:-1] + rng.choice(_PLACES) + text[-1]
    return text


def _casual(text: str, rng: random.Random) -> str:
    """Write as people do: an opening, small letters, no mark at the end."""
    if rng.random() < 0.15:
        text = rng.choice(_OPENINGS) + text
    if rng.random() < 0.3:
        text = text[0].lower() + text[1:]
    if rng.random() < 0.3:
        text = text.rstrip("?.!")
    return text
