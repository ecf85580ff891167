"""What a server's pool of pages takes of the machine: as much as it was given, and no more."""

import random

from full_pool import ask_anew, fill_pool
from process_tree import resident_bytes
from server_process import ServerProcess

MIB = 2**20
POOL_BYTES = 256 * MIB
# What allocators and the libraries' own code may take meanwhile.
NOISE_BYTES = 64 * MIB


def test_memory_grows_until_all_pages_were_used_and_no_further() -> None:
    with ServerProcess("demo", "--kv-cache-gib", f"{POOL_BYTES / 2**30}") as server:
        ask_anew(server, random.Random(1))
        at_first = resident_bytes(server.engine_id)
        num_asked = fill_pool(server, seed=2)
        when_full = resident_bytes(server.engine_id)
        assert abs(when_full - at_first - POOL_BYTES) < NOISE_BYTES
        chance = random.Random(3)
        for _ in range(2 * num_asked):
            ask_anew(server, chance)
        assert resident_bytes(server.engine_id) - when_full < NOISE_BYTES
