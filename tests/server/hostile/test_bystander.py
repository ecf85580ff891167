"""Who watches what attacks do to others sees something of the shortest."""

from bystander import bystanding
from server_process import ServerProcess


def test_a_bystander_asks_however_soon_all_is_over(server: ServerProcess) -> None:
    with bystanding(server.url) as sight:
        pass
    assert sight.hi
    assert sight.health
    assert not sight.num_refused
