"""Replays a load with a burst: under `full`, with refusals, and as the server chooses."""

import asyncio
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import mean, median
from time import perf_counter
from typing import Annotated

import typer
from flood import milliseconds
from options import Model, Output
from report import RESULTS, Row, grid, show, write
from timing import track

from skipserve_client.client import AsyncSkipserveClient
from skipserve_client.errors import ApiError
from skipserve_client.evaluate.own_server import own_server
from skipserve_client.evaluate.questions_by_name import questions_of
from skipserve_client.evaluate.sample import Sample
from skipserve_client.evaluate.scoring import GradedAnswer
from skipserve_client.replies import Answer

# Of what `full` serves: a calm time, a burst, a calm time again.
CALM, BURST = 0.4, 1.25
# The target, in answers alone.
TIMES_ALONE = 10
_NUM_ALONE, _NUM_TOGETHER = 15, 16
_MAX_TOKENS = 16


@dataclass
class Outcome:
    """What came of the requests of one turn.

    Attributes:
        target_seconds: what an answer should at most take.
        seconds: of each answer.
        refused: how many were refused.
        kept: of each answer, the share of `full`'s quality that its policy was measured to keep.
        right: of each answer, whether it is right.
    """

    target_seconds: float
    seconds: list[float] = field(default_factory=list)
    refused: int = 0
    kept: list[float] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)

    def take(self, answer: Answer, sample: Sample, seconds: float) -> None:
        """Take an answer in."""
        because = answer.skip.chosen_because
        quality = because.quality if because else None
        self.seconds.append(seconds)
        self.kept.append(1.0 if quality is None else quality)
        graded = GradedAnswer.of(sample.type, sample.answers, answer.text)
        self.right.append(graded.is_correct)

    @property
    def in_time(self) -> float:
        """The share of all requests that were answered within the target."""
        num_sent = len(self.seconds) + self.refused
        return sum(it <= self.target_seconds for it in self.seconds) / num_sent

    def of_target(self, percent: float) -> float:
        """Return a percentile of the answers' times, in targets."""
        return milliseconds(self.seconds, percent) / (1000 * self.target_seconds)


@dataclass(frozen=True)
class Load:
    """Requests, and when each comes.

    Attributes:
        samples: what is asked.
        times: seconds from the start, ascending.
    """

    samples: Sequence[Sample]
    times: Sequence[float]


def main(
    model: Model = "demo",
    data: Annotated[str, typer.Option(help="As `skipserve evaluate` takes it.")] = "demo",
    floor: Annotated[float, typer.Option(help="The quality under pressure.")] = 0.95,
    pressure: Annotated[float, typer.Option(help="Seconds of wait from which there is.")] = 0.1,
    seconds: Annotated[float, typer.Option(min=1, help="Of each of the three times.")] = 8.0,
    repeats: Annotated[int, typer.Option(min=1, help="Timed turns, after one that is not.")] = 3,
    output: Output = RESULTS / "auto.json",
) -> None:
    """Compare latency and measured quality under a burst, with the server's choice and without."""
    samples = questions_of(data, None, None).samples
    flags = [
        *("--model", model, "--num-threads", "1", "--auto-min-quality", str(floor)),
        *("--auto-pressure-seconds", str(pressure), "--auto-relief-seconds", str(pressure / 5)),
    ]
    turns: dict[str, list[Outcome]] = {}
    with own_server(flags) as url:
        for number in track(repeats + 1, "auto"):
            # Anew for each turn: a busy machine serves now more and now less.
            alone, capacity = asyncio.run(_measure(url, samples, f"{number}"))
            target, load = TIMES_ALONE * alone, _load(samples, capacity, seconds, seed=number)
            for place, (name, policy) in enumerate(_modes(target).items()):
                outcome = Outcome(target)
                asyncio.run(_replay(url, load, policy, f"{number}-{place}", outcome))
                if number:
                    turns.setdefault(name, []).append(outcome)
    rows = list(_rows(turns, floor))
    show(rows)
    write("auto", rows, sys.argv[1:], output, grid)


