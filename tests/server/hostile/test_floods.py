"""One key floods the server: each of another's questions is answered, and each pays its own."""

import json
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from pictures import data_uri, encode, question, random_picture
from server_process import ServerProcess

from skipserve.budgets.keys import digest_of_key

CHAT = "/v1/chat/completions"
NUM_AT_ONCE = 12


def write_keys(path: Path, *names: str, **fields: dict[str, Any]) -> None:
    entries = [
        {"name": name, "sha256": digest_of_key(name).hex()} | fields.get(name, {}) for name in names
    ]
    path.write_text(yaml.safe_dump({"keys": entries}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture(scope="module")
def server(checkpoint: Path, folder: Path) -> Iterator[ServerProcess]:
    write_keys(folder / "keys.yaml", "flood", "quiet", "ops", ops={"admin": True})
    flags = {
        "api-keys-file": folder / "keys.yaml",
        "usage-log": folder / "usage.jsonl",
        "max-queued-requests": 4,
        "max-running-requests": 4,
        "log-format": "json",
    }
    with ServerProcess(
        checkpoint, *(f"--{name}={value}" for name, value in flags.items())
    ) as server:
        yield server


def ask(client: httpx.Client, key: str, *urls: str, **fields: object) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"}
    return client.post(CHAT, json=question("Hi", *urls, **fields), headers=headers)


def flood(server: ServerProcess, statuses: Counter[int], is_over: threading.Event) -> None:
    """Ask for long answers, again at once whatever comes."""
    with server.client() as client:
        while not is_over.is_set():
            statuses[ask(client, "flood", max_tokens=8, temperature=0).status_code] += 1


def test_one_key_s_flood_refuses_nothing_of_another_s(server: ServerProcess) -> None:
    statuses, is_over = Counter[int](), threading.Event()
    urls = [data_uri(encode(random_picture(20, 20, seed=seed))) for seed in range(5)]
    with ThreadPoolExecutor(NUM_AT_ONCE) as threads, server.client() as client:
        floods = [threads.submit(flood, server, statuses, is_over) for _ in range(NUM_AT_ONCE)]
        try:
            while not statuses[503]:
                pass
            replies = [ask(client, "quiet", *urls[: n % 5]) for n in range(25)]
        finally:
            is_over.set()
        for each in floods:
            each.result()
    assert [reply.status_code for reply in replies] == [200] * 25
    assert statuses[200] > 0
    assert set(statuses) <= {200, 503}


def test_use_is_written_for_each(server: ServerProcess, folder: Path) -> None:
    """Runs behind the flood; a moved file is made anew on SIGHUP."""
    usage = folder / "usage.jsonl"
    with server.client() as client:
        assert ask(client, "quiet").status_code == 200
        shown = client.get("/v1/usage", headers={"Authorization": "Bearer ops"}).json()["data"]
        lines: list[dict[str, Any]] = []
        wanted = {entry["key"]: entry["computed_flops"] for entry in shown}
        written = Counter[str]()
        while written != Counter(wanted):
            lines = [json.loads(line) for line in usage.read_text().splitlines()]
            written = Counter[str]()
            for line in lines:
                written[line["key"]] += line["computed_flops"]
        usage.rename(folder / "moved.jsonl")
        server.signal(signal.SIGHUP)
        while not usage.exists():
            pass
        assert ask(client, "quiet").status_code == 200
        while not usage.read_text():
            pass
    assert json.loads(usage.read_text())["key"] == "quiet"
    assert len((folder / "moved.jsonl").read_text().splitlines()) == len(lines)


def test_a_changed_keys_file_is_followed_and_a_broken_one_is_not(
    server: ServerProcess, folder: Path
) -> None:
    path = folder / "keys.yaml"

    def reload(told: str) -> None:
        server.signal(signal.SIGHUP)
        while told not in server.read_line():
            pass

    with server.client() as client:
        path.write_text("keys: [{name: flood}]")
        reload("keys.0.sha256: this field is missing; the keys stay as they were")
        assert ask(client, "quiet").status_code == 200
        limits = {"limits": {"requests_per_minute": 1}}
        write_keys(path, "quiet", "third", third=limits)
        reload("2 names")
        assert ask(client, "flood").status_code == 401
        assert [ask(client, "third").status_code for _ in range(2)] == [200, 429]
        assert ask(client, "quiet").status_code == 200
