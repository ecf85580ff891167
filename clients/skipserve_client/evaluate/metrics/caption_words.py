"""The words of a caption, as the tokenizer cuts them that COCO's captions are scored with.

Rebuilds what Stanford's PTBTokenizer 3.4.1 (`-preserveLines -lowerCase`) makes of captions, and
the removal of punctuation after it, as pycocoevalcap does. Checked against that program on captions
of every form that this knows; URLs with paths, fractions in Unicode and the like are not rebuilt.
"""

import re

_DROPPED = {"'", "`", ".", "?", "!", ",", ":", "-", "...", ";"}
_BRACKETS = {
    "(": "-lrb-",
    ")": "-rrb-",
    "[": "-lsb-",
    "]": "-rsb-",
    "{": "-lcb-",
    "}": "-rcb-",
}
# Cut in two although nothing stands between the parts.
_FUSED = {
    "cannot": ("can", "not"),
    "gonna": ("gon", "na"),
    "gotta": ("got", "ta"),
    "wanna": ("wan", "na"),
    "gimme": ("gim", "me"),
    "lemme": ("lem", "me"),
}
# What keeps its stop, beside single letters and rows of them.
_SHORT = """
    adm ala apr assn atty aug ave bldg blvd bros calif capt cmdr co col corp dec dept dr esq est etc
    feb fla fri gen gov hon inc jan jr jul jun lt ltd maj mar messrs minn mme mon mr mrs ms mt nov
    oct ph.d pres prof pvt rd rep rev sen sep sept sgt sr st supt thu thurs tue tues univ va vs wed
"""
_TOKEN = re.compile(
    rf"""
      (?P<web>https?://\S+ | www\.[^\s,;]+ | [\w.]+@[\w.]*\w | @\w+ | [#][^\W\d]\w*)
    | (?P<short>(?:[^\W\d_]\.)+ | (?:{"|".join(_SHORT.split())})\. | (?:no|p|fig)\.(?=\s*\d))(?!\w)
    | (?P<year>'\d\ds?\b)
    | (?P<kept>[cdlo]'[^\W\d_]{{3,}} | (?:c'mon|d'oh|d'ye|ma'am)\b | ol' | 'n'(?!\w))
    | (?P<cut>'(?:em|til|cause)\b)
    | (?P<hour>\d+[.:]\d\d(?=[ap]m\b))
    | (?P<number>\d+(?:[.,:/-]\d+)* (?:-?[^\W\d_][^\W_]*(?:-[^\W_]+)*)?)
    | (?P<word>[^\W\d_][^\W_]*(?:[-/&.][^\W_]+)*)
    | (?P<ending>'(?:s|m|d|re|ve|ll)(?!\w))
    | (?P<tis>'t(?=(?:is|was)\b))
    | (?P<stops>\.\.\.) | (?P<signs>[!?]+) | (?P<dash>--+) | (?P<other>\S)
    """,
    re.VERBOSE,
)
_PLAIN = str.maketrans(
    {
        "\N{RIGHT SINGLE QUOTATION MARK}": "'",
        "\N{LEFT SINGLE QUOTATION MARK}": "'",
        "\N{RIGHT DOUBLE QUOTATION MARK}": '"',
        "\N{LEFT DOUBLE QUOTATION MARK}": '"',
        "\N{EN DASH}": "--",
        "\N{EM DASH}": "--",
        "\N{HORIZONTAL ELLIPSIS}": "...",
    }
)
_NOT = re.compile(r"n't(?!\w)")


def caption_words(caption: str) -> list[str]:
    """Return the words of a caption, in lower case and without punctuation."""
    text = caption.lower().translate(_PLAIN)
    return [word for word in _tokens(text) if word not in _DROPPED]


def _tokens(text: str) -> list[str]:
    tokens: list[str] = []
    place = 0
    while found := _TOKEN.search(text, place):
        place = found.end()
        token = found[0]
        if found.lastgroup == "word" and token.endswith("n") and _NOT.match(text, place - 1):
            tokens += [token[:-1], "n't"] if token != "n" else ["n't"]
            place += 2
        elif found.lastgroup == "word" and token in _FUSED:
            tokens += _FUSED[token]
        elif found.lastgroup != "dash" and token != '"':
            tokens.append(_BRACKETS.get(token, token))
    return tokens
