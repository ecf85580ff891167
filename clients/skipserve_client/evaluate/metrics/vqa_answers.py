"""How VQA's evaluation makes answers alike: punctuation, numbers, articles, contractions.

Source: vqaEval.py of VQA's authors (github.com/GT-Vision-Lab/VQA), and the form of it that
LLaVA-1.5 sends its answers through (m4c_evaluator.py, from Pythia), which also takes commas,
question marks and the genitive apart first.
"""

import re
from functools import lru_cache

_NUMBER_WORDS = "zero one two three four five six seven eight nine ten"
_NUMBERS = {"none": "0"} | {word: str(number) for number, word in enumerate(_NUMBER_WORDS.split())}
_ARTICLES = {"a", "an", "the"}
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,+\d")
_LAST_STOP = re.compile(r"\.(?!\d)")
# The evaluation passes a flag where `sub` takes a count: no more stops than these are removed.
_MOST_STOPS = 32

# Each is written with its apostrophes where one of them is left out.
_CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
    haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've
    might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
    shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
    someone's something'd something'd've something'll that's there'd there'd've there're there's
    they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're
    what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're
    why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're
    you've
"""


def _contractions() -> dict[str, str]:
    found = {
        word[:place] + word[place + 1 :]: word
        for word in _CONTRACTED.split()
        for place, sign in enumerate(word)
        if sign == "'"
    }
    return found | {"somebody'd": "somebodyd"}  # as the published table has it


_CONTRACTIONS = _contractions()


@lru_cache(maxsize=1 << 16)
def normalised(answer: str) -> str:
    """Return an answer as VQA's evaluation compares it."""
    plain = answer.lower().replace("\n", " ").replace("\t", " ").strip()
    return _plain_words(_without_punctuation(plain))


def spoken(answer: str) -> str:
    """Return an answer as LLaVA and TextVQA's evaluation compare it."""
    parted = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    return normalised(parted.strip())


def _without_punctuation(text: str) -> str:
    """Drop signs that stand at a word's edge, or beside a number with commas; part words at others.

    One sign at an edge is enough for all of its kind to be dropped.
    """
    has_number = _COMMA_IN_NUMBER.search(text) is not None
    parted = text
    for sign in _PUNCTUATION:
        is_at_edge = f"{sign} " in text or f" {sign}" in text
        parted = parted.replace(sign, "" if is_at_edge or has_number else " ")
    return _LAST_STOP.sub("", parted, count=_MOST_STOPS)


def _plain_words(text: str) -> str:
    words = [_NUMBERS.get(word, word) for word in text.split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)
