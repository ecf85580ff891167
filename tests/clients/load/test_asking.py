"""What each request of a load says."""

import json
from collections import Counter
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from skipserve_client.load.asking import DEFAULT_QUESTIONS, Asking, Job, until
from skipserve_client.load.pictures import GeneratedPictures, Repeats
from skipserve_client.load.rows import Row
from skipserve_client.policy_choice import PolicyChoice

pytestmark = pytest.mark.fast

INLINE = PolicyChoice.inline({"rules": []})


def asking(weights: Mapping[PolicyChoice, float] | None = None, **changes: Any) -> Asking:
    values: dict[str, Any] = {
        "seed": 1,
        "options": {"temperature": 0.0, "max_tokens": 9},
        "weights": weights or {},
        "unnamed": "usual",
        "pictures": None,
        "repeats": Repeats(),
    }
    return Asking(**(values | changes))


def body(job: Job) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(job.content)
    return found


def test_a_text_alone_asks_what_every_server_takes() -> None:
    job = asking().job(0, None)
    assert body(job) == {
        "messages": [{"role": "user", "content": DEFAULT_QUESTIONS[0]}],
        "temperature": 0.0,
        "max_tokens": 9,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    assert (job.policy, job.picture, job.scheduled_seconds) == ("usual", None, None)


def test_a_server_that_can_is_asked_for_tokens_as_they_come() -> None:
    options = body(asking(tells_tokens=True).job(0, None))["stream_options"]
    assert options == {"include_usage": True, "continuous_usage_stats": True}


def test_pictures_come_before_the_question() -> None:
    found = asking(pictures=GeneratedPictures(4, 4, 1))
    jobs = list(islice(found.jobs(), 3))
    parts = [body(job)["messages"][0]["content"] for job in jobs]
    assert [[part["type"] for part in it] for it in parts] == [["image_url", "text"]] * 3
    assert len({it[0]["image_url"]["url"] for it in parts}) == 3
    assert [job.picture for job in jobs] == ["generated-0", "generated-1", "generated-2"]


def test_policies_are_drawn_by_their_weights() -> None:
    full = PolicyChoice("full", "full")
    found = asking({full: 3.0, INLINE: 1.0})
    jobs = list(islice(found.jobs(), 2000))
    counts = Counter(job.policy for job in jobs)
    assert counts["full"] / 2000 == pytest.approx(0.75, abs=0.04)
    assert set(counts) == {"full", INLINE.label}
    for job in jobs:
        assert body(job)["skip_policy"] == ("full" if job.policy == "full" else {"rules": []})


def test_the_same_seed_asks_the_same() -> None:
    weights = {PolicyChoice("full", "full"): 1.0, INLINE: 1.0}
    jobs = [list(islice(asking(weights, seed=seed).jobs(), 20)) for seed in (1, 1, 2)]
    assert jobs[0] == jobs[1] != jobs[2]
    assert asking(weights).job(7, None) == jobs[0][7]


def test_rows_say_more_than_the_rest(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    row = Row(picture=tmp_path / "a.png", question="Why?", policy="half", max_tokens=2)
    found = asking(rows=[row, Row()], pictures=GeneratedPictures(4, 4, 1))
    first, second, third = islice(found.jobs(iter([0.5, 1.5, 2.0])), 3)
    said = body(first)
    assert (said["skip_policy"], said["max_tokens"], first.question) == ("half", 2, "Why?")
    assert first.picture == str(tmp_path / "a.png")
    assert (second.picture, second.policy, body(second)["max_tokens"]) == (
        "generated-1",
        "usual",
        9,
    )
    assert [it.scheduled_seconds for it in (first, second, third)] == [0.5, 1.5, 2.0]
    assert third.question == "Why?"


def test_rows_may_spell_a_policy_out() -> None:
    policies: list[Any] = [{"rules": []}, '{"rules": []}']
    for policy in policies:
        found = asking(rows=[Row(policy=policy)]).job(0, None)
        assert (found.policy, body(found)["skip_policy"]) == (INLINE.label, {"rules": []})


def test_the_warm_up_asks_under_each_policy_and_shares_nothing() -> None:
    weights = {PolicyChoice("full", "full"): 1.0, INLINE: 1.0}
    options = {"max_tokens": 9, "cache_salt": "s"}
    found = asking(weights, pictures=GeneratedPictures(4, 4, 1), options=options)
    warm = list(found.warm_up(3))
    assert [job.policy for job in warm] == ["full", INLINE.label, "full"]
    assert {body(job)["cache_salt"] for job in warm} == {"s-warm-up"}
    assert [job.policy for job in asking().warm_up(1)] == ["usual"]
    assert body(found.job(0, None))["cache_salt"] == "s"


@pytest.mark.parametrize(
    ("requests", "seconds", "expected"),
    [(None, None, [0, 1, 2, 3]), (2, None, [0, 1]), (None, 2.0, [0, 1]), (3, 1.5, [0, 1])],
)
def test_times_end(requests: int | None, seconds: float | None, expected: list[float]) -> None:
    times = iter([0.0, 1.0, 2.0, 3.0])
    assert list(until(times, requests, seconds)) == expected
