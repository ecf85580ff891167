"""The accuracy of VQAv2: how many of ten annotators an answer agrees with.

Source: S. Antol et al., "VQA: Visual Question Answering", and the evaluation published with the
data set, whose rules of writing are followed here for what is said and for all annotators alike.
"""

import re
from collections.abc import Sequence

ANNOTATORS = 10
_ENOUGH = 3  # that agree make an answer right

_NUMBERS = {
    word: str(number)
    for number, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
} | {"none": "0"}
_ARTICLES = {"a", "an", "the"}
_PUNCTUATION = ";/[]\"{}()=+\\_-><@`,?!"
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"\.(?!\d)")

# Contractions, which are often written without their apostrophes.
_CONTRACTED = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't "
    "haven't he'd he'd've he's how'd how'll how's i'd've i'm i've isn't it'd it'd've it'll let's "
    "ma'am might've mightn't mightn't've must've mustn't needn't not've o'clock oughtn't shan't "
    "she'd've she's should've shouldn't shouldn't've somebody'd somebody'd've somebody'll "
    "somebody's someone'd someone'd've someone'll someone's something'd something'd've "
    "something'll that'd that'd've that's there'd there'd've there're there's they'd they'd've "
    "they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've "
    "when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't "
    "would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've"
)
_APOSTROPHES = {word.replace("'", ""): word for word in _CONTRACTED.split()}


def vqa_accuracy(said: str, answers: Sequence[str]) -> float:
    """Return the mean of min(1, matches / 3) over all sets of annotators without one.

    With ten annotators of whom m say the same: 0, 0.3, 0.6, 0.9 for m below 4, and 1 from there on.

    Raises:
        ValueError: There is one annotator, or none.
    """
    if len(answers) < 2:
        raise ValueError(f"answers are {len(answers)}: expected those of two annotators or more.")
    given = plain_form(said)
    matches = [plain_form(answer) == given for answer in answers]
    total = sum(matches)
    return sum(min(1.0, (total - own) / _ENOUGH) for own in matches) / len(answers)


def plain_form(text: str) -> str:
    """Write an answer as the evaluation compares it: lower case, digits, no articles or marks."""
    words = _without_marks(" ".join(text.split())).lower().split()
    numbered = (_NUMBERS.get(word, word) for word in words if word not in _ARTICLES)
    return " ".join(_APOSTROPHES.get(word, word) for word in numbered)


def _without_marks(text: str) -> str:
    """Drop marks beside a space, or all where a comma groups digits; others become spaces."""
    drops_all = _COMMA_IN_NUMBER.search(text) is not None
    left = text
    for mark in _PUNCTUATION:
        is_beside = f"{mark} " in text or f" {mark}" in text
        left = left.replace(mark, "" if is_beside or drops_all else " ")
    return _FULL_STOP.sub("", left)
