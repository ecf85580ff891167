"""How rows are ranked and merged, beside the formulas written out in loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skipserve.model.narrowing import rank
from skipserve.model.narrowing.handover import GONE, STAYS
from skipserve_policies.narrowing import Departure

pytestmark = pytest.mark.fast


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape)).float()


# --- who rates


def test_raters_are_the_rows_that_the_images_are_likest_to() -> None:
    visual, behind = numbers(12, 8), numbers(7, 8, seed=1)
    got = [0.0] * 7
    for row in visual.double():
        weights = [math.exp(float(row @ other)) for other in behind.double()]
        got = [before + it / sum(weights) for before, it in zip(got, weights, strict=True)]
    expected = [it > sum(got) / 7 for it in got]
    assert rank.raters(visual, behind).tolist() == expected
    assert 0 < sum(expected) < 7


@pytest.mark.parametrize("num_behind", [1, 4])
def test_all_rate_where_none_is_above_the_mean(num_behind: int) -> None:
    alike = numbers(1, 8).expand(num_behind, -1)
    assert rank.raters(numbers(12, 8), alike).all()


@pytest.mark.parametrize("most_scores", [1, 150, 1 << 20])
@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
def test_attention_of_raters(
    num_kv_heads: int, most_scores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rank, "_MOST_SCORES", most_scores)
    queries, keys = numbers(5, 4, 8), numbers(17, num_kv_heads, 8, seed=1)
    is_rater = torch.tensor([True, False, True, True, False])
    expected = np.zeros(17)
    for place in (0, 2, 3):
        seen = 17 - 5 + place + 1
        for head in range(4):
            own = keys[:seen, head // (4 // num_kv_heads)].double()
            weights = (own @ queries[place, head].double() / math.sqrt(8)).exp().numpy()
            expected[:seen] += weights / weights.sum() / 4 / 3
    found = rank.attention_of_raters(queries, keys, is_rater)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


# --- what is merged


def clusters_in_loops(rows: list[list[float]], count: int) -> list[int]:
    """Return what `rank.clusters` should, from its definition."""
    each = range(len(rows))
    apart = [[math.dist(a, b) / math.sqrt(len(a)) for b in rows] for a in rows]
    near = [sorted(apart[i])[:count] for i in each]
    density = [math.exp(-sum(d * d for d in near[i]) / len(near[i])) for i in each]
    farthest = max(map(max, apart))
    peaks = []
    for i in each:
        denser = [
            j for j in each if density[j] > density[i] or (density[j] == density[i] and j < i)
        ]
        peaks.append(density[i] * min((apart[i][j] for j in denser), default=farthest))
    centres = sorted(each, key=lambda i: (-peaks[i], i))[:count]
    nearest = [min(range(count), key=lambda c: (apart[centres[c]][i], c)) for i in each]
    return [centres.index(i) if i in centres else nearest[i] for i in each]


@given(st.integers(1, 30), st.integers(1, 6), st.integers(0, 1000))
def test_clusters_are_those_of_the_definition(num_rows: int, count: int, seed: int) -> None:
    count = min(count, num_rows)
    rows = numbers(num_rows, 5, seed=seed)
    found = rank.clusters(rows, count)
    if count == 2:
        # Two rows that are each other's nearest are equally dense, up to the last bit.
        assert sorted(set(found.tolist())) == [0, 1]
    else:
        assert found.tolist() == clusters_in_loops(rows.double().tolist(), count)


def test_two_heaps_are_two_clusters() -> None:
    rows = torch.cat([numbers(6, 4) * 0.1, numbers(9, 4, seed=1) * 0.1 + 5])
    found = rank.clusters(rows, 2).tolist()
    assert len(set(found[:6])) == len(set(found[6:])) == 1
    assert found[0] != found[6]


def test_distances_are_symmetric_to_the_last_bit_and_exact_for_like_rows() -> None:
    rows = numbers(50, 64) * 1e-4 + 7
    distances = rank._distances(rows.double())
    assert torch.equal(distances, distances.T)
    expected = torch.cdist(
        rows.double(), rows.double(), compute_mode="donot_use_mm_for_euclid_dist"
    )
    torch.testing.assert_close(distances * 8, expected, rtol=1e-5, atol=0)


def test_the_best_stay_and_the_next_are_merged() -> None:
    scores = torch.tensor([0.1, 0.9, 0.2, 0.8, 0.2, 0.05])
    rows = numbers(6, 3)
    fate = rank.fates(scores, rows, Departure(2, 6, num_kept=2, num_merging=2, num_merged=1))
    assert fate.tolist() == [GONE, STAYS, 1, STAYS, 1, GONE]
    assert rank.staying(fate, 2).tolist() == [1, 3]
    torch.testing.assert_close(rank.merged(rows, fate, 1)[0], (rows[2] + rows[4]) / 2)


def test_means_have_the_type_of_the_rows() -> None:
    rows = numbers(6, 3).bfloat16()
    fate = torch.tensor([2, 1, GONE, 1, STAYS, 1])
    found = rank.merged(rows, fate, 2)
    assert found.dtype is torch.bfloat16
    expected = torch.stack([rows[[1, 3, 5]].float().mean(dim=0), rows[0].float()])
    assert torch.equal(found, expected.bfloat16())
