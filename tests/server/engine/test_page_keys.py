"""Keys of pages: equal for pages that are computed alike, and for no others."""

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from skipserve.engine.page_keys import PageKeys, find_visual
from skipserve.engine.pages import PageKey
from skipserve.engine.plans import PlanTable
from skipserve.engine.request import Image, Request, SamplingParams
from skipserve_policies.plan import IDLE, Cell, Ffn, Plan, TokenClass, trim

pytestmark = pytest.mark.fast

IMAGE_ID = 3
TOKENS_PER_IMAGE = 3
PAGE = 4
FULL = Plan.full(4)
NO_FFN = (Cell(), Cell(ffn=Ffn.NONE), Cell(), Cell())
FROZEN = (Cell(), IDLE, IDLE, IDLE)
TEXT, VISUAL, LAST, GENERATED = TokenClass


def plan_of(*classes: TokenClass) -> Plan:
    """Return the plan in which these classes skip the FFN of block 1."""
    return trim(Plan(tuple(NO_FFN if c in classes else FULL.columns[c] for c in TokenClass)))


PLANS = {
    "full": trim(FULL),
    "generated": plan_of(GENERATED),
    "answer": plan_of(LAST, GENERATED),
    "visual": plan_of(VISUAL),
    "frozen": trim(replace(FULL, columns=(FULL.columns[TEXT], FROZEN, *FULL.columns[LAST:]))),
    "all": plan_of(*TokenClass),
}


@dataclass(frozen=True)
class Asked:
    """A request in short, with its answer so far.

    Attributes:
        prompt: letters from a to z are tokens; A to Z are images, each of which takes three rows.
        answer: letters; "I" is the image token, which the model may well generate.
    """

    prompt: str = "abcdefgh"
    answer: str = ""
    policy: str = "full"
    salt: str = ""
    page_size: int = PAGE

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        rows = (
            (IMAGE_ID,) * TOKENS_PER_IMAGE if letter.isupper() else (ord(letter),)
            for letter in self.prompt
        )
        return tuple(token_id for part in rows for token_id in part)

    @property
    def token_ids(self) -> NDArray[np.int64]:
        answer = [IMAGE_ID if letter == "I" else ord(letter) for letter in self.answer]
        return np.array([*self.prompt_ids, *answer], dtype=np.int64)

    @property
    def classes(self) -> tuple[TokenClass, ...]:
        before_last = (VISUAL if i == IMAGE_ID else TEXT for i in self.prompt_ids[:-1])
        return (*before_last, LAST)

    @property
    def request(self) -> Request:
        letters = [letter for letter in self.prompt if letter.isupper()]
        return Request(
            id=str(id(self)),
            prompt_ids=self.prompt_ids,
            token_classes=self.classes,
            images=tuple(map(_image, letters)),
            sampling=SamplingParams(max_tokens=20),
            policy_name=self.policy,
            plan=PLANS[self.policy],
            cache_salt=self.salt,
        )

    @property
    def num_pages(self) -> int:
        return len(self.token_ids) // self.page_size

    @property
    def keys(self) -> PageKeys:
        return keys_of(self.request, self.page_size)

    def key(self, index: int) -> PageKey:
        return self.keys.key(index, self.token_ids)

    def digests(self) -> list[bytes]:
        return [self.key(index).digest for index in range(self.num_pages)]

    def computed_from(self, index: int) -> tuple[object, ...]:
        """Say row by row what the pages up to one are computed from."""
        shown = [part for letter in self.prompt for part in _parts(letter)]
        shown += [f"token {letter}" if letter == "I" else letter for letter in self.answer]
        classes = (*self.classes, *(GENERATED,) * len(self.answer))
        rows = zip(shown, map(PLANS[self.policy].kv_digest, classes), strict=True)
        return self.salt, self.page_size, tuple(rows)[: (index + 1) * self.page_size]


def _image(letter: str, num_rows: int = TOKENS_PER_IMAGE) -> Image:
    return Image(b"", hashlib.sha256(letter.encode()).digest(), num_rows)


def keys_of(request: Request, page_size: int) -> PageKeys:
    assert isinstance(request.plan, Plan)
    digests = PlanTable(request.plan.num_layers).acquire(request.plan).kv_digests
    return PageKeys(request, digests, page_size, find_visual(request, IMAGE_ID))


def _parts(letter: str) -> list[str]:
    return [f"{letter}{i}" for i in range(TOKENS_PER_IMAGE)] if letter.isupper() else [letter]


def num_shared(one: Asked, other: Asked) -> int:
    """Return how many leading pages have equal keys."""
    same = [a == b for a, b in zip(one.digests(), other.digests(), strict=False)]
    return same.index(False) if False in same else len(same)


FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "prompt": st.text("abAB", min_size=1, max_size=6),
    "answer": st.text("abI", max_size=6),
    "policy": st.sampled_from(sorted(PLANS)),
    "salt": st.sampled_from(["", "a", "b", "ab"]),
    "page_size": st.integers(1, 5),
}


@st.composite
def two_requests(draw: st.DrawFn) -> tuple[Asked, Asked]:
    """Draw a request, and another that differs in some fields."""
    one = Asked(**{name: draw(values) for name, values in FIELDS.items()})
    changed = draw(st.sets(st.sampled_from(sorted(FIELDS)), max_size=2))
    return one, replace(one, **{name: draw(FIELDS[name]) for name in sorted(changed)})


