"""No request is lost on the way, and what is known in theory comes out."""

import numpy as np
import pytest
from fleets.simulation import Fleet, Outcome, Simulation
from fleets.strategies import Choose, strategies
from fleets.terms import Terms, Warmth
from fleets.workload import Workload, draw

from skipserve.ray.placing import Bound

_STRATEGIES = strategies(Bound(), seed=0)
_SAME = Terms({"full": dict.fromkeys(Warmth, 1.0)}, (1.0,), 10, 10, "by hand")
_WARM = Terms(
    {
        name: {Warmth.NOTHING: 1.0, Warmth.FEATURES: 0.6, Warmth.PAGES: 0.2}
        for name in ("full", "light")
    },
    (1.0, 1.5, 1.8, 2.0),
    num_features=60,
    num_pages=60,
    source="by hand",
)


def _draw(count: int, rate: float | None, **changes: float) -> Workload:
    given = {"num_pictures": 200, "exponent": 1.0, "burstiness": 1.0, "seed": 1} | changes
    return draw(count, mix={"full": 3, "light": 1}, rate=rate, **given)  # type: ignore[arg-type]


def _run(
    fleet: Fleet, workload: Workload, choose: Choose, *, terms: Terms = _WARM, clients: int = 0
) -> Outcome:
    return Simulation(terms, fleet, choose, workload, clients or None).run()


@pytest.mark.parametrize("name", _STRATEGIES)
@pytest.mark.parametrize("clients", [0, 24])
def test_every_request_ends_once_whatever_is_lost(name: str, clients: int) -> None:
    losses = ((20.0, 1), (50.0, 3), (51.0, 1), (90.0, 0))
    fleet = Fleet(4, max_running=4, num_ingresses=2, back_seconds=15.0, losses=losses)

    rate = None if clients else 6.0
    outcome = _run(fleet, _draw(2000, rate), _STRATEGIES[name], clients=clients)

    assert len(outcome.ends) + outcome.num_failed == 2000
    assert outcome.num_lost > 0
    assert min(outcome.latencies) > 0
    assert outcome.ends == sorted(outcome.ends)
    assert sum(outcome.warmths.values()) == len(outcome.ends)


def test_a_queue_of_one_waits_as_long_as_theory_says() -> None:
    """M/D/1 with its first in, first out: a mean of 1 + load / (2 (1 - load)) services."""
    workload = _draw(60_000, rate=0.5)
    one = Workload(workload.pictures, workload.policies * 0, workload.times, ("full",))

    outcome = _run(Fleet(1, max_running=1), one, _STRATEGIES["placed"], terms=_SAME)

    assert np.mean(outcome.latencies) == pytest.approx(1.5, rel=0.03)


def test_replicas_that_share_work_do_so_as_many_times_over() -> None:
    def throughput(size: int) -> float:
        workload = _draw(4000 * size, None, num_pictures=4000)
        one = Workload(workload.pictures, workload.policies * 0, workload.times, ("full",))
        fleet = Fleet(size, max_running=2)
        choose = _STRATEGIES["least loaded"]
        return _run(fleet, one, choose, terms=_SAME, clients=8 * size).throughput()

    assert throughput(4) == pytest.approx(4 * throughput(1), rel=0.02)


def test_pictures_that_stay_together_are_warm_more_often() -> None:
    workload = _draw(20_000, None, num_pictures=800)
    fleet = Fleet(8, max_running=4)
    outcomes = {
        name: _run(fleet, workload, choose, clients=64) for name, choose in _STRATEGIES.items()
    }
    warm = {name: outcome.warmths[Warmth.PAGES] for name, outcome in outcomes.items()}

    assert warm["placed"] > 1.2 * warm["random"]
    assert outcomes["placed"].throughput() > 1.1 * outcomes["random"].throughput()
    assert outcomes["placed"].throughput() > 1.1 * outcomes["consistent hash"].throughput()
    assert outcomes["consistent hash"].num_spilled == 0


def test_the_same_seed_gives_the_same_outcome() -> None:
    first, second = (
        _run(Fleet(4), _draw(3000, 5.0), strategies(Bound(), 3)["random"]) for _ in range(2)
    )

    assert first.latencies == second.latencies


def test_gaps_and_shares_are_those_that_were_asked_for() -> None:
    workload = _draw(200_000, rate=20.0, burstiness=4.0, exponent=1.0)
    gaps = np.diff(workload.times)
    counts = np.bincount(workload.pictures, minlength=200)

    assert gaps.mean() == pytest.approx(0.05, rel=0.03)
    assert gaps.var() / gaps.mean() ** 2 == pytest.approx(4.0, rel=0.1)
    assert np.mean(workload.policies == 0) == pytest.approx(0.75, abs=0.01)
    assert counts[0] / counts[9] == pytest.approx(10, rel=0.1)
