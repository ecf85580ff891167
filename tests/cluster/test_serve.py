"""`skipserve serve --ray`: a cluster of its own, from its start to its end."""

import signal
import tempfile
from pathlib import Path

import httpx
import pytest
import ray_wanted  # noqa: F401 - without Ray there is nothing to test
from pictures import question
from ray_cluster import URL, cluster, is_ready, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def test_a_cluster_from_start_to_end() -> None:
    with tempfile.TemporaryDirectory(prefix="rs") as folder, cluster(Path(folder)) as running:
        process = running.start_program(
            "skipserve", "serve", "--ray", "--replicas", "2", "--num-threads", "1",
            "--kv-cache-gib", "0.1",
        )  # fmt: skip
        wait_until(is_ready)
        reply = httpx.post(
            f"{URL}/v1/chat/completions", json=question("Why?"), timeout=60, trust_env=False
        )
        assert reply.status_code == 200, reply.text
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
        wait_until(lambda: not running.engine_processes, 30)
