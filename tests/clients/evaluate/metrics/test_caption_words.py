"""Captions are cut as Stanford's PTBTokenizer 3.4.1 cuts them; what is expected is that program's.

It was run with `-preserveLines -lowerCase`, and pycocoevalcap's punctuation taken out of it.
"""

import pytest

from skipserve_client.evaluate.metrics.caption_words import caption_words

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A man riding a wave on top of a surfboard.", "a man riding a wave on top of a surfboard"),
        (
            "A man's dog isn't here, it's \"over there\"; don't you see?",
            "a man 's dog is n't here it 's over there do n't you see",
        ),
        (
            "Two dogs (brown and white) can't play w/ a ball.",
            "two dogs -lrb- brown and white -rrb- ca n't play w / a ball",
        ),
        (
            "A black-and-white photo of a 3-year-old boy at 3:30 p.m.",
            "a black-and-white photo of a 3-year-old boy at 3:30 p.m.",
        ),
        (
            "They're gonna go, cannot stay... wanna eat?",
            "they 're gon na go can not stay wan na eat",
        ),
        (
            "The grey colour of the centre is 50% off & costs $5.00, or 1,000 dollars!",
            "the grey colour of the centre is 50 % off & costs $ 5.00 or 1,000 dollars",
        ),
        (
            "A Mr. Smith from the U.S. stands near St. Mary's.",
            "a mr. smith from the u.s. stands near st. mary 's",
        ),
        (
            "It is the boys' kitchen - and a bathroom -- with 1/2 of a pizza.",
            "it is the boys kitchen and a bathroom with 1/2 of a pizza",
        ),
        (
            "a plate with eggs/bacon and/or toast *yum* #1 @home",
            "a plate with eggs/bacon and/or toast * yum * # 1 @home",
        ),
        ("he said 'hello' to the world", "he said hello to the world"),
        ("some people at the o'clock rock 'n' roll", "some people at the o'clock rock 'n' roll"),
        (
            "a stop sign that says STOP [sic] {really}",
            "a stop sign that says stop -lsb- sic -rsb- -lcb- really -rcb-",
        ),
        ("It's 10am in the 1970's and '80s", "it 's 10am in the 1970 's and '80s"),
        ("a dog..  two!! what?? ok?!", "a dog two !! what ?? ok ?!"),
        ("A cell-phone; me@x.com www.coco.org", "a cell-phone me@x.com www.coco.org"),
        ("a kitchen with a stove,oven and sink.", "a kitchen with a stove oven and sink"),
        ("7:00am 12:30pm 7pm 11.30am", "7:00 am 12:30 pm 7pm 11.30 am"),
        ("'Tis a cat at no. 5, no more", "'t is a cat at no. 5 no more"),
        ("the cat sat. in the sun.", "the cat sat in the sun"),
        ("a plan b.", "a plan b."),
        ("rock n' roll; runnin' ol' man", "rock n roll runnin ol' man"),
        ("gimme a lemme gotta dunno d'ye", "gim me a lem me got ta dunno d'ye"),
        ("", ""),
    ],
)
def test_words(caption: str, words: str) -> None:
    assert caption_words(caption) == words.split()


def test_curly_quotes_and_dashes_are_as_straight_ones() -> None:
    curly = "a \N{LEFT DOUBLE QUOTATION MARK}big\N{RIGHT DOUBLE QUOTATION MARK} cat \N{EM DASH} red"
    assert caption_words(curly) == ["a", "big", "cat", "red"]
