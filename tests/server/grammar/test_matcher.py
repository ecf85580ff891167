"""Tests of matchers: masks, ends, copies, and grammars that would take too much."""

import pytest
from grammar_parts import NUM_SPARE, allowed, matcher_of, vocabulary_of
from tokenizer_forms import EOS

from skipserve.grammar.fault import GrammarFaultError
from skipserve.grammar.matcher import Grammars
from skipserve.grammar.structure import Choice, ContextFree, Json, Regex, Shape
from skipserve.grammar.vocabulary import Vocabulary
from skipserve.grammar.writing import written

pytestmark = pytest.mark.fast


def ids(text: str) -> list[int]:
    return vocabulary_of()[0].encode(text, adds_special=False)


def test_a_complete_grammar_allows_the_end_alone() -> None:
    matcher = matcher_of(Choice(("ab",)))
    assert EOS not in allowed(matcher)
    matcher.advance(ids("ab"))
    assert matcher.num_taken == len(ids("ab"))
    assert allowed(matcher) == [EOS]


def test_no_special_token_and_no_spare_row_is_ever_allowed() -> None:
    tokenizer, vocabulary = vocabulary_of()
    assert vocabulary.size == tokenizer.size + NUM_SPARE
    matcher = matcher_of(Regex("(?s:.*)"))
    found = set(allowed(matcher))
    assert found & {*tokenizer.hidden_tokens.values()} == {EOS}
    assert max(found) < tokenizer.size


def test_a_character_may_be_spelt_byte_by_byte() -> None:
    for form in ("byte_level", "prepend"):
        tokenizer, _ = vocabulary_of(form)
        matcher = matcher_of(Choice(("\u20ac",)), form)
        for byte in "\u20ac".encode():
            [token_id] = allowed(matcher)
            assert tokenizer.token_bytes(token_id) == bytes([byte])
            matcher.advance([token_id])


def test_copies_go_on_by_themselves() -> None:
    first = matcher_of(Choice(("ab", "cd")))
    second = first.copy()
    first.advance(ids("a"))
    assert second.num_taken == 0
    second.advance(ids("c"))
    assert set(allowed(first)) == {*ids("b")}
    assert set(allowed(second)) == {*ids("d")}


def test_what_a_grammar_does_not_allow_is_an_error() -> None:
    with pytest.raises(GrammarFaultError):
        matcher_of(Choice(("ab",))).advance(ids("x"))


@pytest.mark.parametrize(
    "shape",
    [
        Json('{"$ref": "#"}'),
        Json('{"$ref": "#/$defs/none"}'),
        Json('{"$ref": "http://127.0.0.1:9/a.json"}'),
        Json('{"$ref": "file:///etc/passwd"}'),
        Json('{"enum": []}'),
        Json('{"type": "array", "uniqueItems": true}'),
        Regex("[^\\s\\S]"),
        Regex("("),
        Regex("(a)\\1"),
        ContextFree("start: a\na: a"),
        ContextFree('start: <none> "x"'),
    ],
)
def test_what_cannot_be_compiled(shape: Shape) -> None:
    with pytest.raises(GrammarFaultError):
        matcher_of(shape).mask()


@pytest.mark.parametrize(
    "rules",
    ['s: s s | s s s | "a" |', 's: s s s s s s s s | "a" | ""', 's: s "x" | s s | "a"'],
)
def test_an_ambiguous_grammar_fails_before_a_step_takes_long(rules: str) -> None:
    """Without limits the first of them takes minutes for a token."""
    matcher = matcher_of(ContextFree(f"start: s\n{rules}\n"))

    def repeat() -> None:
        for _ in range(1000):
            matcher.mask()
            matcher.advance(ids("a"))

    with pytest.raises(GrammarFaultError, match="items"):
        repeat()


def test_a_vocabulary_is_read_once_and_grammars_are_kept() -> None:
    reads = []

    def load() -> Vocabulary:
        reads.append(1)
        return vocabulary_of()[1]

    grammars = Grammars(load)
    assert not reads
    text = written(Choice(("ab",)))
    assert not grammars.knows(text)
    grammars.start(text).advance(ids("ab"))
    assert grammars.knows(text)
    assert set(allowed(grammars.start(text))) == {*ids("a")}
    grammars.start(written(Choice(("b",))))
    assert len(reads) == 1