@given(two_requests())
def test_keys_are_equal_iff_the_pages_are_computed_from_the_same(both: tuple[Asked, Asked]) -> None:
    one, other = both
    for i in range(one.num_pages):
        for j in range(other.num_pages):
            is_same = one.computed_from(i) == other.computed_from(j)
            assert (one.key(i) == other.key(j)) == is_same
            assert (one.key(i).digest == other.key(j).digest) == is_same


@pytest.mark.parametrize(
    ("one", "other", "num_same"),
    [
        (Asked(), Asked(salt="a"), 0),
        (Asked(salt="a"), Asked(salt="ab"), 0),
        (Asked(), Asked(page_size=2), 0),
        (Asked("abcdefgh"), Asked("xbcdefgh"), 0),
        (Asked("abcdefgh"), Asked("abcdxfgh"), 1),
        (Asked("abcdA"), Asked("abcdB"), 1),
        (Asked("abcdAb"), Asked("abcdBb"), 1),
        (Asked("AB"), Asked("BA"), 0),
        (Asked("abAB"), Asked("abBA"), 0),
        (Asked("abcAB"), Asked("abcAA"), 1),
        (Asked("abcdefA"), Asked("abcdefA", policy="visual"), 1),
        (Asked("abcdefAb"), Asked("abcdefAb", policy="frozen"), 1),
        (Asked(policy="visual"), Asked(policy="frozen"), 2),
        (Asked(), Asked(policy="all"), 0),
        (Asked("abcdefgh"), Asked("abcdefgh", policy="generated"), 2),
        (Asked("abcdefgh"), Asked("abcdefgh", policy="answer"), 1),
        (Asked("abcdefghi"), Asked("abcdefghi", policy="answer"), 2),
        (Asked("abcd", "efgh"), Asked("abcdefgh"), 2),
        (Asked("abcd", "efgh", policy="generated"), Asked("abcdefgh"), 1),
        (Asked("abcd", "efgh", policy="all"), Asked("abcdefgh", policy="all"), 2),
        (Asked("A", "aIII"), Asked("A", "aIII", policy="generated"), 0),
        (Asked("abcdefgh", "III"), Asked("abcdefgh", "aaa"), 2),
    ],
)
def test_pages_are_shared_up_to_the_first_row_that_is_computed_otherwise(
    one: Asked, other: Asked, num_same: int
) -> None:
    assert num_shared(one, other) == num_shared(other, one) == num_same


def test_a_generated_image_token_is_not_an_image() -> None:
    shown, written = Asked("aA"), Asked("a", "III")
    assert shown.key(0).token_ids == written.key(0).token_ids
    assert shown.key(0) != written.key(0)


def test_a_page_names_the_rows_of_the_image_that_it_shows() -> None:
    """Two images of two rows, and one of four, have the same tokens and the same digests."""
    request, token_ids = Asked("AAAA").request, np.full(4, IMAGE_ID)
    request = replace(request, prompt_ids=(IMAGE_ID,) * 4, token_classes=(*(VISUAL,) * 3, LAST))
    short = keys_of(replace(request, images=(_image("A", 2), _image("A", 2))), 2)
    tall = keys_of(replace(request, images=(_image("A", 4),)), 2)
    assert short.key(0, token_ids) == tall.key(0, token_ids)
    assert short.key(1, token_ids) != tall.key(1, token_ids)


def test_images_may_take_different_numbers_of_rows() -> None:
    """Whose rows a page shows follows from how many each image before it takes."""
    ids = (IMAGE_ID,) * 6
    request = replace(Asked("AA").request, prompt_ids=ids, token_classes=(*(VISUAL,) * 5, LAST))
    keys = []
    for rows in ((2, 4), (4, 2), (1, 5)):
        images = tuple(_image(letter, count) for letter, count in zip("AB", rows, strict=True))
        pages = keys_of(replace(request, images=images), 2)
        keys.append([pages.key(place, np.array(ids)) for place in range(3)])
    (first, *_), (second, *_), (third, *_) = keys
    assert first.digest == second.digest != third.digest
    assert len({page.digest for _, page, _ in keys}) == 3


def test_the_root_names_salt_and_page_size() -> None:
    roots = {Asked(salt=s, page_size=n).key(0).parent for s in ("", "a") for n in (2, 4)}
    assert len(roots) == 4


def test_an_image_that_ends_the_prompt_is_an_image_whatever_its_class() -> None:
    one, other = Asked("aA"), Asked("aB")
    assert one.classes[-1] is LAST
    assert one.key(0) != other.key(0)


def test_each_key_names_its_parent_and_its_tokens() -> None:
    asked = Asked("abcdefgh", "ijkl")
    first, second, third = (asked.key(i) for i in range(3))
    assert (second.parent, third.parent) == (first.digest, second.digest)
    assert second.token_ids == np.array([ord(c) for c in "efgh"], dtype="<i4").tobytes()
    assert len(first.digest) == len(first.parent) == 32


def test_keys_do_not_depend_on_when_they_are_asked_for() -> None:
    asked = Asked("abAcde", "fghi")
    keys, token_ids = asked.keys, asked.token_ids
    assert keys.key(0, token_ids[:PAGE]) == asked.key(0)
    assert keys.key(2, token_ids) == asked.key(2)
    # Worked out already: other tokens change nothing.
    assert keys.key(1, np.zeros_like(token_ids)) == asked.key(1)


def test_a_page_that_is_not_full_has_no_key() -> None:
    with pytest.raises(AssertionError, match="page 1 is not full"):
        Asked("abcdefg").key(1)
