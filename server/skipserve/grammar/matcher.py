"""A grammar token by token: which may come next. Knows no logits."""

import threading
from collections.abc import Callable, Sequence

import numpy as np
from llguidance import LLMatcher
from numpy.typing import NDArray

from skipserve.grammar.cache import LatestCache
from skipserve.grammar.fault import GrammarFaultError, in_words
from skipserve.grammar.vocabulary import Vocabulary
from skipserve.grammar.writing import LIMITS

_MAX_KEPT, _MAX_KEPT_BYTES = 64, 4 * 2**20


class Matcher:
    """How far one answer has come in its grammar.

    Attributes:
        num_taken: tokens that it has taken in.

    Args:
        matcher: llguidance's, at the beginning.
        size: tokens that it knows.
    """

    def __init__(self, matcher: LLMatcher, size: int) -> None:
        self.num_taken = 0
        self._matcher = matcher
        self._num_words = -(-size // 32)

    def advance(self, token_ids: Sequence[int]) -> None:
        """Take in what the answer goes on with.

        Raises:
            GrammarFaultError: it may not, or the grammar takes too much work there.
        """
        for token_id in token_ids:
            self._matcher.consume_token(token_id)
            self.num_taken += 1
        self._check()

    def mask(self) -> NDArray[np.int64]:
        """Return a bit for each token, whether it may come next, [words of 64 bits].

        Where the grammar is complete, those that end an answer may.

        Raises:
            GrammarFaultError: none may, or the grammar takes too much work there.
        """
        words = np.zeros(-(-self._num_words // 2), np.int64)
        self._matcher.unsafe_compute_mask_ptr(words.ctypes.data, 4 * self._num_words)
        self._check()
        return words

    def copy(self) -> "Matcher":
        """Return another that is as far, and goes on by itself."""
        copied = Matcher(self._matcher.deep_copy(), 32 * self._num_words)
        copied.num_taken = self.num_taken
        return copied

    def _check(self) -> None:
        if self._matcher.is_error():
            raise GrammarFaultError(in_words(self._matcher.get_error()))


class Grammars:
    """Matchers for one model. Any thread may ask for one.

    Args:
        load: reads the model's vocabulary; called once, when the first grammar comes.
    """

    def __init__(self, load: Callable[[], Vocabulary]) -> None:
        self._load = load
        self._loading = threading.Lock()
        self._vocabulary: Vocabulary | None = None
        self._keeping = threading.Lock()
        self._kept: LatestCache[str, Matcher] = LatestCache(_MAX_KEPT, _MAX_KEPT_BYTES)

    def knows(self, grammar: str) -> bool:
        """Whether a matcher of a grammar is there at once."""
        with self._keeping:
            return self._kept.get(grammar) is not None

    def start(self, grammar: str) -> Matcher:
        """Return a matcher at a grammar's beginning.

        Raises:
            GrammarFaultError: there is none.
        """
        with self._keeping:
            found = self._kept.get(grammar)
        if found is None:
            found = self._compile(grammar)
            with self._keeping:
                self._kept.put(grammar, found, len(grammar))
        return found.copy()

    def _compile(self, grammar: str) -> Matcher:
        with self._loading:
            vocabulary = self._vocabulary = self._vocabulary or self._load()
        matcher = compiled(grammar, vocabulary)
        # What the first mask takes is kept for all that begin there.
        matcher.mask()
        return matcher


def compiled(grammar: str, vocabulary: Vocabulary) -> Matcher:
    """Return a matcher of a grammar; other threads of Python's run meanwhile.

    Raises:
        GrammarFaultError: it is no grammar, or takes too much work.
    """
    matcher = LLMatcher(vocabulary.tokenizer, grammar, log_level=0, limits=LIMITS)
    if matcher.is_error():
        raise GrammarFaultError(in_words(matcher.get_error()))
    return Matcher(matcher, vocabulary.size)
