"""What policies gain: ratios, and a short run."""

import json
from pathlib import Path

import pytest
from policies import main, speedups_over_full

pytestmark = pytest.mark.fast


def test_a_slower_policy_shows_as_a_loss() -> None:
    speedups = speedups_over_full({"full": 2.0, "fast": 1.0, "slow": 4.0})
    assert speedups == {"full": 1.0, "fast": 2.0, "slow": 0.5}


def test_a_short_run_writes_every_row_and_a_picture(deep_model: Path, tmp_path: Path) -> None:
    output = tmp_path / "policies.json"
    names = ["skip-block-every-3-from-16", "random-192", "fastv-2-half", "vtw-half"]
    main(
        model=str(deep_model),
        names=",".join(names),
        concurrencies="1,2",
        dtype="float32",
        repeats=1,
        output=output,
    )
    values = {row["name"]: row["value"] for row in json.loads(output.read_text())["rows"]}
    for policy in ("full", *names):
        assert values[f"{policy}/planned FLOPs"] >= 1
    for concurrency in (1, 2):
        assert values[f"requests per second of full/at {concurrency}"] > 0
        assert values[f"full/at {concurrency}"] == 1
        assert all(values[f"{policy}/at {concurrency}"] > 0 for policy in names)
    assert "<svg" in output.with_suffix(".svg").read_text()
