"""What clients can make the log say: a few lines a second, however many they send."""

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile_bodies import CHAT
from pictures import question
from raw_client import connect, error_of, read_all
from server_process import ServerProcess

KEY = {"Authorization": "Bearer key"}
NUM_EACH = 400


@pytest.fixture
def server(checkpoint: Path) -> Iterator[ServerProcess]:
    flags = ("--log-format", "json")
    with ServerProcess(checkpoint, *flags, SKIPSERVE_API_KEY="key") as server:
        yield server


def test_a_flood_of_refusals_writes_few_lines(server: ServerProcess) -> None:
    begun = len(server.output)
    with server.client() as client:
        for index in range(NUM_EACH):
            assert client.get(f"/{index}").status_code == 401
            assert client.post(CHAT, content=b"{}", headers=KEY).status_code == 415
            with connect(server.url) as connection:
                connection.sendall(b"nothing of HTTP\r\n\r\n")
                assert error_of(read_all(connection))["code"] == 400
        answers = [client.post(CHAT, json=question("Hi"), headers=KEY) for _ in range(3)]
    assert {reply.status_code for reply in answers} == {200}
    server.signal(signal.SIGTERM)
    text = server.wait()[1][begun:]
    lines = [json.loads(line) for line in text.splitlines()]
    assert sum("skip_policy" in line for line in lines) == len(answers)
    for status in (400, 401, 415):
        about = [line for line in lines if line.get("status") == status]
        num_left_out = sum(line.get("left_out", 0) for line in about)
        num_written = sum("left_out" not in line for line in about)
        # Those that are refused before they are requests have no fields.
        num_written += len(re.findall("from 127.0.0.1", text)) if status == 400 else 0
        assert num_written + num_left_out == NUM_EACH
        assert num_written < NUM_EACH / 4
