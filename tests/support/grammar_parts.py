"""A small vocabulary for grammars, and answers that are drawn within one."""

import random
from functools import cache

import numpy as np
from tokenizer_forms import EOS, all_forms

from skipserve.grammar.matcher import Matcher, compiled
from skipserve.grammar.structure import Shape
from skipserve.grammar.vocabulary import Vocabulary
from skipserve.grammar.writing import written
from skipserve.prompt.tokenizer import Tokenizer

# Rows of logits that no token has.
NUM_SPARE = 5


@cache
def vocabulary_of(form: str = "byte_level") -> tuple[Tokenizer, Vocabulary]:
    """Return a tokenizer of a form, and its tokens for grammars."""
    tokenizer = Tokenizer(all_forms()[form].to_str())
    return tokenizer, Vocabulary.of(tokenizer, [EOS], tokenizer.size + NUM_SPARE)


def matcher_of(shape: Shape, form: str = "byte_level") -> Matcher:
    """Return a matcher at the beginning of a shape."""
    return compiled(written(shape), vocabulary_of(form)[1])


def allowed(matcher: Matcher) -> list[int]:
    """Return the tokens that may come next."""
    bits = np.unpackbits(matcher.mask().view(np.uint8), bitorder="little")
    return [int(token_id) for token_id in bits.nonzero()[0]]


def drawn(shape: Shape, seed: int, form: str = "byte_level", most: int = 400) -> str | None:
    """Return an answer of so many tokens at most, drawn within a shape; None if it did not end."""
    source, matcher, content = random.Random(seed), matcher_of(shape, form), b""
    tokenizer, _ = vocabulary_of(form)
    for _ in range(most):
        token_ids = allowed(matcher)
        if EOS in token_ids and (token_ids == [EOS] or source.random() < 0.5):
            return content.decode()
        token_id = source.choice([it for it in token_ids if it != EOS])
        content += tokenizer.token_bytes(token_id)
        matcher.advance([token_id])
    return None
