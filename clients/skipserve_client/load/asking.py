"""What each request of a load says: its picture, question, policy and limits."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count, islice

from skipserve_client.calls import ChatOptions, chat_stream_call
from skipserve_client.load.pictures import Picture, PictureSource, Repeats, file_picture
from skipserve_client.load.rows import Row
from skipserve_client.policy_choice import PolicyChoice, read_policy

DEFAULT_QUESTIONS = (
    "Describe the image.",
    "What is in the picture?",
    "How many objects are there?",
    "What color is the largest object?",
    "Is there anything red in the picture?",
    "What is in the upper left corner?",
    "Which shapes are there?",
    "What is next to the largest object?",
)
# What a load without a policy asks for, by the name that the caller has for it.
_NO_POLICY = PolicyChoice("", "")


@dataclass(frozen=True)
class Job:
    """One request, ready to be sent.

    Attributes:
        index: its place in the load.
        policy: the label of what it asks for.
        picture: what records call its picture.
        scheduled_seconds: when it is sent, from the beginning; None for when its turn comes.
        content: the body.
    """

    index: int
    policy: str
    picture: str | None
    question: str
    scheduled_seconds: float | None
    content: bytes


@dataclass(frozen=True)
class Asking:
    """Makes the requests of a load; the same for the same seed, in whatever order they are sent.

    Attributes:
        seed: of all that is drawn.
        options: of each request, but for what rows say.
        weights: how often each policy is asked for, relative to the others; none for a load that
            names no policy, which then is called by `unnamed`.
        unnamed: see `weights`.
        pictures: None for texts alone.
        repeats: which of them a request shows.
        rows: what is asked, in turn; none for the default questions.
        tells_tokens: whether the server can say with each chunk how many tokens there are.
    """

    seed: int
    options: ChatOptions
    weights: Mapping[PolicyChoice, float]
    unnamed: str
    pictures: PictureSource | None
    repeats: Repeats
    rows: Sequence[Row] = ()
    tells_tokens: bool = False

    def jobs(self, times: Iterator[float] | None = None, first: int = 0) -> Iterator[Job]:
        """Yield requests without end, or until the times end.

        Args:
            times: when they are sent; None for when their turn comes.
            first: the index of the first.
        """
        if times is None:
            return (self.job(index, None) for index in count(first))
        return (self.job(index, time) for index, time in enumerate(times, first))

    def warm_up(self, number: int) -> Iterator[Job]:
        """Yield requests that are not counted: of each policy in turn, with pictures of their own.

        They share no cache with the others where the server lets caches be set apart.
        """
        salted = self.options.copy()
        if "cache_salt" in salted:
            salted["cache_salt"] = f"{salted['cache_salt']}-warm-up"
        apart = replace(self, seed=self.seed + 1, options=salted)
        choices = list(self.weights) or [_NO_POLICY]
        for index in range(number):
            yield apart.job(index, None, choices[index % len(choices)])

    def job(self, index: int, time: float | None, choice: PolicyChoice | None = None) -> Job:
        """Return a request.

        Raises:
            PictureError: its picture cannot be read.
        """
        row = self.rows[index % len(self.rows)] if self.rows else Row()
        question = row.question or DEFAULT_QUESTIONS[index % len(DEFAULT_QUESTIONS)]
        picture = self._picture(row, index)
        policy = choice or self._policy(row, index)
        options = self.options.copy()
        if policy.label:
            options["skip_policy"] = policy.value
        if row.max_tokens is not None:
            options["max_tokens"] = row.max_tokens
        return Job(
            index,
            policy.label or self.unnamed,
            None if picture is None else picture.name,
            question,
            time,
            self._content(question, picture, options),
        )

    def _picture(self, row: Row, index: int) -> Picture | None:
        if row.picture is not None:
            return file_picture(row.picture)
        if self.pictures is None:
            return None
        return self.pictures.picture(self.repeats.number(index, self.seed))

    def _policy(self, row: Row, index: int) -> PolicyChoice:
        if (named := row_policy(row)) is not None:
            return named
        if not self.weights:
            return _NO_POLICY
        drawn = random.Random(f"{self.seed}/policy/{index}")
        (choice,) = drawn.choices(list(self.weights), list(self.weights.values()))
        return choice

    def _content(self, question: str, picture: Picture | None, options: ChatOptions) -> bytes:
        text = {"type": "text", "text": question}
        parts = [text] if picture is None else [_shown(picture), text]
        said = question if picture is None else parts
        call = chat_stream_call([{"role": "user", "content": said}], options)
        assert call.body is not None
        if self.tells_tokens:
            usage = {"include_usage": True, "continuous_usage_stats": True}
            call = replace(call, body=call.body | {"stream_options": usage})
        return call.content or b""


def _shown(picture: Picture) -> dict[str, object]:
    return {"type": "image_url", "image_url": {"url": picture.uri}}


def row_policy(row: Row) -> PolicyChoice | None:
    """Return the policy that a row names.

    Raises:
        CommandError: it is neither a name nor a policy.
    """
    if row.policy is None:
        return None
    if isinstance(row.policy, str):
        return read_policy(row.policy, "policy")
    return PolicyChoice.inline(row.policy)


def until(times: Iterator[float], requests: int | None, seconds: float | None) -> Iterator[float]:
    """Yield times until there are so many, or one lies behind so many seconds."""
    for time in islice(times, requests):
        if seconds is not None and time >= seconds:
            return
        yield time
