"""Reads the chunks of a streamed answer, and notes when its tokens came. Knows no HTTP."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from skipserve_client.errors import ApiError, ProtocolError
from skipserve_client.load.records import Tokens

_DONE = "[DONE]"
# Where servers put what a model says besides its answer.
_TEXTS = ("content", "reasoning_content", "reasoning", "tool_calls")


class Watch:
    """What came of one answer so far.

    Args:
        tells_tokens: whether each chunk says how many tokens there are so far; else one that
            brings text counts as a token.

    Attributes:
        first: when the first token came; None before.
        gaps: seconds between tokens after the first; a chunk of k tokens is k gaps, of a k-th of
            the time since the chunk before.
        finish_reason: why the answer ended.
    """

    def __init__(self, *, tells_tokens: bool) -> None:
        self.first: float | None = None
        self.gaps: list[float] = []
        self.finish_reason: str | None = None
        self._tells_tokens = tells_tokens
        self._latest = 0.0
        self._num_tokens = 0
        self._num_chunks = 0
        self._usage: dict[str, Any] = {}
        self._skip: dict[str, Any] = {}
        self._is_done = False

    @property
    def is_complete(self) -> bool:
        """Whether the answer has come to its end."""
        return self._is_done or self.finish_reason is not None

    def take(self, event: str, now: float) -> None:
        """Take an event that came now.

        Raises:
            ApiError: it says that the request failed.
            ProtocolError: it is not in OpenAI's form.
        """
        if event == _DONE:
            self._is_done = True
            return
        with _known_form():
            chunk = json.loads(event)
            if "error" in chunk:
                raise ApiError.from_body(event, status=500)
            self._take_chunk(chunk, now)

    def tokens(self) -> Tokens:
        """Return what the answer is made of.

        Raises:
            ProtocolError: the server counts in another form than OpenAI's.
        """
        with _known_form():
            details = self._usage.get("prompt_tokens_details") or {}
            return Tokens(
                prompt=int(self._usage.get("prompt_tokens") or 0),
                cached=int(details.get("cached_tokens") or 0),
                completion=int(self._usage.get("completion_tokens") or self._num_tokens),
                chunks=self._num_chunks,
                planned_flops=_number(self._skip.get("planned_flops")),
                full_flops=_number(self._skip.get("full_flops")),
            )

    def _take_chunk(self, chunk: dict[str, Any], now: float) -> None:
        self._usage = chunk.get("usage") or self._usage
        self._skip = (chunk.get("metrics") or {}).get("skip") or self._skip
        choices = chunk.get("choices") or ()
        brings_text = False
        for choice in choices:
            delta = choice.get("delta") or {}
            brings_text |= any(delta.get(name) for name in _TEXTS)
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
        if not choices:
            return
        if self._tells_tokens:
            self._count(int(self._usage.get("completion_tokens") or 0) - self._num_tokens, now)
        elif brings_text:
            self._count(1, now)

    def _count(self, num_new: int, now: float) -> None:
        if num_new <= 0:
            return
        if self.first is None:
            self.first = now
        else:
            self.gaps += [(now - self._latest) / num_new] * num_new
        self._latest = now
        self._num_tokens += num_new
        self._num_chunks += 1


def _number(value: Any) -> int | None:
    return None if value is None else int(value)


@contextmanager
def _known_form() -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ProtocolError("an event is not in the form of OpenAI's streams") from error
