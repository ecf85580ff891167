"""Tests of answer text as it grows."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tiny_llava import make_tokenizer

from skipserve.prompt.detokenize import Detokenizer, StopScanner
from skipserve.prompt.tokenizer import Tokenizer

pytestmark = pytest.mark.fast

THEIRS = make_tokenizer()
OURS = Tokenizer(THEIRS.to_str())

# Spells special tokens out, as an answer that only looks like one would be.
PLAIN = make_tokenizer()
PLAIN.encode_special_tokens = True


def detokenize(ids: list[int]) -> list[str]:
    detokenizer = Detokenizer(OURS)
    return [*(detokenizer.push(token_id) for token_id in ids), detokenizer.finish()]


@given(ids=st.lists(st.integers(0, 265)))
def test_the_pieces_make_the_text(ids: list[int]) -> None:
    expected = THEIRS.decode(ids, skip_special_tokens=True)
    assert "".join(detokenize(ids)) == expected.removeprefix(" ")


def test_a_text_that_goes_on_keeps_its_first_space() -> None:
    detokenizer = Detokenizer(OURS, drops_space=False)
    ids = THEIRS.encode(" the cat", add_special_tokens=False).ids
    assert "".join(map(detokenizer.push, ids)) + detokenizer.finish() == " the cat"


@given(text=st.text())
@example(text="a <image> </s>")
def test_no_character_is_shown_in_part(text: str) -> None:
    ids = PLAIN.encode(text, add_special_tokens=False).ids
    pieces = detokenize(ids)
    assert "\ufffd" in text or not any("\ufffd" in piece for piece in pieces)
    assert "".join(pieces) == text.removeprefix(" ")


def test_an_answer_that_ends_inside_a_character() -> None:
    ids = THEIRS.encode("€", add_special_tokens=False).ids
    assert len(ids) == 3
    assert detokenize(ids[:2]) == ["", "", "\ufffd"]


def test_only_the_first_space_is_dropped() -> None:
    ids = THEIRS.encode("  a b", add_special_tokens=False).ids
    assert "".join(detokenize(ids)) == " a b"


def scan(stops: list[str], pieces: list[str]) -> tuple[list[str], bool]:
    scanner = StopScanner(stops)
    shown = [scanner.push(piece) for piece in pieces]
    has_stopped = scanner.has_stopped
    return [*shown, scanner.finish()], has_stopped


def expected_cut(stops: list[str], text: str) -> str:
    """The meaning: cut before the stop string that is completed first."""
    for end in range(1, len(text) + 1):
        lengths = [len(stop) for stop in stops if text[:end].endswith(stop)]
        if lengths:
            return text[: end - max(lengths)]
    return text


letters = st.text("ab", min_size=1, max_size=5)


@given(stops=st.lists(letters, max_size=4), pieces=st.lists(st.text("ab", max_size=4)))
def test_the_scanner_cuts_where_it_should(stops: list[str], pieces: list[str]) -> None:
    shown, has_stopped = scan(stops, pieces)
    text = "".join(pieces)
    assert "".join(shown) == expected_cut(stops, text)
    assert has_stopped == any(stop in text for stop in stops)


@given(stops=st.lists(letters, max_size=4), pieces=st.lists(st.text("ab", max_size=4)))
def test_what_is_shown_is_never_taken_back(stops: list[str], pieces: list[str]) -> None:
    scanner, so_far = StopScanner(stops), ""
    for piece in pieces:
        so_far += scanner.push(piece)
        assert expected_cut(stops, "".join(pieces)).startswith(so_far)


def test_text_that_begins_no_stop_string_is_shown_at_once() -> None:
    assert scan(["END"], ["ab", "cE", "x", "EN", "D?"]) == (["ab", "c", "Ex", "", "", ""], True)


def test_without_stop_strings_all_is_shown() -> None:
    assert scan([], ["a", "b"]) == (["a", "b", ""], False)


def test_s37_the_stop_search_takes_linear_time() -> None:
    stops = ["a" * 255 + letter for letter in "bcde"]

    def seconds(length: int) -> float:
        scanner = StopScanner(stops)
        begun = time.thread_time()
        for _ in range(length // 10):
            scanner.push("a" * 10)
        return time.thread_time() - begun

    seconds(1000)
    assert seconds(40_000) < 40 * max(seconds(4_000), 0.01)
