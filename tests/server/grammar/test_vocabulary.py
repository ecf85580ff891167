"""Tests of how grammars see a model's tokens."""

import pytest
from grammar_parts import allowed, matcher_of, vocabulary_of
from tiny_llava import make_tokenizer
from tokenizer_forms import EOS, all_forms
from tokenizers import AddedToken

from skipserve.grammar.fault import GrammarFaultError
from skipserve.grammar.matcher import compiled
from skipserve.grammar.structure import Choice, Regex, Shape
from skipserve.grammar.vocabulary import Vocabulary
from skipserve.grammar.writing import written
from skipserve.prompt.tokenizer import Tokenizer

pytestmark = pytest.mark.fast

# Qwen2's tokenizers have such a token, which is not special.
TAG = "<tool_call>"


@pytest.fixture(scope="module")
def tagged() -> tuple[Tokenizer, Vocabulary]:
    theirs = make_tokenizer()
    theirs.add_tokens([AddedToken(TAG, normalized=False)])
    tokenizer = Tokenizer(theirs.to_str())
    return tokenizer, Vocabulary.of(tokenizer, [EOS], tokenizer.size)


@pytest.mark.parametrize("shape", [Regex("(?s:.*)"), Choice((TAG, "no"))])
def test_a_token_that_looks_special_and_is_not_is_text(
    tagged: tuple[Tokenizer, Vocabulary], shape: Shape
) -> None:
    tokenizer, vocabulary = tagged
    may_come = allowed(compiled(written(shape), vocabulary))
    assert tokenizer.token_id(TAG) in may_come
    assert tokenizer.token_id("<s>") not in may_come


@pytest.mark.parametrize("text", ["ab", " a b", "</s>", "<image>\n", '{"\u20ac": 1}'])
@pytest.mark.parametrize("form", all_forms())
def test_what_must_come_is_spelt_as_the_tokenizer_spells_it(form: str, text: str) -> None:
    tokenizer, vocabulary = vocabulary_of(form)
    token_ids = vocabulary.tokenizer.tokenize_str(text)
    assert b"".join(map(tokenizer.token_bytes, token_ids)) == text.encode()
    matcher = matcher_of(Choice((text,)), form)
    for token_id in token_ids:
        assert token_id in allowed(matcher)
        matcher.advance([token_id])
    assert allowed(matcher) == [EOS]


def test_no_token_that_ends_an_answer_is_text() -> None:
    tokenizer, _ = vocabulary_of()
    end, other = tokenizer.encode("xy", adds_special=False)
    vocabulary = Vocabulary.of(tokenizer, [end], tokenizer.size)
    assert allowed(compiled(written(Regex("[xy]{2}")), vocabulary)) == [other]


def test_a_model_without_an_end_has_no_grammars() -> None:
    tokenizer, _ = vocabulary_of()
    with pytest.raises(GrammarFaultError, match="no token that ends"):
        Vocabulary.of(tokenizer, [], 300)
