"""Tests of the image as it is run: read-only, without rights, asked, watched and stopped."""

import os
from collections.abc import Iterator

import httpx
import pytest
from image_engine import ROOT, Container, Engine
from pictures import question

from skipserve_client import SkipserveClient

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

_KEY = "a-key-of-this-test"
_THREADS = {"SKIPSERVE_NUM_THREADS": "1", "SKIPSERVE_API_KEY": _KEY}


@pytest.fixture(scope="module")
def container(engine: Engine, image: str) -> Iterator[Container]:
    with Container(engine, image, **_THREADS) as running:
        yield running


def test_answers_a_question_about_an_image(container: Container) -> None:
    with SkipserveClient(container.url, api_key=_KEY) as client:
        answer = client.ask(
            ROOT / "docs/picture.png",
            "How many red squares are there?",
            temperature=0,
            skip_policy="skip-block-every-3-from-16",
        )
    assert answer.text == "2"


def test_wants_the_key_that_the_environment_sets(container: Container) -> None:
    assert httpx.get(f"{container.url}/metrics", trust_env=False).status_code == 401


def test_runs_without_rights_and_without_a_place_to_write(container: Container) -> None:
    assert container.run("id", "-u") == (0, "10001\n")
    for folder in ("/", "/opt/skipserve", "/cache", "/models"):
        code, output = container.run("touch", f"{folder}/file")
        assert code != 0, folder
        assert "Read-only file system" in output
    _, capabilities = container.run("grep", "CapBnd", "/proc/1/status")
    assert int(capabilities.split()[1], 16) == 0


def test_holds_a_compiler_only_where_triton_needs_one(container: Container) -> None:
    is_for_gpus = os.environ.get("TEST_TARGET") == "cuda"
    for program in ("cc", "gcc", "g++", "clang", "make"):
        code, output = container.run("sh", "-c", f"command -v {program}")
        assert (code == 0) == (is_for_gpus and program in {"cc", "gcc"}), output


def test_health_check_tells_a_server_from_none(container: Container) -> None:
    assert container.run(*container.health_check) == (0, "")
    code, output = container.run(*container.health_check, SKIPSERVE_PORT="1")
    assert code != 0
    assert "refused" in output


def test_stops_when_told_to_and_finishes_its_answers(engine: Engine, image: str) -> None:
    body = question("Why?", temperature=0, stream=True)
    del body["max_tokens"]
    with (
        Container(engine, image, **_THREADS) as container,
        httpx.Client(base_url=container.url, timeout=None, trust_env=False) as client,
        client.stream(
            "POST",
            "/v1/chat/completions",
            json=body,
            headers={"Authorization": f"Bearer {_KEY}"},
        ) as reply,
    ):
        lines = reply.iter_lines()
        assert next(lines).startswith("data: ")
        with container.begin_to_stop() as stopping:
            assert [line for line in lines if line][-1] == "data: [DONE]"
            stopping.communicate()
        assert container.exit_code == 0
