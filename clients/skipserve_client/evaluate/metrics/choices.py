"""Which option an answer to a question with options A, B, ... means."""

import re
from collections.abc import Sequence
from string import ascii_uppercase

_SAID = re.compile(r"The answer is ([A-E])")
_SIGNS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
# A letter that stands further from the end may be an article.
_LAST_WORDS = 5
_MOST_TIMES = 2  # the length of all options together, which an answer may have that names one


def chosen_letter(answer: str, num_choices: int) -> str | None:
    """Return the letter that LLaVA-1.5 reads in an answer to ScienceQA; None where it reads none.

    The answer is a letter, begins with one and a stop, or holds "The answer is" and one.

    Source: eval_science_qa.py of LLaVA.
    """
    text = answer.replace("\n", ". ")
    letters = ascii_uppercase[:num_choices]
    letter: str | None = None
    if len(text.strip()) == 1:
        letter = text.strip()
    elif text[1:3] == ". ":
        letter = text[0]
    elif found := _SAID.search(text):
        letter = found[1]
    return letter if letter and letter in letters else None


def inferred_letter(answer: str, choices: Sequence[str]) -> str | None:
    """Return the letter that MMBench reads in an answer, without asking another model.

    The only letter of an option that the answer has as a word, among its last; else the only option
    whose text it has.

    Source: can_infer of VLMEvalKit (vlmeval/utils/matching_util.py), by MMBench's authors.
    """
    return _letter_word(answer, ascii_uppercase[: len(choices)]) or _named(answer, choices)


def _letter_word(answer: str, letters: str) -> str | None:
    words = answer.translate(_SIGNS).split()
    found = [letter for letter in letters if letter in words]
    if len(found) != 1 or words.index(found[0]) <= len(words) - _LAST_WORDS:
        return None
    return found[0]


def _named(answer: str, choices: Sequence[str]) -> str | None:
    text = answer.lower()
    if len(text) > _MOST_TIMES * sum(map(len, choices)):
        return None
    found = [
        letter
        for letter, choice in zip(ascii_uppercase, choices, strict=False)
        if choice.lower() in text
    ]
    return found[0] if len(found) == 1 else None
