"""How LLaVA-1.5 asks, so that figures can be held beside published ones.

Source: Liu et al., "Improved Baselines with Visual Instruction Tuning", 2023, table "response
formatting prompts", and the question files and scripts of its evaluation (docs/Evaluation.md).
"""

from collections.abc import Sequence
from string import ascii_uppercase

SHORT = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
CAPTION = "Provide a one-sentence caption for the provided image."


def short_question(question: str) -> str:
    """Return a question that is to be answered in a word."""
    return f"{question}\n{SHORT}"


def letter_question(question: str, choices: Sequence[str], context: str = "") -> str:
    """Return a question with its options, one a line, that is to be answered with a letter."""
    options = [
        f"{letter}. {choice}" for letter, choice in zip(ascii_uppercase, choices, strict=False)
    ]
    return "\n".join([*([context] if context else []), question, *options, LETTER])
