"""What a batch of four policies should take, and a short run."""

import json
from pathlib import Path

import pytest
from mixed import MIXED, Alone, decode_step_seconds, main, make_batches, predict
from plans import FOUR_POLICIES

from skipserve.engine.reports import StepReport

pytestmark = pytest.mark.fast


def test_four_equal_policies_are_predicted_to_take_what_one_takes() -> None:
    alone = Alone(quarter=2.5, whole=4.0)
    assert (alone.fixed, alone.rows_of_quarter) == (2.0, 0.5)
    assert predict(dict.fromkeys(FOUR_POLICIES, alone)) == pytest.approx(4.0)


def test_the_fixed_part_is_paid_once_and_is_that_of_the_full_model() -> None:
    skipping = Alone(quarter=1.0 + 0.2, whole=1.0 + 0.8)
    alone = {**dict.fromkeys(FOUR_POLICIES, skipping), "full": Alone(2.0 + 0.5, 2.0 + 2.0)}
    assert predict(alone) == pytest.approx(2.0 + 0.5 + 3 * 0.2)


def test_batches_are_of_one_policy_or_a_quarter_each() -> None:
    batches = make_batches(3)
    assert batches["full, a quarter"] == ["full"] * 3
    assert batches["full, all"] == ["full"] * 12
    assert {policy: batches[MIXED].count(policy) for policy in FOUR_POLICIES} == dict.fromkeys(
        FOUR_POLICIES, 3
    )
    assert len(batches) == 9


def test_only_steps_in_which_all_decode_are_looked_at() -> None:
    def report(seconds: float, num_rows: int, num_sequences: int) -> StepReport:
        return StepReport({}, seconds, num_rows, num_sequences, num_plans=1)

    prefill, mixture, rest = report(9.0, 90, 4), report(8.0, 20, 4), report(7.0, 3, 3)
    steps = [report(seconds, 4, 4) for seconds in (3.0, 1.0, 2.0)]
    assert decode_step_seconds([prefill, mixture, *steps, rest], 4) == 2.0


def test_a_short_run_writes_every_row(deep_model: Path, tmp_path: Path) -> None:
    output = tmp_path / "mixed.json"
    main(model=str(deep_model), dtype="float32", concurrency=4, repeats=1, output=output)
    rows = {row["name"]: row for row in json.loads(output.read_text())["rows"]}
    for measure in ("decode step", "whole requests"):
        for name in make_batches(1):
            assert rows[f"{measure}/{name}"]["value"] > 0
        # Of times that something else on the machine may have stretched, so of either sign.
        alone = {
            policy: Alone(
                *(rows[f"{measure}/{policy}, {n}"]["value"] for n in ("a quarter", "all"))
            )
            for policy in FOUR_POLICIES
        }
        predicted = rows[f"{measure}/{MIXED}, predicted"]["value"]
        assert predicted == pytest.approx(predict(alone))
        share = rows[f"{measure}/share of the predicted throughput"]
        times = [rows[f"{measure}/{name}"]["value"] for name in (f"{MIXED}, predicted", MIXED)]
        assert share["value"] == pytest.approx(100 * times[0] / times[1])
        assert share["target"] == 95
