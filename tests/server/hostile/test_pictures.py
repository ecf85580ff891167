"""Pictures that cost more than they weigh, against a real server with the shipped limits."""

import json
import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from hostile_pictures import exif_of_many_faults, flat_png, repeated_scans, webp_canvas
from pictures import data_uri, encode, question, random_picture
from process_tree import cpu_seconds, resident_bytes, watched_memory
from server_process import ServerProcess, is_running

CHAT = "/v1/chat/completions"
# The smallest of the limits that are shipped: deploy/kubernetes/cpu-demo.
SHIPPED_BYTES = 2 * 2**30
MIB = 2**20
# More at a time than there are processes, and than there were threads.
AT_ONCE = 6


@pytest.fixture(scope="module")
def server(checkpoint: Path) -> Iterator[ServerProcess]:
    flags = ("--api-key", "one,other", "--log-format", "json", "--image-workers", "3")
    with ServerProcess(checkpoint, *flags) as server:
        yield server


def ask(
    server: ServerProcess,
    key: str,
    *urls: str,
    patience_seconds: float | None = None,
    **fields: Any,
) -> httpx.Response:
    with server.client() as client:
        headers, body = {"Authorization": f"Bearer {key}"}, question("Hi", *urls, **fields)
        return client.post(CHAT, json=body, headers=headers, timeout=patience_seconds)


def ask_at_once(
    server: ServerProcess, url: str, count: int = AT_ONCE, **fields: Any
) -> list[httpx.Response]:
    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(lambda _: ask(server, "one", url, **fields), range(count)))


def small_url() -> str:
    return data_uri(encode(random_picture(40, 30), "JPEG"), "image/jpeg")


def num_killed(server: ServerProcess, reason: str) -> float:
    with server.client() as client:
        text = client.get("/metrics", headers={"Authorization": "Bearer one"}).text
    pattern = rf'image_decoders_killed_total\{{[^}}]*reason="{reason}"[^}}]*\}} (\S+)'
    [value] = re.findall(pattern, text)
    return float(value)


def test_s20_repeated_scans_cost_little(server: ServerProcess) -> None:
    url = data_uri(repeated_scans(3000, 3000), "image/jpeg")
    ask(server, "one", small_url())
    before = cpu_seconds(server.process_id)
    for reply in ask_at_once(server, url):
        assert reply.status_code == 422
        assert "scans" in reply.json()["error"]["message"]
    # Each was 80 s.
    assert cpu_seconds(server.process_id) - before < 10


def test_a_library_s_warnings_are_few_and_in_the_log_s_form(server: ServerProcess) -> None:
    """Each of these files was 10,000 lines."""
    begun = len(server.output)
    urls = [data_uri(exif_of_many_faults(10_000))] * 8
    for _ in range(3):
        assert ask(server, "one", *urls).status_code == 200
    while "Skipping tag" not in server.read_line():
        pass
    lines = [json.loads(line) for line in server.output[begun:].splitlines()]
    about = [line for line in lines if "Skipping tag" in line["message"]]
    # Each process may have said it once.
    assert len(about) <= 3
    assert len(lines) < 20


def test_costly_pictures_hold_up_neither_text_nor_other_clients(server: ServerProcess) -> None:
    """With as many scans as are let through: seconds each."""
    url = data_uri(repeated_scans(6000, 100), "image/jpeg")
    with ThreadPoolExecutor(AT_ONCE) as threads:
        costly = [
            threads.submit(ask, server, "one", url, timeout_seconds=4) for _ in range(AT_ONCE)
        ]
        assert ask(server, "one").status_code == 200
        assert ask(server, "other", small_url()).status_code == 200
        assert not all(it.done() for it in costly)
        # A fast machine decodes some of them in their time.
        assert {it.result().status_code for it in costly} <= {200, 408}


def test_the_time_of_a_request_ends_its_picture(server: ServerProcess) -> None:
    url = data_uri(repeated_scans(6000, 100), "image/jpeg")
    before = cpu_seconds(server.process_id)
    for reply in ask_at_once(server, url, timeout_seconds=0.2):
        assert reply.status_code == 408
    assert num_killed(server, "given_up") > 0
    # Those that had not begun never begin; each would take ten seconds.
    assert cpu_seconds(server.process_id) - before < 10
    assert ask(server, "one", small_url()).status_code == 200


def test_a_client_that_hangs_up_ends_its_picture(server: ServerProcess) -> None:
    url = data_uri(repeated_scans(6000, 100), "image/jpeg")
    before = num_killed(server, "given_up")
    with pytest.raises(httpx.ReadTimeout):
        ask(server, "one", url, patience_seconds=1)
    while num_killed(server, "given_up") == before:
        pass


def test_a_crash_is_the_error_of_one_request(server: ServerProcess) -> None:
    url = data_uri(repeated_scans(6000, 100), "image/jpeg")
    with ThreadPoolExecutor() as threads:
        lost = threads.submit(ask, server, "one", url)
        busiest = 0
        while not lost.done() and not busiest:
            busiest = next((it for it in server.decoder_ids if resident_bytes(it) > 100 * MIB), 0)
        os.kill(busiest, signal.SIGSEGV)
        assert lost.result().status_code == 500
    assert not is_running(busiest)
    assert ask(server, "one", small_url()).status_code == 200


@pytest.mark.parametrize("name", ["thin", "canvas", "rgba"])
def test_s20_small_files_of_large_pictures_fit_the_shipped_memory(
    server: ServerProcess, name: str
) -> None:
    content, media_type, count = {
        "thin": lambda: (flat_png(1, 40_000_000), "image/png", AT_ONCE),
        "canvas": lambda: (webp_canvas(6300), "image/webp", 3),
        "rgba": lambda: (flat_png(6300, 6300, 6), "image/png", 2),
    }[name]()
    quiet = resident_bytes(server.process_id)
    with watched_memory(server.process_id) as most:
        replies = ask_at_once(server, data_uri(content, media_type), count)
    assert {reply.status_code for reply in replies} == {422 if name == "thin" else 200}
    assert most[0] < SHIPPED_BYTES
    if name == "thin":
        assert "too thin" in replies[0].json()["error"]["message"]
        assert most[0] - quiet < 200 * MIB
    # It comes back: what stays is the processes themselves.
    assert resident_bytes(server.process_id) - quiet < 200 * MIB
