"""Honest and hostile clients at once, for a short time; `make soak` takes longer and times them."""

import pytest
from server_process import ServerProcess
from soak import MIB, MOST_BYTES, MOST_GROWTH, Seen, soak


def test_hostile_clients_change_no_answer_and_leave_no_memory_behind(server: ServerProcess) -> None:
    seen = soak(server, seconds=8)
    assert not seen.wrong
    assert not seen.faults
    assert seen.num_equal >= 18
    assert len(set(seen.deeds)) > 3
    assert seen.most_bytes < MOST_BYTES


@pytest.mark.fast
def test_what_a_server_keeps_is_growth_and_what_passes_is_none() -> None:
    passing = Seen(memory=[(second, 900 * MIB * (second % 9 == 7)) for second in range(600)])
    kept = Seen(memory=[(second, second * MOST_GROWTH // 400) for second in range(600)])
    assert passing.growth(60) == 0
    assert kept.growth(60) > MOST_GROWTH
