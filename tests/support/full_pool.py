"""Has a server use every page of its pool: from then on the pool takes no more memory.

A pool's memory is set aside at the start, but the system gives it piece by piece, as pages are
written for the first time. Free pages go before cached ones, so any traffic gets there in time.
"""

import random
import re
import string

from hostile_bodies import CHAT
from pictures import question
from server_process import ServerProcess

# As deploy/kubernetes/cpu-demo has it, whose limit of memory is the smallest.
SHIPPED_POOL = ("--kv-cache-gib", "0.5")
_NUM_LETTERS = 700


def fill_pool(server: ServerProcess, seed: int = 0) -> int:
    """Ask until cached pages are given up, for which all free ones go; return how often it took."""
    chance, num_asked = random.Random(seed), 0
    while not _num_evictions(server):
        ask_anew(server, chance)
        num_asked += 1
    return num_asked


def ask_anew(server: ServerProcess, chance: random.Random) -> None:
    """Ask with a long prompt that nobody has asked with, so that all of it takes new pages."""
    text = "".join(chance.choices(string.ascii_letters, k=_NUM_LETTERS))
    with server.client() as client:
        client.post(CHAT, json=question(text, max_tokens=1)).raise_for_status()


def _num_evictions(server: ServerProcess) -> float:
    with server.client() as client:
        metrics = client.get("/metrics").text
    found = re.search(r"^skipserve_prefix_cache_evictions_total\S* (\S+)$", metrics, re.MULTILINE)
    assert found is not None, metrics
    return float(found.group(1))