def _modes(target: float) -> dict[str, object]:
    """Return what each kind of request says of its policy."""
    limit = {"max_latency_ms": 1000 * target}
    return {
        "full": "full",
        "full or refused": {"auto": limit | {"min_quality": 1.0}},
        "auto": "auto",
        "auto or refused": {"auto": limit},
    }


def _load(samples: Sequence[Sample], capacity: float, seconds: float, seed: int) -> Load:
    """Return requests that come by chance: calmly, in a burst, calmly."""
    draw = random.Random(seed)
    times: list[float] = []
    for place, share in enumerate((CALM, BURST, CALM)):
        now = place * seconds + draw.expovariate(share * capacity)
        while now < (place + 1) * seconds:
            times.append(now)
            now += draw.expovariate(share * capacity)
    return Load([draw.choice(samples) for _ in times], times)


async def _measure(url: str, samples: Sequence[Sample], salt: str) -> tuple[float, float]:
    """Return the seconds of an answer alone, and answers a second of as many as can be."""
    async with AsyncSkipserveClient(url) as client:
        alone, together = Outcome(0.0), Outcome(0.0)
        for sample in samples[:_NUM_ALONE]:
            await _ask(client, sample, "full", f"{salt}-alone", alone)
        waiting = iter(samples[: 4 * _NUM_TOGETHER])
        begun = perf_counter()

        async def ask_on() -> None:
            for sample in waiting:
                await _ask(client, sample, "full", f"{salt}-together", together)

        await asyncio.gather(*(ask_on() for _ in range(_NUM_TOGETHER)))
        return median(alone.seconds), len(together.seconds) / (perf_counter() - begun)


async def _replay(url: str, load: Load, policy: object, salt: str, outcome: Outcome) -> None:
    """Send requests when they are due, whatever became of those before."""
    begun = perf_counter()
    async with AsyncSkipserveClient(url, max_retries=0) as client:

        async def ask_at(sample: Sample, due: float) -> None:
            await asyncio.sleep(max(0.0, begun + due - perf_counter()))
            await _ask(client, sample, policy, salt, outcome)

        await asyncio.gather(*map(ask_at, load.samples, load.times))


async def _ask(
    client: AsyncSkipserveClient, sample: Sample, policy: object, salt: str, outcome: Outcome
) -> None:
    messages, begun = sample.messages(), perf_counter()
    try:
        answer = await client.chat(
            messages,
            skip_policy=policy,  # type: ignore[arg-type]
            cache_salt=salt,
            max_tokens=_MAX_TOKENS,
            temperature=0,
        )
    except ApiError as error:
        # 400 where a request would be late even alone.
        if error.status != 503 and "expected to answer" not in str(error):
            raise
        outcome.refused += 1
    else:
        outcome.take(answer, sample, perf_counter() - begun)


def _rows(turns: dict[str, list[Outcome]], floor: float) -> Iterator[Row]:
    for name, outcomes in turns.items():

        def over(figure: Callable[[Outcome], float], found: list[Outcome] = outcomes) -> float:
            return median(map(figure, found))

        yield Row(f"{name}/p50 of the target", over(lambda it: it.of_target(50)), "x")
        p95 = over(lambda it: it.of_target(95))
        yield Row(f"{name}/p95 of the target", p95, "x", 1.0, is_limit=True)
        yield Row(f"{name}/in time", 100 * over(lambda it: it.in_time), "%")
        refused = over(lambda it: it.refused / (len(it.seconds) + it.refused))
        yield Row(f"{name}/refused", 100 * refused, "%")
        yield Row(f"{name}/kept, measured", 100 * over(lambda it: _mean(it.kept)), "%", 100 * floor)
        yield Row(f"{name}/right", 100 * over(lambda it: _mean(it.right)), "%")


def _mean(values: Sequence[float]) -> float:
    return mean(values) if values else 0.0


if __name__ == "__main__":
    typer.run(main)
