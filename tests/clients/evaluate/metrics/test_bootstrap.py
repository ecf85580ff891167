"""Resampling: against moments that are known, and what pairing and strata promise."""

import numpy as np
import pytest

from skipserve_client.evaluate.metrics import bootstrap
from skipserve_client.evaluate.metrics.bootstrap import Interval, resampled_sums

pytestmark = pytest.mark.fast


def test_sums_have_the_moments_of_a_bootstrap() -> None:
    values = np.arange(40.0)
    sums = resampled_sums(values[:, None], np.zeros(40, dtype=np.int64), num=20_000)[:, 0]
    assert sums.mean() == pytest.approx(values.sum(), rel=0.005)
    assert sums.var() == pytest.approx(40 * values.var(), rel=0.05)


def test_policies_side_by_side_are_drawn_alike() -> None:
    values = np.random.default_rng(0).random(30)
    strata = np.zeros(30, dtype=np.int64)
    both = resampled_sums(np.stack([values, values + 1], axis=1), strata)
    assert (both[:, 1] - both[:, 0]) == pytest.approx(30.0)
    assert resampled_sums(values[:, None], strata)[:, 0] == pytest.approx(both[:, 0])


def test_each_stratum_keeps_its_size() -> None:
    strata = np.array([0, 0, 0, 5, 5])
    members = np.stack([strata == 0, strata == 5], axis=1).astype(float)
    assert np.unique(resampled_sums(members, strata), axis=0).tolist() == [[3.0, 2.0]]


def test_what_is_drawn_at_a_time_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).random((50, 2))
    strata = np.zeros(50, dtype=np.int64)
    whole = resampled_sums(values, strata, num=200)
    monkeypatch.setattr(bootstrap, "_CELLS", 50 * 7)
    assert resampled_sums(values, strata, num=200) == pytest.approx(whole)


def test_an_interval_is_the_middle() -> None:
    found = Interval.of(np.arange(1001.0))
    assert (found.low, found.high) == pytest.approx((25.0, 975.0))
