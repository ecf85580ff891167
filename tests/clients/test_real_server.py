"""Client and commands against a real server of a small random model, from start to stop."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from tiny_llava import make_checkpoint
from typer.testing import CliRunner, Result

from skipserve_client import ApiError, SkipserveClient
from skipserve_client.cli import app
from skipserve_client.command_group import CommandError
from skipserve_client.evaluate.own_server import own_server

NUM_LAYERS = 32


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return make_checkpoint(folder, num_layers=NUM_LAYERS, hidden=32, ffn=64)


@pytest.fixture(scope="module")
def url(model: Path) -> Iterator[str]:
    with own_server(["--host", "127.0.0.1", "--model", str(model)]) as url:
        yield url
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health")


@pytest.fixture
def client(url: str) -> Iterator[SkipserveClient]:
    with SkipserveClient(url) as client:
        yield client


@pytest.fixture
def picture(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a picture that the server has not seen."""
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    Image.effect_noise((40, 30), 90).convert("RGB").save(path)
    return str(path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), prog_name="skipserve")


GREEDY: dict[str, Any] = {"temperature": 0.0, "max_tokens": 6}


def test_ask_and_its_stream_give_the_same_answer(client: SkipserveClient, picture: str) -> None:
    options = GREEDY | {"skip_policy": "exit-after-24", "logprobs": True, "top_logprobs": 2}
    whole = client.ask(picture, "What?", **options)
    with client.stream_ask(picture, "What?", **options) as stream:
        assert "".join(stream) == whole.text
    again = client.ask(picture, "What?", **options)
    assert stream.answer.skip == again.skip
    assert stream.answer.usage == again.usage
    # The second time the picture's rows are there already, and are not counted.
    assert (whole.usage.cached_tokens, again.usage.cached_tokens) == (0, 32)
    assert again.skip.planned_flops < whole.skip.planned_flops
    assert again.text == whole.text
    assert [token.token for token in stream.answer.logprobs] == [
        token.token for token in whole.logprobs
    ]
    assert whole.skip.layers == {"skip_block": tuple(range(25, NUM_LAYERS))}
    assert len(whole.logprobs) == whole.usage.completion_tokens
    assert len(whole.logprobs[0].top_logprobs) == 2


def test_a_prompt_s_log_probabilities(client: SkipserveClient, picture: str) -> None:
    answer = client.ask(picture, "What?", prompt_logprobs=2, **GREEDY)
    told = answer.prompt_logprobs
    assert len(told) == answer.usage.prompt_tokens
    assert told[0] is None
    assert told.count(None) == 1 + answer.usage.image_tokens
    for entry in filter(None, told):
        own, *others = entry.values()
        assert [it.rank for it in sorted([own, *others], key=lambda it: it.rank)][:2] == [1, 2]
        assert all(it.logprob <= 0 for it in (own, *others))
    assert "".join(next(iter(it.values())).decoded_token for it in told[-3:] if it) == "NT:"
    assert client.ask(picture, "What?", **GREEDY).prompt_logprobs == ()
    with (
        pytest.raises(ApiError) as streamed,
        client.stream_ask(picture, "What?", prompt_logprobs=2) as stream,
    ):
        next(stream)
    assert streamed.value.param == "prompt_logprobs"


def test_leaving_a_stream_early_frees_the_server(client: SkipserveClient, picture: str) -> None:
    with client.stream_ask(picture, "What?", temperature=0.0, max_tokens=400) as stream:
        next(stream)
    assert client.ask(picture, "What?", **GREEDY).usage.completion_tokens > 0


def test_errors_name_the_field(client: SkipserveClient, picture: str) -> None:
    with pytest.raises(ApiError) as unknown:
        client.ask(picture, "What?", skip_policy="exit-after-25")
    assert (unknown.value.status, unknown.value.param) == (404, "skip_policy")
    assert "exit-after-24" in unknown.value.message
    with pytest.raises(ApiError) as wrong:
        client.ask(picture, "What?", temperature=-1.0)
    assert (wrong.value.status, wrong.value.param) == (400, "temperature")


def test_lists_are_those_of_the_offline_command(client: SkipserveClient, model: Path) -> None:
    listed = json.loads(run("policies", "--model", str(model), "--json").stdout)["data"]
    assert [policy.model_dump(mode="json") for policy in client.skip_policies()] == listed
    assert "tiny@exit-after-24" in {known.id for known in client.models()}


