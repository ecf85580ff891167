"""Honest and hostile clients at once, for a short time; `make soak` takes longer and times them."""

from server_process import ServerProcess
from soak import MIB, soak


def test_hostile_clients_change_no_answer_and_leave_no_memory_behind(server: ServerProcess) -> None:
    seen = soak(server, seconds=8)
    assert not seen.wrong
    assert not seen.faults
    assert seen.num_equal >= 18
    assert len(set(seen.deeds)) > 3
    assert max(size for _, size in seen.memory) < 2048 * MIB
