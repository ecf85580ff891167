"""Tests of the routes that list and show."""

import httpx
import pytest
from live_server import LiveServer
from pictures import data_uri, encode, question, random_picture

from skipserve_policies.catalog import AUTO_NAME, load_catalog


def test_models(client: httpx.Client, live: LiveServer) -> None:
    reply = client.get("/v1/models").json()
    assert reply["object"] == "list"
    names = [entry["id"] for entry in reply["data"]]
    assert names == ["tiny", *(f"tiny@{policy}" for policy in (AUTO_NAME, *load_catalog()))]
    first, *_, last = reply["data"]
    assert (first["root"], first["skip_policy"], first["max_model_len"]) == ("tiny", "full", 256)
    assert last["skip_policy"] == last["id"].partition("@")[2]
    ready = live.built.serving.service.ready
    assert ready is not None
    assert first["weights_digest"] == ready.weights_digest
    assert len(first["weights_digest"]) == 64


def test_every_listed_model_answers(client: httpx.Client) -> None:
    for entry in client.get("/v1/models").json()["data"]:
        body = question("Hi", model=entry["id"], max_tokens=2)
        reply = client.post("/v1/chat/completions", json=body)
        assert reply.status_code == 200
        skip = reply.json()["metrics"]["skip"]
        assert skip.get("requested", skip["policy"]) == entry["skip_policy"]


def test_skip_policies(client: httpx.Client) -> None:
    reply = client.get("/v1/skip_policies").json()
    assert reply["object"] == "list"
    entries = {entry["name"]: entry for entry in reply["data"]}
    assert list(entries) == list(load_catalog())
    assert {frozenset(entry) for entry in entries.values()} == {
        frozenset(
            (
                *("name", "description", "source", "digest", "layers", "scope"),
                *("saved_ratio", "saved_for", "quality", "added", "default"),
            )
        )
    }
    assert [name for name, entry in entries.items() if entry["default"]] == ["full"]
    assert entries["full"]["saved_ratio"] == 0
    assert entries["full"]["scope"] is None
    standard = {"prompt": "35+16+25", "cached_tokens": 0, "generated_tokens": 10}
    assert all(entry["saved_for"] == standard for entry in entries.values())
    skipping = entries["skip-block-every-3-from-16-all"]
    assert skipping["layers"] == {"skip_block": [18, 21, 24, 27, 30]}
    assert skipping["scope"] == "all"
    assert 0 < entries["skip-block-every-3-from-16"]["saved_ratio"] < skipping["saved_ratio"] < 1


def test_health_ready_version(client: httpx.Client) -> None:
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/ready").json() == {"status": "ready"}


def test_metrics(client: httpx.Client) -> None:
    policy = "skip-ffn-from-16-all"

    def value(name: str, **labels: str) -> float:
        wanted = {"skip_policy": policy, "model": "tiny"} | labels
        for line in client.get("/metrics").text.splitlines():
            if line.startswith(name + "{") and all(f'{k}="{v}"' in line for k, v in wanted.items()):
                return float(line.rpartition(" ")[2])
        return 0.0

    names = [
        "skipserve_request_duration_seconds_count",
        "skipserve_time_to_first_token_seconds_count",
        "skipserve_inter_token_latency_seconds_count",
        "skipserve_executed_flops_total",
        "skipserve_saved_flops_total",
        "skipserve_prefix_cache_queries_total",
        "skipserve_prefix_cache_hits_total",
    ]
    before = [value(name) for name in names]
    skipped = value("skipserve_skipped_sublayers_total", kind="ffn")
    # A picture and a salt that no other test has: all of it is computed.
    picture = data_uri(encode(random_picture(33, 31, seed=99)))
    body = question("Hi", picture, temperature=0, max_tokens=4, skip_policy=policy)
    body["cache_salt"] = "test-metrics"
    reply = client.post("/v1/chat/completions", json=body).json()
    grown = [value(name) - old for name, old in zip(names, before, strict=True)]
    num_tokens = reply["usage"]["completion_tokens"]
    assert grown[:3] == [1, 1, num_tokens - 1]
    report = reply["metrics"]["skip"]
    assert grown[3] == report["planned_flops"]
    assert grown[3] + grown[4] == report["full_flops"]
    assert grown[5:] == [reply["usage"]["prompt_tokens"], 0]
    assert value("skipserve_skipped_sublayers_total", kind="ffn") > skipped
    text = client.get("/metrics").text
    for stage in ("decode_image", "preprocess", "tokenize", "prefill", "decode", "detokenize"):
        assert f'stage="{stage}"' in text
    for name in ("kv_cache_usage_ratio", "engine_step_rows_count", "preemptions_total"):
        assert f"skipserve_{name}{{" in text


@pytest.mark.parametrize("path", ["/health", "/ready", "/version", "/metrics", "/v1/models"])
def test_head_works_where_get_does(client: httpx.Client, path: str) -> None:
    reply = client.head(path)
    assert (reply.status_code, reply.content) == (200, b"")
    assert int(reply.headers["Content-Length"]) > 0
    assert client.head("/v1/chat/completions").status_code == 405


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/nowhere"])
def test_replies_are_not_kept_or_guessed_at(client: httpx.Client, path: str) -> None:
    headers = client.get(path).headers
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("name", ["tiny", "tiny@full", "tiny@skip-ffn-from-16-all"])
def test_one_model(client: httpx.Client, name: str) -> None:
    listed = client.get("/v1/models").json()["data"]
    [entry] = [entry for entry in listed if entry["id"] == name]
    assert client.get(f"/v1/models/{name}").json() == entry
    assert client.get(f"/v1/models/{name.replace('@', '%40')}").json() == entry


@pytest.mark.parametrize(
    ("name", "param", "words"),
    [
        ("other", "model", "this server has 'tiny'"),
        ("of/other", "model", "there is no model 'of/other'"),
        ("tiny/", "model", "there is no model 'tiny/'"),
        ("tiny@ful", "skip_policy", "the nearest are full"),
        ("tiny@", "skip_policy", "there is no skip policy ''"),
    ],
)
def test_no_such_model(client: httpx.Client, name: str, param: str, words: str) -> None:
    reply = client.get(f"/v1/models/{name}")
    assert reply.status_code == 404
    assert reply.json()["error"]["param"] == param
    assert words in reply.json()["error"]["message"]


def test_one_skip_policy(client: httpx.Client) -> None:
    for entry in client.get("/v1/skip_policies").json()["data"]:
        assert client.get(f"/v1/skip_policies/{entry['name']}").json() == entry
    reply = client.get("/v1/skip_policies/exit-after-25")
    assert (reply.status_code, reply.json()["error"]["param"]) == (404, "skip_policy")
    assert "exit-after-24" in reply.json()["error"]["message"]
