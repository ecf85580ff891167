"""Log-probabilities of tokens, their ranks, and the most probable ones."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skipserve.model.logprobs import RowLogprobs

pytestmark = pytest.mark.fast

# Few values, so that many are equal.
LOGITS = st.lists(
    st.lists(st.sampled_from([-2.0, 0.0, 0.5, 3.0]), min_size=5, max_size=5), min_size=1, max_size=4
)


@given(LOGITS, st.integers(0, 7), st.data())
def test_ranks_are_places_in_the_order_of_the_most_probable(
    logits: list[list[float]], num_top: int, data: st.DataObject
) -> None:
    """Among equals the lower id comes first, in both."""
    tokens = [data.draw(st.integers(0, 4)) for _ in logits]
    found = RowLogprobs.of(torch.tensor(logits), torch.tensor(tokens), num_top)
    ranks = found.ranks(torch.tensor(tokens)).tolist()
    for row, (values, token) in enumerate(zip(logits, tokens, strict=True)):
        order = sorted(range(5), key=lambda it: (-values[it], it))
        assert found.top_ids[row].tolist() == order[:num_top]
        assert ranks[row] == order.index(token) + 1
        wanted = torch.tensor(values, dtype=torch.float64).log_softmax(0)
        assert found.own[row].item() == pytest.approx(wanted[token].item(), abs=1e-6)
        assert found.top[row].tolist() == pytest.approx(wanted[order[:num_top]].tolist(), abs=1e-6)
