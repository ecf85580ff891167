"""Prompts with all rows of their images, and with those that are left."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skipserve_policies.cost import parse_prompt
from skipserve_policies.flops import Request, prompt_classes
from skipserve_policies.plan import TokenClass
from skipserve_policies.reduction import Reduction
from skipserve_policies.schema import Reducer
from skipserve_policies.shapes import reduced_request, resize, whole_request
from skipserve_policies.sizes import KNOWN_MODELS

pytestmark = pytest.mark.fast

LLAVA_7B = KNOWN_MODELS["llava-1.5-7b"]
THIRD = Reduction(Reducer.DIVPRUNE, 192)


def prompt(notation: str) -> tuple[TokenClass, ...]:
    return prompt_classes(parse_prompt(notation))


@pytest.mark.parametrize(
    ("whole", "left"),
    [
        ("35+576+25", "35+192+25"),
        ("0+1152+1", "0+384+1"),
        ("3+576+4+576+5", "3+192+4+192+5"),
        ("7", "7"),
        ("3+576", "3+192"),
    ],
)
def test_each_image_is_resized(whole: str, left: str) -> None:
    assert resize(prompt(whole), 576, 192).prompt == prompt(left)
    assert resize(prompt(left), 192, 576).prompt == prompt(whole)


def test_places_follow_the_rows() -> None:
    places = resize(prompt("2+6+2"), 6, 4).places
    assert places == (0, 1, 2, 3, 4, 4, 5, 6, 6, 7, 8)
    back = resize(prompt("2+4+2"), 4, 6)
    assert back.places == (0, 1, 2, 3, 5, 6, 8, 9, 10)
    assert back.place(11) == 13, "behind the prompt lies the answer"


@given(
    whole=st.integers(2, 40),
    texts=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    data=st.data(),
)
def test_what_is_left_leads_back(whole: int, texts: list[int], data: st.DataObject) -> None:
    left = data.draw(st.integers(1, whole - 1))
    short = [part for text in texts for part in (text, left)][:-1]
    short[-1] += 1
    classes = prompt("+".join(map(str, short)))
    grown = resize(classes, left, whole)
    again = resize(grown.prompt, whole, left)
    assert again.prompt == classes
    assert [again.place(grown.place(place)) for place in range(len(classes) + 3)] == [
        *range(len(classes) + 3)
    ]
    assert list(grown.places) == sorted(set(grown.places))


def test_cached_rows_stand_for_as_many_of_the_whole() -> None:
    for cached in (0, 10, 35, 36, 100, 226, 227, 251):
        left = Request(prompt("35+192+25"), 10, num_cached=cached, num_images=1)
        whole = whole_request(LLAVA_7B, left, THIRD)
        assert len(whole.prompt) == 636
        assert reduced_request(LLAVA_7B, whole, THIRD) == left
    assert whole_request(LLAVA_7B, left, None) is left
