"""The benchmark of the server's choice under a burst."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
from auto import BURST, CALM, Outcome, _load, _rows, main

from skipserve_client.evaluate.sample import demo_samples


def test_a_short_run_writes_every_row(tmp_path: Path, deep_model: Path) -> None:
    output = tmp_path / "auto.json"
    main(model=str(deep_model), seconds=1, repeats=1, output=output)
    rows = {row["name"]: row for row in json.loads(output.read_text())["rows"]}
    for mode in ("full", "full or refused", "auto", "auto or refused"):
        assert rows[f"{mode}/p95 of the target"]["target"] == 1
        # Nothing was measured on a random model, and so all of it runs under full.
        assert rows[f"{mode}/kept, measured"]["value"] == 100


@pytest.mark.fast
def test_requests_come_by_chance_and_more_of_them_in_the_burst() -> None:
    samples = demo_samples(5)
    load = _load(samples, 100.0, 10.0, seed=1)
    assert load.times == sorted(load.times)
    assert len({later - earlier for earlier, later in pairwise(load.times)}) > 100
    calm, burst, after = (
        sum(place * 10 <= it < (place + 1) * 10 for it in load.times) for place in range(3)
    )
    for found, share in ((calm, CALM), (burst, BURST), (after, CALM)):
        assert found == pytest.approx(1000 * share, rel=0.15)
    assert len(load.samples) == len(load.times)
    assert {it.index for it in load.samples} == {it.index for it in samples}
    assert _load(samples, 100.0, 10.0, seed=1).times == load.times
    assert _load(samples, 100.0, 10.0, seed=2).times != load.times


@pytest.mark.fast
def test_what_was_refused_was_not_in_time() -> None:
    kept = [1.0, 0.96, 0.98]
    outcome = Outcome(0.5, seconds=[0.1, 0.2, 0.9], refused=1, kept=kept, right=[True] * 3)
    rows = {row.name: row for row in _rows({"auto": [outcome]}, floor=0.95)}
    assert rows["auto/in time"].value == 50
    assert rows["auto/refused"].value == 25
    assert rows["auto/kept, measured"].value == pytest.approx(98)
    assert (rows["auto/kept, measured"].is_met, rows["auto/p95 of the target"].is_met) == (
        True,
        False,
    )
