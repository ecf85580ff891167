"""A talk with a model: what was said, and what goes with the next question. Prints nothing."""

from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from skipserve_client.calls import ChatOptions
from skipserve_client.client import SkipserveClient
from skipserve_client.messages import Message, image_data_uri
from skipserve_client.policy_choice import PolicyChoice
from skipserve_client.replies import Answer
from skipserve_client.tables import CUT, format_share

SCHEMA = "skipserve.chat/1"


@dataclass(frozen=True)
class Turn:
    """One question and what came of it.

    Attributes:
        text: of the answer, as far as it came.
        seconds: to its end, as the user saw it.
        first_token_seconds: to its first text; None where none came.
        answer: what the server says of it; None where the answer was stopped.
    """

    question: str
    text: str
    seconds: float
    first_token_seconds: float | None
    answer: Answer | None

    def as_json(self) -> dict[str, Any]:
        """Return the form that `--json` prints and `/save` writes."""
        told = {"text": self.text} if self.answer is None else self.answer.model_dump(mode="json")
        times = {"seconds": self.seconds, "first_token_seconds": self.first_token_seconds}
        return {"question": self.question, **told, "is_stopped": self.answer is None, **times}

    def in_a_line(self) -> str:
        """Return what the answer took and saved."""
        if self.answer is None:
            return f"stopped after {self.seconds:.2f} s"
        usage, skip = self.answer.usage, self.answer.skip
        parts = [f"[{skip.policy}] {usage.completion_tokens} tokens, {self.seconds:.2f} s"]
        if self.first_token_seconds is not None:
            parts.append(f"first {self.first_token_seconds:.2f} s")
        parts.append(f"FLOPs saved {format_share(skip.saved_ratio)}")
        if usage.cached_tokens:
            parts.append(f"{usage.cached_tokens} of {usage.prompt_tokens} cached")
        if self.answer.finish_reason == CUT:
            parts.append("cut: see --max-tokens")
        return ", ".join(parts)


@dataclass
class Talk:
    """A talk under way.

    Attributes:
        options: of every question.
        policy: of the next answers; None for the server's default.
        pictures: data URIs that go along with the next question.
        messages: what was said, as the server takes it.
        turns: the same, with what the server told.
    """

    client: SkipserveClient
    options: ChatOptions
    policy: PolicyChoice | None = None
    pictures: list[str] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)

    def show(self, picture: str) -> None:
        """Let a picture go along with the next question.

        Raises:
            PictureError: it cannot be read.
        """
        self.pictures.append(image_data_uri(picture))

    def ask(self, question: str, on_text: Callable[[str], None]) -> Turn:
        """Ask, and hand on the answer as it comes; Ctrl-C stops it.

        What failed, or was stopped before it began, is as if it had not been asked: its pictures
        go along with the next question.

        Raises:
            ClientError: there is no answer.
            KeyboardInterrupt: the answer was stopped before its first text.
        """
        said: Message = {"role": "user", "content": self._content(question)}
        pieces: list[str] = []
        first_token_seconds: float | None = None
        answer: Answer | None = None
        begun = perf_counter()
        try:
            with self.client.stream_chat([*self.messages, said], **self._options()) as stream:
                for piece in stream:
                    if first_token_seconds is None:
                        first_token_seconds = perf_counter() - begun
                    pieces.append(piece)
                    on_text(piece)
                answer = stream.answer
        except KeyboardInterrupt:
            if not pieces:
                raise
        text = "".join(pieces)
        turn = Turn(question, text, perf_counter() - begun, first_token_seconds, answer)
        self.messages += [said, {"role": "assistant", "content": text}]
        self.turns.append(turn)
        self.pictures.clear()
        return turn

    def reset(self) -> None:
        """Forget what was said and shown."""
        self.messages.clear()
        self.turns.clear()
        self.pictures.clear()

    def as_json(self) -> dict[str, Any]:
        """Return the whole talk; `messages` can be sent to a server again as they are."""
        return {
            "schema": SCHEMA,
            "url": self.client.url,
            "options": dict(self.options),
            "messages": self.messages,
            "turns": [turn.as_json() for turn in self.turns],
        }

    def _content(self, question: str) -> str | list[dict[str, Any]]:
        if not self.pictures:
            return question
        shown = [{"type": "image_url", "image_url": {"url": uri}} for uri in self.pictures]
        return [*shown, {"type": "text", "text": question}]

    def _options(self) -> ChatOptions:
        options = self.options.copy()
        if self.policy is not None:
            options["skip_policy"] = self.policy.value
        return options
