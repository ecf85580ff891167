"""Runs every example of docs/clients.md against a server.

The clients that are not among the developers' tools run where `make test-clients` has put them.
"""

import contextlib
import os
import re
import shutil
import socket
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import children
import programs
import pytest
from server_process import ServerProcess

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/clients.md"
# The address and the port that the page writes.
ADDRESS, PROXY_PORT = "http://127.0.0.1:8000", "4000"
NO_ANSWER = "I can only talk about"


class Example(NamedTuple):
    """How an example is run, and what is to come of it.

    Attributes:
        program: what runs it: `python`, `bash` or `node`.
        told: what its output has.
        policies: those that have run on the server.
        place: the venv of its client, `.venv-PLACE`; None for the developers' own.
    """

    program: str
    told: tuple[str, ...]
    policies: tuple[str, ...] = ("exit-after-24",)
    place: str | None = None


EXAMPLES = {
    "openai (Python): responses": Example("python", ("2 0.",), ("visual-freeze-from-16",)),
    "openai (Python): chat completions and completions": Example("python", ("planned_flops",)),
    "anthropic (Python)": Example("python", ("input_tokens=",), ("visual-freeze-from-16",)),
    "JSON and tools": Example("python", ("number=", "name='count'"), ("full",)),
    "curl": Example("bash", ("demo@exit-after-24", '"token_strs"', "I can only"), ("full",)),
    "langchain-openai": Example("python", (f"2 exit-after-24 {NO_ANSWER}",)),
    "langchain-openai: typed answers and tools": Example(
        "python",
        ("json_schema Count(number=", "function_calling Count(number=", "'name': 'Count'"),
    ),
    "litellm (Python)": Example("python", ("exit-after-24", NO_ANSWER)),
    "pydantic-ai": Example("python", ("2",)),
    "pydantic-ai: typed answers and tools": Example(
        "python", ("\nnative Count(number=", "I have looked for what is ")
    ),
    "openai for Node": Example("node", ("2 exit-after-24", NO_ANSWER), place="openai-node"),
    "instructor": Example(
        "python", ("JSON_SCHEMA Count(number=", "TOOLS Count(number="), place="instructor"
    ),
    "LiteLLM's proxy": Example("bash", (NO_ANSWER, "metrics"), place="litellm"),
    "llama-index": Example("python", ("2 exit-after-24 2",), place="llama-index"),
    "guidellm": Example("bash", ("generated 1 benchmark",), place="guidellm"),
    "aiperf": Example("bash", ("profile_export",), place="aiperf"),
    "lmms-eval": Example("bash", ("exact_match", "1|"), place="lmms-eval"),
    "inspect-ai": Example("python", ("success 1.0 2",), place="inspect-ai"),
}


def examples() -> dict[str, str]:
    """Return the examples of the page by the titles of their sections."""
    sections = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]
    found = {}
    for section in sections:
        title, _, text = section.partition("\n")
        blocks = re.findall(r"(?:^(?: {4}.*)?\n)*(?:^ {4}.*\n)", text, flags=re.MULTILINE)
        found[title] = textwrap.dedent("".join(blocks)).strip() + "\n"
    return found


@pytest.mark.fast
def test_each_example_is_run() -> None:
    assert examples().keys() == EXAMPLES.keys()


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    with ServerProcess("demo") as server:
        yield server


def path_of(title: str) -> str:
    """Return the PATH on which an example finds its client; do without it where there is none."""
    place = EXAMPLES[title].place
    if place is None:
        return f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    folder = ROOT / f".venv-{place}"
    if place not in os.environ.get("TEST_REQUIRES", "").split() or not folder.exists():
        programs.do_without(place, f"{place} is not installed: make test-clients installs it")
    return f"{folder}/bin:{os.environ['PATH']}"


def write_example(title: str, url: str, folder: Path) -> list[str]:
    """Write an example as a file that asks a server, and return what runs it."""
    port, program = str(free_port()), EXAMPLES[title].program
    text = examples()[title].replace(ADDRESS, url).replace(f":{PROXY_PORT}", f":{port}")
    file = folder / {"python": "example.py", "bash": "example.sh", "node": "example.mjs"}[program]
    file.write_text(text.replace(f"--port {PROXY_PORT}", f"--port {port}"))
    for name in ("docs", "server"):
        (folder / name).symlink_to(ROOT / name)
    if program == "node":
        (folder / "node_modules").symlink_to(ROOT / f".venv-{EXAMPLES[title].place}/node_modules")
    return [program, *(["-eu", "-o", "pipefail"] if program == "bash" else []), str(file)]


def free_port() -> int:
    with contextlib.closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port


def num_answered(server: ServerProcess, policy: str) -> float:
    """Return how many requests under a policy the server has answered to their end."""
    with server.client() as client:
        text = client.get("/metrics").text
    lines = (line for line in text.splitlines() if line.startswith("skipserve_requests_total"))
    return sum(
        float(line.rpartition(" ")[2])
        for line in lines
        if f'skip_policy="{policy}"' in line and re.search(r'finish_reason="(stop|length)"', line)
    )


@pytest.mark.parametrize("title", EXAMPLES)
@pytest.mark.timeout(600)
def test_an_example_does_what_it_says(
    title: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = path_of(title)
    # Not before it is known that there is a client.
    server: ServerProcess = request.getfixturevalue("server")
    if EXAMPLES[title].program == "bash":
        programs.find("curl", "apt-get install curl")
    command = write_example(title, server.url, tmp_path)
    environment = os.environ | {"PATH": path, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    before = {policy: num_answered(server, policy) for policy in EXAMPLES[title].policies}
    program = shutil.which(command[0], path=path)
    assert program is not None
    done = children.run([program, *command[1:]], cwd=tmp_path, env=environment)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    for words in EXAMPLES[title].told:
        assert words in said, said
    assert '"error"' not in done.stdout
    for policy, number in before.items():
        assert num_answered(server, policy) > number
