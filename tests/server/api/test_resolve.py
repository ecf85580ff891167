"""Tests of the route that shows what a skip policy would run."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from app_client import send
from fastapi import FastAPI
from played_app import PlayedService, app_with

from skipserve.api.paths import POLICIES, RESOLVE
from skipserve.model.config import ModelConfig
from skipserve.settings import Settings
from skipserve_policies.catalog import load_catalog
from skipserve_policies.plan import TokenClass
from skipserve_policies.resolve import resolve_for

pytestmark = pytest.mark.fast

MINE = {"rules": [{"action": "skip_ffn", "layers": {"from": 16, "to": 31}, "scope": "visual"}]}


@pytest.fixture(scope="module")
def app(settings: Settings) -> FastAPI:
    return app_with(PlayedService(), settings)


def preview(app: FastAPI, **body: object) -> httpx.Response:
    return send(app, "POST", RESOLVE, json=body)


def cells(runs: Any) -> list[list[tuple[bool, bool, str, str]]]:
    return [
        list(zip(column["attention"], column["kv"], column["ffn"], column["pair"], strict=True))
        for column in (runs[name.name.lower()] for name in TokenClass)
    ]


@pytest.mark.parametrize("name", load_catalog())
def test_named_policies_are_shown_as_they_are_listed(
    app: FastAPI, checkpoint: Path, name: str
) -> None:
    shown = preview(app, skip_policy=name).json()
    listed = send(app, "GET", f"{POLICIES}/{name}").json()

    skip, told = shown["skip"], ("digest", "layers", "saved_ratio", "saved_for")
    assert skip["policy"] == name
    assert {key: skip[key] for key in told} == {key: listed[key] for key in told}
    assert (shown["scope"], shown["quality"]) == (listed["scope"], listed["quality"])
    assert skip["saved_ratio"] == 1 - skip["planned_flops"] / skip["full_flops"]
    sizes = ModelConfig.from_folder(checkpoint).sizes
    plan = resolve_for(name, load_catalog()[name], sizes).plan
    assert cells(shown["runs"]) == [
        [(cell.attention, kv, cell.ffn, cell.pair) for cell, kv in zip(*columns, strict=True)]
        for columns in zip(plan.columns, plan.kv, strict=True)
    ]


def test_a_policy_that_is_spelt_out(app: FastAPI) -> None:
    shown = preview(app, skip_policy=MINE).json()

    assert (shown["object"], shown["scope"]) == ("skip_policy.preview", "visual")
    assert shown["skip"]["layers"] == {"skip_ffn": list(range(16, 32))}
    named = preview(app, skip_policy="visual-ffn-skip-from-16").json()
    assert shown["skip"]["digest"] == named["skip"]["digest"]
    assert shown["runs"] == named["runs"]


def test_rows_that_leave_are_counted(app: FastAPI) -> None:
    dropped = preview(app, skip_policy="fastv-2-half").json()["skip"]
    reduced = preview(app, skip_policy="divprune-64").json()["skip"]

    assert dropped["visual_rows"] == [{"layer": 2, "kept": 8, "of": 16}]
    assert "image_rows" not in dropped
    assert reduced["image_rows"]["of"] == 16
    assert reduced["image_rows"]["kept"] < 16
    assert "visual_rows" not in reduced


def test_without_a_policy_the_default_is_shown(app: FastAPI) -> None:
    assert preview(app).json() == preview(app, skip_policy="full").json()
    assert preview(app, model="tiny@exit-after-24").json()["skip"]["policy"] == "exit-after-24"


@pytest.mark.parametrize(
    ("body", "status", "param", "words"),
    [
        ({"skip_policy": "ful"}, 404, "skip_policy", "the nearest are full"),
        ({"model": "other"}, 404, "model", "this server has 'tiny'"),
        ({"skip_policy": 7}, 400, "skip_policy", "a skip policy is a name"),
        ({"policy": "full"}, 400, "policy", "skip_policy"),
        (
            {"skip_policy": {"rules": [{"action": "skip_ffn", "layers": [32]}]}},
            400,
            "skip_policy",
            "layer 32 does not exist",
        ),
    ],
)
def test_what_cannot_be_resolved_says_why(
    app: FastAPI, body: dict[str, object], status: int, param: str, words: str
) -> None:
    error = preview(app, **body).json()["error"]

    assert (error["code"], error["param"]) == (status, param)
    assert words in error["message"]


def test_where_policies_may_not_be_spelt_out(settings: Settings) -> None:
    app = app_with(PlayedService(), settings.model_copy(update={"allow_inline_policies": False}))

    assert preview(app, skip_policy=MINE).status_code == 403
    assert preview(app, skip_policy="full").status_code == 200


def test_nothing_is_asked_of_the_engine(settings: Settings) -> None:
    service = PlayedService()
    service.let_run()

    assert preview(app_with(service, settings), skip_policy=MINE).status_code == 200
    assert service.requests == []


def test_a_column_by_hand(app: FastAPI) -> None:
    """By hand: visual rows run no FFN from 16 on, nor what nobody reads in the last layer."""
    column = preview(app, skip_policy=MINE).json()["runs"]["visual"]

    assert column["ffn"] == ["serial"] * 16 + ["none"] * 16
    assert column["attention"] == [True] * 31 + [False]
    assert column["kv"] == [True] * 32
    assert column["pair"] == ["none"] * 32


@pytest.mark.parametrize("given", ["auto", {"auto": {"min_quality": 0.9}}])
def test_what_is_chosen_for_each_request_runs_nothing_by_itself(
    app: FastAPI, given: object
) -> None:
    reply = preview(app, skip_policy=given)

    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "skip_policy"
    assert "chosen for each request" in reply.json()["error"]["message"]
