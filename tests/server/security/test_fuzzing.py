"""Throws requests at the server that follow its published schema, and that break it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from live_server import LiveServer
from pictures import question

from skipserve.settings import Settings


def fuzz(live: LiveServer, folder: Path, phases: str, num_examples: int) -> None:
    """Let Schemathesis look for crashes and for replies that the schema does not foresee.

    Bodies that follow the schema may be refused: it cannot say what fits the loaded model.
    """
    command = [
        *(str(Path(sys.executable).with_name("schemathesis")), "run", f"{live.url}/openapi.json"),
        *("--mode", "all", "--phases", phases, "--max-examples", str(num_examples)),
        *("--checks", "all", "--exclude-checks", "positive_data_acceptance"),
        *("--seed", "1", "--no-color"),
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    with live.client() as client:
        assert client.post("/v1/chat/completions", json=question("Alive?")).status_code == 200


def test_fuzzing(live: LiveServer, tmp_path: Path) -> None:
    fuzz(live, tmp_path, "examples,fuzzing", num_examples=10)


@pytest.mark.skipif("FUZZ" not in os.environ, reason="make fuzz runs it: minutes")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("phases", ["coverage", "examples,fuzzing"])
def test_fuzzing_at_length(settings: Settings, tmp_path: Path, phases: str) -> None:
    """Answers are cut off early: many a request asks for all that the context holds.

    Of the requests for hundreds of answers none is turned away, which would look like a crash.
    """
    limits = {"request_seconds": 0.5, "max_queued_requests": 10_000, "max_queued_tokens": 10**7}
    with LiveServer(settings.model_copy(update=limits)) as server:
        fuzz(server, tmp_path, phases, num_examples=20)