def test_the_planned_flops_are_those_of_the_flops_command(
    client: SkipserveClient, model: Path, picture: str
) -> None:
    first, second = (
        client.ask(picture, "What?", skip_policy="exit-after-24", **GREEDY) for _ in range(2)
    )
    for answer, cached in ((first, 0), (second, 32)):
        shape, usage = answer.skip.saved_for, answer.usage
        assert shape is not None
        before = 7  # the rows of "<s>USER: "
        after = usage.prompt_tokens - usage.image_tokens - before
        assert shape.prompt == f"{before}+{usage.image_tokens}+{after}"
        assert shape.cached_tokens == usage.cached_tokens == cached
        cost = json.loads(
            run(
                *("flops", "--model", str(model), "--policy", "exit-after-24", "--json"),
                *("--prompt", shape.prompt, "--cached", str(shape.cached_tokens)),
                *("--generate", str(shape.generated_tokens)),
            ).stdout
        )
        assert answer.skip.planned_flops == cost["policy"]["exact"]["trimmed"]["total"]
        assert answer.skip.full_flops == cost["full"]["exact"]["trimmed"]["total"]


def test_the_ask_command_answers(url: str, picture: str) -> None:
    result = run("ask", picture, "What?", "--url", url, "--max-tokens", "4")
    assert result.exit_code == 0
    assert "full" in result.stdout


def test_chat_remembers_and_compare_starts_cold(url: str, picture: str) -> None:
    talk = ["chat", picture, "--url", url, "--max-tokens", "4", "--json"]
    lines = "What?\n/policy exit-after-24\nAnd then?\n"
    result = CliRunner().invoke(app, talk, input=lines, prog_name="skipserve")
    assert result.exit_code == 0, result.output
    first, second = map(json.loads, result.stdout.splitlines())
    assert (first["skip"]["policy"], second["skip"]["policy"]) == ("full", "exit-after-24")
    assert second["usage"]["image_tokens"] == first["usage"]["image_tokens"] > 0
    assert second["usage"]["prompt_tokens"] > first["usage"]["prompt_tokens"]
    flags = ["--url", url, "--policies", "exit-after-24", "--max-tokens", "4", "--repeat", "2"]
    for warm in ([], ["--warm"]):
        found = json.loads(run("compare", picture, "What?", *flags, *warm, "--json").stdout)
        full, other = (it["answer"] for it in found["policies"])
        assert (full["skip"]["saved_ratio"], other["skip"]["policy"]) == (0, "exit-after-24")
        cached = [it["usage"]["cached_tokens"] > 0 for it in (full, other)]
        assert cached == [bool(warm)] * 2
        assert all(it["is_repeatable"] for it in found["policies"])


def test_load_counts_every_token_and_starts_cold(url: str) -> None:
    flags = ["--policies", "full=1,exit-after-24=1", "--max-tokens", "4", "--ignore-eos"]
    flags += ["--requests", "12", "--picture-size", "24x24", "--seed", "1", "--json"]
    for repeats in ((), ("--repeat-pictures", "1")):
        result = run("load", "--url", url, *flags, *repeats)
        assert result.exit_code == 0, result.output
        found = json.loads(result.stdout)
        whole = found["all"]
        assert (whole["answered"], whole["output_tokens"]) == (12, 48)
        assert whole["itl"]["count"] <= 36
        assert (whole["cached_tokens"] > 0) is bool(repeats)
        assert found["by_policy"]["full"]["flops_saved"] == 0
        assert found["by_policy"]["exit-after-24"]["flops_saved"] > 0
        assert found["server"]["is_skipserve"]


def test_evaluate_measures_all_policies_of_a_server(url: str) -> None:
    flags = ["--url", url, "--policies", "all", "--count", "2", "--max-tokens", "2", "--json"]
    measured = json.loads(run("evaluate", *flags).stdout)["policies"]
    assert {"full", "shortv-7b", "exit-after-24"} <= set(measured)
    assert all(policy["n"] == 2 for policy in measured.values())
    assert measured["full"]["flops_saved"] == 0 < measured["exit-after-24"]["flops_saved"]


def test_evaluate_starts_and_stops_a_server_of_its_own(model: Path, tmp_path: Path) -> None:
    shallow = make_checkpoint(tmp_path / "shallow")
    flags = ["--model", str(shallow), "--policies", "all", "--count", "1", "--max-tokens", "2"]
    result = run("evaluate", *flags)
    assert result.exit_code == 0, result.stderr
    assert "full" in result.stdout
    assert "left out" in result.stdout


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(CommandError, match="did not start"),
        own_server(["--model", str(tmp_path / "nothing")]),
    ):
        pass


def test_no_proxy_of_the_environment_gets_in_the_way(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setitem(os.environ, name, "http://127.0.0.1:9")
    with SkipserveClient(url) as client:
        assert client.models()
