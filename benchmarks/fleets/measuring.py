"""Measures on a real engine what a modelled replica takes."""

from collections.abc import Callable, Sequence
from statistics import median

from contenders import OurEngine
from fleets.terms import Terms, Warmth
from questions import Question, QuestionSource
from timing import Timing, time_set, track

from skipserve.engine.engine import Engine
from skipserve.model.llava import Llava

_MIB, _GIB = 2**20, 2**30
_NUM_NEW_TOKENS = 4
_SET = 16
_TOGETHER = (1, 2, 4, 8, 16)


def measure(  # noqa: PLR0913 (each is one of the replica's)
    model: Llava,
    source: QuestionSource,
    policies: Sequence[str],
    *,
    num_text: int,
    encoder_cache_mib: float,
    kv_cache_gib: float,
    repeats: int,
    title: str,
) -> Terms:
    """Return a replica's terms: processor seconds of one thread, medians.

    Args:
        model: loaded.
        source: of the questions.
        policies: whose requests are timed.
        num_text: text tokens of a question.
        encoder_cache_mib: for projected pictures; their number follows from their size.
        kv_cache_gib: for keys and values; likewise.
        repeats: of each figure.
        title: where the figures are from.
    """
    engine = Engine(model)
    asking = _Asking(OurEngine(engine), source, num_text)
    kinds = [(policy, warmth) for policy in policies for warmth in Warmth]
    turns = [
        {kind: asking.seconds(*kind, policies) for kind in kinds} for _ in track(repeats + 1, title)
    ]
    speeds = _speeds(engine, lambda: [asking.new(policies[0]) for _ in range(_SET)], repeats)
    question = asking.new(policies[0])
    row_bytes = model.config.sizes.decoder.hidden_size * model.dtype.itemsize
    page_bytes = model.cache_bytes_per_token() * len(question.prompt_ids)
    return Terms(
        seconds={
            policy: {
                warmth: median(turn[policy, warmth] for turn in turns[1:]) for warmth in Warmth
            }
            for policy in policies
        },
        speeds=speeds,
        num_features=int(encoder_cache_mib * _MIB / (question.image.num_rows * row_bytes)),
        num_pages=int(kv_cache_gib * _GIB / page_bytes),
        source=title,
    )


class _Asking:
    def __init__(self, ours: OurEngine, source: QuestionSource, num_text: int) -> None:
        self._ours, self._source, self._num_text = ours, source, num_text

    def new(self, policy: str) -> Question:
        return self._source.question(self._num_text, _NUM_NEW_TOKENS, policy=policy)

    def seconds(self, policy: str, warmth: Warmth, policies: Sequence[str]) -> float:
        """Ask about a picture of which so much is warm; return the processor's seconds."""
        picture = self._source.picture()
        other = next(it for it in policies if it != policy)
        before = {Warmth.NOTHING: (), Warmth.FEATURES: (other,), Warmth.PAGES: (policy,)}[warmth]
        for name in (*before, policy):
            question = self._source.question(
                self._num_text, _NUM_NEW_TOKENS, picture=picture, policy=name
            )
            timing: Timing = time_set(self._ours, [question])
        return timing.cpu_seconds


def _speeds(engine: Engine, draw: Callable[[], list[Question]], repeats: int) -> tuple[float, ...]:
    """Return how much faster a set gets done by how many run together, 1 to the largest."""
    contenders = {together: OurEngine(engine, together) for together in _TOGETHER}
    turns = [
        {it: time_set(contender, draw()).cpu_seconds for it, contender in contenders.items()}
        for _ in range(repeats + 1)
    ]
    seconds = {it: median(turn[it] for turn in turns[1:]) for it in _TOGETHER}
    return tuple(seconds[1] / _between(seconds, it + 1) for it in range(_TOGETHER[-1]))


def _between(seconds: dict[int, float], together: int) -> float:
    """Return the seconds of so many together, on the line between those that were measured."""
    low = max(it for it in seconds if it <= together)
    high = min(it for it in seconds if it >= together)
    if low == high:
        return seconds[low]
    share = (together - low) / (high - low)
    return seconds[low] * (1 - share) + seconds[high] * share
