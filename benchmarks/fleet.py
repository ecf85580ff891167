"""Predicts what many replicas do: the server's placing, modelled replicas, a million requests.

What comes out is a prediction: its terms are measured on one engine, or said to be an estimate.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from checkpoints import checkpoint
from fleets.measuring import measure
from fleets.page import RECORD
from fleets.page import main as write_page
from fleets.simulation import Fleet, Outcome, Simulation
from fleets.strategies import Choose, strategies
from fleets.terms import Terms, Warmth
from fleets.workload import draw
from options import Dtype, Model, Output, Repeats, Threads
from questions import QuestionSource, num_text
from report import installed, provenance, save
from rich.console import Console
from rich.progress import Progress

from skipserve.model.config import ModelConfig
from skipserve.model.llava import Llava
from skipserve.ray.placing import Bound

MIX = {
    "full": 0.4,
    "visual-freeze-from-16": 0.2,
    "skip-block-every-3-from-16-all": 0.2,
    "fastv-192": 0.2,
}
# Requests under way for each replica, where clients ask one after another.
_CLIENTS = 16
# Of what a replica can do, where questions come by themselves.
_BUSY = 0.7
_BURSTINESS = 8.0
# Replicas that are lost while questions come: a share of them, so many at least.
_LOST, _LEAST_LOST = 0.02, 10
_REPLICAS_AN_INGRESS = 8


@dataclass(frozen=True)
class Experiment:
    """One simulation, and what it is called."""

    kind: str
    num_replicas: int
    strategy: str

    @property
    def key(self) -> str:
        """Its name in the record."""
        return f"{self.kind}/{self.num_replicas}/{self.strategy}"


def main(  # noqa: PLR0913, PLR0917 (an argument a flag)
    model: Model = "small",
    dtype: Dtype = "bfloat16",
    repeats: Repeats = 5,
    threads: Threads = 1,
    sizes: Annotated[str, typer.Option(help="Numbers of replicas; commas between.")] = "4,64,1024",
    requests: Annotated[int, typer.Option(min=100, help="Of each simulation.")] = 1_000_000,
    pictures: Annotated[int, typer.Option(min=1, help="For each replica.")] = 400,
    exponent: Annotated[float, typer.Option(min=0, help="Of Zipf's law.")] = 1.0,
    kv_cache_gib: Annotated[float, typer.Option(min=0.01, help="Of a replica.")] = 12.0,
    encoder_cache_mib: Annotated[float, typer.Option(min=1, help="Of a replica.")] = 128.0,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
    output: Output = RECORD,
) -> None:
    """Measure the terms, unless the record has them; simulate what it lacks; write it."""
    torch.set_num_threads(threads)
    record: dict[str, Any] = json.loads(output.read_text()) if output.exists() else {}
    if "terms" not in record:
        with checkpoint(model) as folder:
            loaded = Llava.load(folder, torch.device("cpu"), getattr(torch, dtype))
            source = QuestionSource(ModelConfig.from_folder(folder), seed=seed)
            terms = measure(
                loaded,
                source,
                list(MIX),
                num_text=num_text(model),
                encoder_cache_mib=encoder_cache_mib,
                kv_cache_gib=kv_cache_gib,
                repeats=repeats,
                title=f"{Path(model).name}, {dtype}, one thread, processor seconds",
            )
        record = {"terms": terms.as_json(), "provenance": _provenance(), "runs": {}}
        save(record, output)
    record["setup"] = {
        "over_mean": Bound().over_mean,
        "least": Bound().least,
        "clients": _CLIENTS,
        "pictures": pictures,
        "policies": len(MIX),
        "requests": requests,
    }
    setup = Setup(Terms.from_json(record["terms"]), requests, pictures, exponent, seed)
    for experiment in setup.experiments([int(it) for it in sizes.split(",")]):
        if experiment.key not in record["runs"]:
            record["runs"][experiment.key] = setup.run(experiment)
            save(record, output)
    if output == RECORD:
        write_page()


def _provenance() -> dict[str, Any]:
    return provenance("fleet", sys.argv[1:], installed(["skipserve", "torch", "numpy"]))


@dataclass(frozen=True)
class Setup:
    """What all simulations share."""

    terms: Terms
    num_requests: int
    pictures: int
    exponent: float
    seed: int

    def experiments(self, sizes: list[int]) -> Iterator[Experiment]:
        """Yield all simulations: one replica first, which others are held against."""
        yield Experiment("closed", 1, "placed")
        for size in sizes:
            for kind in ("closed", "open"):
                for name in strategies(Bound(), self.seed):
                    yield Experiment(kind, size, name)

    def run(self, experiment: Experiment) -> dict[str, Any]:
        """Simulate, with a bar that says how far it is."""
        is_open = experiment.kind == "open"
        size = experiment.num_replicas
        count = self.num_requests // 20 if size == 1 else self.num_requests
        workload = draw(
            count,
            num_pictures=self.pictures * size,
            exponent=self.exponent,
            mix=MIX,
            rate=_BUSY * size * self._rate() if is_open else None,
            burstiness=_BURSTINESS * size,
            seed=self.seed,
        )
        fleet = Fleet(
            size,
            num_ingresses=max(1, size // _REPLICAS_AN_INGRESS),
            losses=self._losses(size, float(workload.times[-1])) if is_open else (),
        )
        choose: Choose = strategies(Bound(), self.seed)[experiment.strategy]
        with Progress(console=Console(stderr=True), transient=True) as progress:
            bar = progress.add_task(experiment.key, total=1.0)
            outcome = Simulation(
                self.terms,
                fleet,
                choose,
                workload,
                None if is_open else _CLIENTS * size,
                lambda share: progress.update(bar, completed=share),
            ).run()
        return _told(outcome)

    def _rate(self) -> float:
        """Return requests a second of a replica at whose requests half of the pages are warm."""
        mean = sum(
            share * (by[Warmth.FEATURES] + by[Warmth.PAGES]) / 2
            for share, by in ((MIX[name], self.terms.seconds[name]) for name in MIX)
        )
        return self.terms.speeds[-1] / mean

    def _losses(self, size: int, seconds: float) -> tuple[tuple[float, int], ...]:
        """Return when which replicas are lost."""
        number = max(_LEAST_LOST, round(_LOST * size))
        step = seconds / (number + 1)
        return tuple((step * (it + 1), (it * 7919) % size) for it in range(number))


def _told(outcome: Outcome) -> dict[str, Any]:
    count = len(outcome.ends)
    return {
        "requests": count,
        "requests_per_second": outcome.throughput(),
        "p50_seconds": outcome.percentile(50),
        "p99_seconds": outcome.percentile(99),
        "warm": {warmth: num / count for warmth, num in outcome.warmths.items()},
        "spilled": outcome.num_spilled / count,
        "lost": outcome.num_lost,
        "failed": outcome.num_failed,
    }


if __name__ == "__main__":
    typer.run(main)
