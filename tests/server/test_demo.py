"""Tests of the demo model that ships, through the whole server."""

from collections.abc import Iterator

import httpx
import pytest
from live_server import LiveServer
from pictures import data_uri, encode, question

from skipserve.settings import Settings
from skipserve_client.evaluate.dataset import demo_examples
from skipserve_client.evaluate.scenes import Split
from skipserve_client.evaluate.scoring import GradedAnswer
from skipserve_policies.catalog import AUTO_NAME, load_catalog

NUM_QUESTIONS = 24


@pytest.fixture(scope="module")
def demo() -> Iterator[httpx.Client]:
    with LiveServer(Settings(num_threads=1)) as server, server.client() as client:
        yield client


@pytest.mark.parametrize("policy", ["full", "skip-block-every-3-from-16"])
def test_the_demo_answers_questions(demo: httpx.Client, policy: str) -> None:
    graded = []
    for example in demo_examples(Split.HELD_OUT, NUM_QUESTIONS):
        url = data_uri(encode(example.image))
        body = question(example.question, url, temperature=0, max_tokens=40, skip_policy=policy)
        reply = demo.post("/v1/chat/completions", json=body).json()
        content = reply["choices"][0]["message"]["content"]
        graded.append(GradedAnswer(example.type, example.answer, content))
        assert reply["metrics"]["skip"]["policy"] == policy
    # Far below what is measured over many questions, and far above guessing.
    assert sum(answer.is_correct for answer in graded) / NUM_QUESTIONS >= 0.7


def test_the_whole_catalog_fits_the_demo(demo: httpx.Client) -> None:
    names = {entry["id"] for entry in demo.get("/v1/models").json()["data"]}
    assert names == {"demo", *(f"demo@{name}" for name in (AUTO_NAME, *load_catalog()))}


def test_every_policy_has_the_quality_that_was_measured_of_it(demo: httpx.Client) -> None:
    """What was measured is known by digests, which a change of the catalog must not touch."""
    for entry in demo.get("/v1/skip_policies").json()["data"]:
        datasets = [quality["dataset"] for quality in entry["quality"]]
        assert datasets[:1] == ["demo"], entry["name"]
