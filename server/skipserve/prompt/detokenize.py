"""Answer text as it grows: whole characters only, and nothing of a stop string.

Both classes take linear time in the length of the answer.
"""

import codecs
from collections.abc import Sequence

from skipserve.prompt.tokenizer import Tokenizer


class Detokenizer:
    """Turns tokens into text, holding back characters until their last byte is there.

    Args:
        tokenizer: the model's.
        drops_space: whether one space at the very start is dropped: a chat's template writes it
            after "ASSISTANT:".
    """

    def __init__(self, tokenizer: Tokenizer, *, drops_space: bool = True) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._has_begun = not drops_space

    def push(self, token_id: int) -> str:
        """Return the text that the token completes."""
        return self._take(self._decoder.decode(self._tokenizer.token_bytes(token_id)))

    def finish(self) -> str:
        """Return what is left: a replacement character where the answer ends inside one."""
        return self._take(self._decoder.decode(b"", final=True))

    def _take(self, text: str) -> str:
        if self._has_begun or not text:
            return text
        self._has_begun = True
        return text.removeprefix(" ")


class StopScanner:
    """Cuts text before the first stop string that is completed in it.

    Follows each stop string with the Knuth-Morris-Pratt automaton, so a stop string that begins
    in one piece of text and ends in another is found.

    Attributes:
        stop: the stop string that was found, the longest of several; what follows it is dropped.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [(stop, _borders(stop)) for stop in stops]
        self._matched = [0] * len(stops)
        self._held = ""
        self.stop: str | None = None

    @property
    def has_stopped(self) -> bool:
        """Whether a stop string was found."""
        return self.stop is not None

    def push(self, text: str, *, may_stop: bool = True) -> str:
        """Take more text and return what can be shown: no beginning of a stop string.

        Args:
            text: goes on where the last one ended.
            may_stop: whether a stop string that is completed in it counts.
        """
        if self.has_stopped:
            return ""
        text = self._held + text
        for index in range(len(self._held), len(text)):
            length = self._advance(text[index])
            if length and may_stop:
                self._held = ""
                self.stop = text[index + 1 - length : index + 1]
                return text[: index + 1 - length]
        num_held = max(self._matched, default=0)
        shown = text[: len(text) - num_held]
        self._held = text[len(shown) :]
        return shown

    def finish(self) -> str:
        """Return what was held back, when no stop string can follow any more."""
        held, self._held = self._held, ""
        return held

    def _advance(self, character: str) -> int:
        """Step every automaton; return the length of the longest stop string completed, or 0."""
        longest = 0
        for index, (stop, borders) in enumerate(self._stops):
            matched = self._matched[index]
            while matched and stop[matched] != character:
                matched = borders[matched]
            matched += stop[matched] == character
            if matched == len(stop):
                longest = max(longest, matched)
                matched = borders[matched]
            self._matched[index] = matched
        return longest


def _borders(stop: str) -> list[int]:
    """Return for each length the longest proper prefix that is also a suffix of that prefix."""
    borders = [0, 0]
    for index in range(1, len(stop)):
        border = borders[index]
        while border and stop[border] != stop[index]:
            border = borders[border]
        borders.append(border + (stop[border] == stop[index]))
    return borders
