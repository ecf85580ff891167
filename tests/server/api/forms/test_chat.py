"""Tests of chat completions, against a whole server, and of their form alone."""

import json
import math
import socket
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
import scarce_engine
from live_server import LiveServer
from pictures import question
from pydantic import ValidationError

from skipserve.api.forms.chat import read_chat
from skipserve.api.wire import ChatForm
from skipserve.asking.question import Question
from skipserve.errors import InvalidRequestError
from skipserve.prompt.processor import PromptProcessor
from skipserve.settings import Settings
from skipserve_policies import flops
from skipserve_policies.cost import make_request, parse_prompt, saving
from skipserve_policies.plan import Plan, TokenClass, trim
from skipserve_policies.schema import SkipPolicy

CHAT = "/v1/chat/completions"
SKIPPING = "skip-block-every-3-from-16-all"


def alone(body: dict[str, Any]) -> dict[str, Any]:
    """Return a body that reuses nothing, so that equal requests are computed alike."""
    return {"cache_salt": uuid.uuid4().hex} | body


def ask(client: httpx.Client, body: dict[str, Any], **headers: str) -> dict[str, Any]:
    reply = client.post(CHAT, json=alone(body), headers=headers)
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def check_refused(client: httpx.Client, field: dict[str, Any], message: str) -> None:
    """Check that a field is refused by its name."""
    response = client.post(CHAT, json=question("Why?", **field))
    assert response.status_code == 400
    error = response.json()["error"]
    assert message in error["message"]
    assert error["param"].startswith(next(iter(field)))


def stream(client: httpx.Client, body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the chunks of a stream; checks how it ends."""
    with client.stream("POST", CHAT, json=alone(body) | {"stream": True}) as reply:
        assert reply.status_code == 200
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert reply.headers["cache-control"] == "no-store"
        assert reply.headers["x-accel-buffering"] == "no"
        events = reply.read().decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]


def test_a_reply_in_openai_s_form(client: httpx.Client, picture_url: str) -> None:
    body = question("What?", picture_url, temperature=0, max_tokens=4, model="tiny")
    reply = ask(client, body)
    assert reply["object"] == "chat.completion"
    assert reply["id"].startswith("chatcmpl-")
    assert reply["model"] == "tiny"
    [choice] = reply["choices"]
    assert choice["message"]["role"] == "assistant"
    assert isinstance(choice["message"]["content"], str)
    assert choice["finish_reason"] in {"stop", "length"}
    assert choice["logprobs"] is None
    usage = reply["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert usage["prompt_tokens_details"] == {"cached_tokens": 0, "multimodal_tokens": 16}
    times = reply["metrics"]
    assert 0 <= times["queue_seconds"] <= times["time_to_first_token_seconds"]
    assert times["time_to_first_token_seconds"] <= times["duration_seconds"]


def test_the_skip_report_is_the_formula(
    client: httpx.Client, live: LiveServer, picture_url: str
) -> None:
    body = question("What?", picture_url, temperature=0, max_tokens=5, skip_policy=SKIPPING)
    reply = client.post(CHAT, json=alone(body))
    assert reply.headers["x-skip-policy"] == SKIPPING
    report, usage = reply.json()["metrics"]["skip"], reply.json()["usage"]
    sizes = live.built.serving.processor.reporter.sizes
    policy = live.built.serving.processor.policies.find(SKIPPING)
    visual = usage["prompt_tokens_details"]["multimodal_tokens"]
    # Where the image stands among the text changes no count of full rows, so any place will do
    # for a policy that treats both alike.
    segments = [(TokenClass.VISUAL, visual), (TokenClass.TEXT, usage["prompt_tokens"] - visual)]
    shape = flops.Request(flops.prompt_classes(segments), usage["completion_tokens"], num_images=1)
    planned = flops.request_flops(sizes, policy.plan, shape).total
    full = flops.request_flops(sizes, trim(Plan.full(32)), shape).total
    before = 7  # the rows of "<s>USER: "
    assert report == {
        "policy": SKIPPING,
        "digest": policy.digest,
        "layers": {"skip_block": [18, 21, 24, 27, 30]},
        "planned_flops": planned,
        "full_flops": full,
        "saved_ratio": 1 - planned / full,
        "saved_for": {
            "prompt": f"{before}+{visual}+{usage['prompt_tokens'] - before - visual}",
            "cached_tokens": 0,
            "generated_tokens": usage["completion_tokens"],
        },
    }
    assert 0 < report["saved_ratio"] < 1


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("vtw-half", {16: 0}),
        ("fastv-2-half", {2: 8}),
        ("dart-192", {2: 4}),
        ("pyramiddrop", {8: 8, 16: 4, 24: 2}),
        ("random-2-half", {2: 8}),
    ],
)
def test_rows_that_leave_inside_the_decoder_are_told(
    client: httpx.Client, live: LiveServer, picture_url: str, name: str, rows: dict[int, int]
) -> None:
    """The prompt's tokens are all counted: the first layers have seen them."""
    body = question("What?", picture_url, temperature=0, max_tokens=3, skip_policy=name)
    reply = client.post(CHAT, json=body | {"cache_salt": uuid.uuid4().hex}).json()
    report, usage = reply["metrics"]["skip"], reply["usage"]
    assert report["layers"] == {"drop_visual": list(rows)}
    assert usage["prompt_tokens_details"]["multimodal_tokens"] == 16
    assert report["visual_rows"] == [
        {"layer": layer, "kept": kept, "of": 16} for layer, kept in rows.items()
    ]
    processor = live.built.serving.processor
    policy = processor.policies.find(name)
    shape = make_request(
        parse_prompt(report["saved_for"]["prompt"]), report["saved_for"]["generated_tokens"]
    )
    saved = saving(processor.reporter.sizes, policy.plan, shape, narrowing=policy.narrowing)
    assert (report["planned_flops"], report["saved_ratio"]) == (
        saved.planned_flops,
        saved.saved_ratio,
    )
    text = client.post(CHAT, json=question("What?", max_tokens=3, skip_policy=name)).json()
    assert "visual_rows" not in text["metrics"]["skip"]
    assert text["metrics"]["skip"]["saved_ratio"] == 0


def test_fewer_rows_of_an_image_are_fewer_tokens_of_the_prompt(
    client: httpx.Client, live: LiveServer, picture_url: str
) -> None:
    """The saving is that against all rows, whatever was cached; pages are shared with its kind."""
    processor = live.built.serving.processor
    rules = [{"action": "reduce_visual", "method": "divprune", "keep": "50%"}]
    skips = {"action": "skip_ffn", "layers": [20], "scope": "all"}
    salt = uuid.uuid4().hex
    answers = {}
    for name, policy in (
        ("full", "full"),
        ("half", {"rules": rules}),
        ("again", {"rules": rules}),
        ("both", {"rules": [*rules, skips]}),
        ("named", "downsample-half"),
    ):
        body = question("What?", picture_url, temperature=0, max_tokens=5, skip_policy=policy)
        reply = client.post(CHAT, json=body | {"cache_salt": salt}).json()
        answers[name] = reply
        usage, report = reply["usage"], reply["metrics"]["skip"]
        visual = usage["prompt_tokens_details"]["multimodal_tokens"]
        assert visual == (16 if name == "full" else 8)
        assert report.get("image_rows") == (None if name == "full" else {"kept": 8, "of": 16})
        shape = report["saved_for"]
        assert shape["prompt"].split("+")[1] == "16"
        request = make_request(
            parse_prompt(shape["prompt"]), shape["generated_tokens"], shape["cached_tokens"]
        )
        resolved = (
            processor.policies.find(policy)
            if isinstance(policy, str)
            else processor.policies.resolve_inline(SkipPolicy.model_validate(policy))
        )
        saved = saving(processor.reporter.sizes, resolved.plan, request, resolved.reduction)
        assert (report["planned_flops"], report["full_flops"]) == (
            saved.planned_flops,
            saved.full_flops,
        )
    cached = {
        name: reply["usage"]["prompt_tokens_details"]["cached_tokens"]
        for name, reply in answers.items()
    }
    assert cached == {"full": 0, "half": 0, "again": 16, "both": 0, "named": 0}
    text = [reply["choices"][0]["message"]["content"] for reply in answers.values()]
    assert text[1] == text[2]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"method": "fastv", "keep": 4}, "rules.0.method: this must be one of"),
        ({"method": "random", "keep": "3/2"}, "rules.0.keep: a share of rows lies above 0"),
        ({"method": "random"}, "rules.0.keep: this field is missing"),
    ],
)
def test_what_is_wrong_with_a_reducing_rule_is_named(
    client: httpx.Client, rule: dict[str, object], message: str
) -> None:
    policy = {"rules": [{"action": "reduce_visual", **rule}]}
    reply = client.post(CHAT, json=question("What?", skip_policy=policy))
    assert reply.status_code == 400
    assert reply.json()["error"]["param"] == "skip_policy"
    assert message in reply.json()["error"]["message"]


def test_a_saving_is_counted_for_what_was_not_cached(
    client: httpx.Client, live: LiveServer, picture_url: str
) -> None:
    body = alone(question("What?", picture_url, temperature=0, max_tokens=5, skip_policy=SKIPPING))
    reporter = live.built.serving.processor.reporter
    policy = live.built.serving.processor.policies.find(SKIPPING)
    reports = [client.post(CHAT, json=body).json()["metrics"]["skip"] for _ in range(2)]
    assert [report["saved_for"]["cached_tokens"] for report in reports] == [0, 32]
    assert reports[0]["saved_ratio"] != reports[1]["saved_ratio"]
    for report in reports:
        shape = report["saved_for"]
        request = make_request(
            parse_prompt(shape["prompt"]), shape["generated_tokens"], shape["cached_tokens"]
        )
        assert saving(reporter.sizes, policy.plan, request).saved_ratio == report["saved_ratio"]


def test_the_full_model_saves_nothing(client: httpx.Client, picture_url: str) -> None:
    report = ask(client, question("What?", picture_url))["metrics"]["skip"]
    assert (report["policy"], report["saved_ratio"], report["layers"]) == ("full", 0, {})


def test_a_stream_is_the_reply_in_pieces(client: httpx.Client, picture_url: str) -> None:
    body = question("Why?", picture_url, temperature=0, max_tokens=12, skip_policy=SKIPPING)
    body |= {"logprobs": True, "top_logprobs": 2}
    whole = ask(client, body)
    chunks = stream(client, body)
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    choices = [chunk["choices"][0] for chunk in chunks]
    assert choices[0]["delta"] == {"role": "assistant", "content": ""}
    text = "".join(choice["delta"].get("content", "") for choice in choices)
    assert text == whole["choices"][0]["message"]["content"]
    logprobs = [
        token for choice in choices for token in (choice["logprobs"] or {"content": []})["content"]
    ]
    assert logprobs == whole["choices"][0]["logprobs"]["content"]
    reasons = [choice["finish_reason"] for choice in choices]
    assert reasons == [None] * (len(reasons) - 1) + [whole["choices"][0]["finish_reason"]]
    assert chunks[-1]["metrics"]["skip"] == whole["metrics"]["skip"]
    assert not any("metrics" in chunk or "usage" in chunk for chunk in chunks[:-1])


def test_a_stream_with_usage(client: httpx.Client) -> None:
    body = question("Why?", temperature=0)
    chunks = stream(client, body | {"stream_options": {"include_usage": True}})
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == ask(client, body)["usage"]
    assert chunks[-1]["metrics"]["skip"]["policy"] == "full"
    assert chunks[-2]["choices"][0]["finish_reason"] is not None
    assert not any("metrics" in chunk for chunk in chunks[:-1])


def test_greedy_answers_and_seeded_ones_repeat(client: httpx.Client, picture_url: str) -> None:
    for sampling in ({"temperature": 0}, {"temperature": 1.5, "seed": 5}):
        body = question("Why?", picture_url, max_tokens=10, **sampling)
        contents = {ask(client, body)["choices"][0]["message"]["content"] for _ in range(2)}
        assert len(contents) == 1
    drawn = {
        ask(client, question("Why?", temperature=2, seed=seed, max_tokens=8))["choices"][0][
            "message"
        ]["content"]
        for seed in range(5)
    }
    assert len(drawn) > 1


def test_the_policy_and_nothing_else_makes_the_difference(
    client: httpx.Client, picture_url: str
) -> None:
    def logprobs(**fields: object) -> list[float]:
        body = question("Why?", picture_url, temperature=0, logprobs=True, max_tokens=2, **fields)
        return [t["logprob"] for t in ask(client, body)["choices"][0]["logprobs"]["content"]]

    in_body = logprobs(skip_policy=SKIPPING)
    assert in_body != logprobs()
    assert in_body == logprobs(model=f"tiny@{SKIPPING}")
    assert in_body == logprobs(vllm_xargs={"skip_policy": SKIPPING})
    inline = {
        "rules": [{"action": "skip_block", "layers": {"start": 16, "interval": 3}, "scope": "all"}]
    }
    assert in_body == logprobs(skip_policy=inline)


def test_the_header_names_a_policy(client: httpx.Client) -> None:
    reply = ask(client, question("Why?"), **{"X-Skip-Policy": SKIPPING})
    assert reply["metrics"]["skip"]["policy"] == SKIPPING


def test_an_inline_policy_is_called_inline(client: httpx.Client) -> None:
    rules = [{"action": "skip_ffn", "layers": {"from": 16, "to": 31}, "scope": "all"}]
    reply = ask(client, question("Why?", skip_policy={"rules": rules}))
    assert reply["metrics"]["skip"]["policy"] == "inline"
    assert reply["metrics"]["skip"]["layers"] == {"skip_ffn": list(range(16, 32))}


def test_a_stop_string_ends_the_answer(client: httpx.Client) -> None:
    body = question("Why?", temperature=0, max_tokens=20)
    text = ask(client, body)["choices"][0]["message"]["content"]
    assert len(text) > 4
    stop = text[2:5]
    cut = ask(client, body | {"stop": stop})
    assert cut["choices"][0]["message"]["content"] == text[: text.index(stop)]
    assert cut["choices"][0]["finish_reason"] == "stop"
    assert cut["usage"]["completion_tokens"] <= 20
    chunks = stream(client, body | {"stop": [stop, "never"]})
    shown = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert shown == text[: text.index(stop)]


def test_a_token_ends_the_answer(client: httpx.Client, prompts: PromptProcessor) -> None:
    body = question("Why?", temperature=0, max_tokens=20, logprobs=True)
    tokens = [bytes(it["bytes"]) for it in ask(client, body)["choices"][0]["logprobs"]["content"]]
    assert len(tokens) > 4
    ids = [i for i in range(320) if prompts.tokenizer.token_bytes(i) == tokens[3]]
    cut = ask(client, body | {"stop_token_ids": ids})
    shown = b"".join(tokens[: tokens.index(tokens[3])]).decode(errors="replace")
    assert cut["choices"][0]["message"]["content"] == shown.removeprefix(" ")
    assert cut["choices"][0]["finish_reason"] == "stop"
    assert cut["usage"]["completion_tokens"] == tokens.index(tokens[3]) + 1


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"stop": "</s>x"}, "the special token '</s>' never shows in an answer; name it alone"),
        ({"stop_token_ids": [1, 320]}, "holds 320, and the model's tokens are 0 to 319"),
        ({"stop_token_ids": [-1]}, "stop_token_ids"),
        ({"stop_token_ids": ["1"]}, "stop_token_ids"),
        ({"stop_token_ids": [1] * 65}, "stop_token_ids"),
    ],
)
def test_what_could_never_end_an_answer_is_refused(
    client: httpx.Client, field: dict[str, Any], message: str
) -> None:
    check_refused(client, field, message)


def test_log_probabilities_are_the_models_own(client: httpx.Client) -> None:
    body = question("Why?", logprobs=True, top_logprobs=20, max_tokens=2)
    cold = ask(client, body | {"temperature": 0})["choices"][0]["logprobs"]["content"]
    # Seeded: a draw may be the end token, which has no log-probabilities.
    warm = {"temperature": 2, "top_p": 0.1, "seed": 1}
    hot = ask(client, body | warm)["choices"][0]["logprobs"]["content"]
    assert cold[0]["top_logprobs"] == hot[0]["top_logprobs"]
    assert len(cold[0]["top_logprobs"]) == 20
    values = [top["logprob"] for top in cold[0]["top_logprobs"]]
    assert values == sorted(values, reverse=True)
    assert cold[0]["logprob"] == values[0]


def test_a_conversation(client: httpx.Client, picture_url: str) -> None:
    body = question("And now?", picture_url)
    body["messages"][:0] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
        {"role": "assistant", "content": "Hi.", "refusal": None, "tool_calls": None},
    ]
    assert ask(client, body)["usage"]["prompt_tokens"] > 40


def test_the_answer_fills_what_is_left_of_the_context(client: httpx.Client) -> None:
    body = question("x" * 200, temperature=0)
    del body["max_tokens"]
    usage = ask(client, body)["usage"]
    assert usage["total_tokens"] <= 256


def test_what_was_computed_before_is_reused(client: httpx.Client, picture_url: str) -> None:
    salt = uuid.uuid4().hex
    body = question("What is in it?", picture_url, temperature=0, cache_salt=salt)
    first, second = (ask(client, body) for _ in range(2))
    other = ask(client, body | {"cache_salt": salt + "-"})
    cached = [
        reply["usage"]["prompt_tokens_details"]["cached_tokens"] for reply in (first, second, other)
    ]
    num_prompt = first["usage"]["prompt_tokens"]
    assert cached == [0, (num_prompt - 1) // 16 * 16, 0]
    assert second["metrics"]["skip"]["full_flops"] < first["metrics"]["skip"]["full_flops"]
    assert len({reply["choices"][0]["message"]["content"] for reply in (first, second, other)}) == 1


@pytest.mark.parametrize("wants_stream", [False, True])
def test_a_request_out_of_time_is_told_so(client: httpx.Client, wants_stream: bool) -> None:
    body = question("Why?", timeout_seconds=1e-6, stream=wants_stream)
    reply = client.post(CHAT, json=body)
    if wants_stream:
        assert reply.status_code == 200
        *_, event, end, _ = reply.text.split("\n\n")
        assert end == "data: [DONE]"
        error = json.loads(event.removeprefix("data: "))["error"]
    else:
        assert reply.status_code == 408
        error = reply.json()["error"]
    assert (error["code"], error["type"]) == (408, "timeout_error")
    assert "timeout_seconds" in error["message"]


@pytest.fixture(scope="module")
def scarce(settings: Settings) -> Iterator[httpx.Client]:
    """A server whose engine has no memory for long prompts."""
    popen = subprocess.Popen

    def start(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        return popen([command[0], scarce_engine.__file__, *command[3:]], **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("subprocess.Popen", start)
        with LiveServer(settings) as server, server.client() as client:
            yield client


@pytest.mark.parametrize("wants_stream", [False, True])
def test_a_request_without_memory_is_told_to_come_back(
    scarce: httpx.Client, wants_stream: bool
) -> None:
    text = "Why? " * 30
    reply = scarce.post(CHAT, json=alone(question(text, stream=wants_stream, max_tokens=2)))
    if wants_stream:
        assert reply.status_code == 200
        *_, event, end, _ = reply.text.split("\n\n")
        assert end == "data: [DONE]"
        error = json.loads(event.removeprefix("data: "))["error"]
    else:
        assert reply.status_code == 503
        assert int(reply.headers["Retry-After"]) >= 1
        error = reply.json()["error"]
    assert (error["code"], error["type"]) == (503, "overloaded_error")
    assert "out of memory" in error["message"]
    assert "GiB" not in error["message"]
    assert ask(scarce, question("Why?"))["choices"]


@pytest.mark.parametrize("wants_stream", [False, True])
def test_fields_that_change_no_answer_are_named(
    client: httpx.Client, picture_url: str, wants_stream: bool
) -> None:
    body = alone(question("Why?", picture_url, temperature=0, max_tokens=4, stream=wants_stream))
    plain = client.post(CHAT, json=body)
    assert "x-ignored-fields" not in plain.headers
    body["messages"][0]["name"] = "Ann"
    body["messages"][0]["content"][0]["image_url"]["detail"] = "original"
    body["messages"][0]["content"][0]["uuid"] = "5"
    body |= {"user": "Ann\r\nX-Evil: 1", "functions": [], "tool_choice": "none", "audio": None}
    body["cache_salt"] += "-"
    reply = client.post(CHAT, json=body)
    assert reply.status_code == 200
    assert reply.headers["x-ignored-fields"] == (
        "audio, functions, messages.content.image_url.detail, messages.content.uuid, "
        "messages.name, user"
    )
    if not wants_stream:
        assert reply.json()["choices"] == plain.json()["choices"]


def test_a_developer_s_message_is_the_system_s(client: httpx.Client) -> None:
    body = question("Why?", temperature=0, logprobs=True)
    replies = []
    for role in ("system", "developer"):
        said = [{"role": role, "content": "Be brief."}, *body["messages"]]
        replies.append(ask(client, body | {"messages": said})["choices"])
    assert replies[0] == replies[1]


def test_an_answer_longer_than_the_context_is_clipped(client: httpx.Client) -> None:
    body = question("Why?", temperature=0, max_tokens=10**9, stop_token_ids=[])
    reply = ask(client, body)
    assert reply["usage"]["total_tokens"] <= 256
    if reply["usage"]["total_tokens"] == 256:
        assert reply["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"skip_polcy": "full"}, "skip_polcy: this field is not known; is it skip_policy?"),
        (
            {"audio": {"voice": "a"}},
            "audio: the model does not speak; what it is to hear is a part",
        ),
        ({"prediction": {"type": "content"}}, "prediction: a predicted answer is not used"),
        ({"functions": [{"name": "f"}]}, "functions: send tools"),
        ({"zebra": None}, "zebra: this field is not known"),
    ],
)
def test_fields_that_would_change_the_answer_are_named(
    client: httpx.Client, field: dict[str, Any], message: str
) -> None:
    response = client.post(CHAT, json=question("Why?", **field))
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["message"], error["param"]) == (message, next(iter(field)))


@pytest.fixture
def _ignoring(live: LiveServer) -> Iterator[None]:
    """The server, told to ignore fields that are not known."""
    processor = live.built.serving.processor
    terms = processor.terms
    object.__setattr__(processor, "terms", replace(terms, ignores_unknown=True))
    yield
    object.__setattr__(processor, "terms", terms)


@pytest.mark.usefixtures("_ignoring")
def test_unknown_fields_are_ignored_where_the_operator_says_so(client: httpx.Client) -> None:
    body = question("Why?", zebra=[1], stream_options=None)
    body["messages"][0]["mood"] = "good"
    reply = client.post(CHAT, json=body)
    assert reply.status_code == 200
    assert reply.headers["x-ignored-fields"] == "messages.mood, zebra"
    for field in ("skip_polcy", "max_token"):
        refused = client.post(CHAT, json=body | {field: 1})
        assert refused.json()["error"]["param"] == field


def test_where_a_prompt_ends(client: httpx.Client, prompts: PromptProcessor) -> None:
    body = question("Why?", temperature=0, max_tokens=3, return_token_ids=True)
    said = [*body["messages"], {"role": "assistant", "content": "I say"}]

    def prompt_of(**fields: Any) -> bytes:
        ids = ask(client, body | fields)["prompt_token_ids"]
        return b"".join(map(prompts.tokenizer.token_bytes, ids))

    asked_alone = prompt_of()
    assert asked_alone.endswith(b"ASSISTANT:")
    assert asked_alone.startswith(prompt_of(add_generation_prompt=False))
    closed = prompt_of(messages=said, add_generation_prompt=False)
    assert prompt_of(messages=said) == closed + b"ASSISTANT:"
    continued = prompt_of(messages=said, add_generation_prompt=False, continue_final_message=True)
    assert continued == asked_alone + b" I say" == closed.removesuffix(b" ")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"continue_final_message": True}, "continue_final_message"),
        (
            {"continue_final_message": True, "add_generation_prompt": True},
            "continue_final_message",
        ),
        ({"continue_final_message": True, "add_generation_prompt": False}, "messages"),
    ],
)
def test_what_cannot_be_continued(client: httpx.Client, fields: dict[str, Any], param: str) -> None:
    response = client.post(CHAT, json=question("Why?", **fields))
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


def test_tokens_are_told_where_that_is_asked_for(
    client: httpx.Client, prompts: PromptProcessor, picture_url: str
) -> None:
    body = question("Why?", picture_url, temperature=0, max_tokens=6, return_token_ids=True, n=2)
    reply = ask(client, body)
    assert len(reply["prompt_token_ids"]) == reply["usage"]["prompt_tokens"]
    assert reply["prompt_token_ids"].count(prompts.image_token_id) == 16
    token_ids = reply["choices"][0]["token_ids"]
    assert 2 * len(token_ids) == reply["usage"]["completion_tokens"]
    chunks = stream(client, body)
    assert chunks[0]["prompt_token_ids"] == reply["prompt_token_ids"]
    found = [chunk["choices"][0] for chunk in chunks]
    assert [
        it for choice in found if choice["index"] == 0 for it in choice.get("token_ids") or ()
    ] == token_ids
    plain = ask(client, body | {"return_token_ids": False})
    assert "prompt_token_ids" not in plain
    assert "token_ids" not in plain["choices"][0]


def test_usage_so_far(client: httpx.Client) -> None:
    body = question("Why?", temperature=0, max_tokens=6)
    options = {"include_usage": True, "continuous_usage_stats": True}
    chunks = stream(client, body | {"stream_options": options})
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts[0] == 0
    assert counts == sorted(counts)
    assert counts[-1] == ask(client, body)["usage"]["completion_tokens"]


def test_joined_tokens_are_the_content(client: httpx.Client) -> None:
    for fields in ({}, {"stop": "e"}):
        body = question("Why?", temperature=1.0, seed=2, max_tokens=12, logprobs=True, **fields)
        [choice] = ask(client, body)["choices"]
        spelt = bytes(byte for it in choice["logprobs"]["content"] for byte in it["bytes"])
        assert spelt.decode(errors="replace") == choice["message"]["content"]


def test_times_and_salts_that_are_none_are_named(client: httpx.Client) -> None:
    for fields in ({"cache_salt": "with spaces"}, {"timeout_seconds": 0}):
        reply = client.post(CHAT, json=question("Why?", **fields))
        assert reply.status_code == 400
        assert reply.json()["error"]["param"] == next(iter(fields))


def cancelled(live: LiveServer) -> float:
    value = live.built.serving.registry.get_sample_value(
        "skipserve_cancellations_total", {"model": "tiny"}
    )
    return value or 0.0


def test_several_answers(client: httpx.Client, picture_url: str) -> None:
    """The first is that of the question alone; the prompt's whole pages are computed once."""
    body = question("Why?", picture_url, temperature=1.2, seed=3, max_tokens=9, logprobs=True)
    [alone] = ask(client, body)["choices"]
    reply = ask(client, body | {"n": 4})
    choices = reply["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2, 3]
    texts = [choice["message"]["content"] for choice in choices]
    assert texts[0] == alone["message"]["content"]
    assert len(set(texts)) == 4
    again = ask(client, body | {"n": 3})["choices"]
    assert [choice["message"]["content"] for choice in again] == texts[:3]
    usage, skip = reply["usage"], reply["metrics"]["skip"]
    counts = [skip["saved_for"], *skip["further_answers"]]
    assert usage["completion_tokens"] == sum(count["generated_tokens"] for count in counts)
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    whole_pages = (usage["prompt_tokens"] - 1) // 16 * 16
    assert [count["cached_tokens"] for count in counts] == [0, *[whole_pages] * 3]


def test_several_answers_under_policies_and_changes(client: httpx.Client) -> None:
    body = question("Why?", temperature=1, seed=4, max_tokens=9, skip_policy=SKIPPING)
    body |= {"presence_penalty": 1.0, "logit_bias": {"20": 2}}
    [alone] = ask(client, body)["choices"]
    reply = ask(client, body | {"n": 2})
    assert reply["choices"][0]["message"] == alone["message"]
    assert reply["metrics"]["skip"]["policy"] == SKIPPING


def test_several_answers_as_a_stream(client: httpx.Client) -> None:
    body = question("Why?", temperature=1.2, seed=3, max_tokens=9, n=3)
    whole = ask(client, body)
    chunks = stream(client, body | {"stream_options": {"include_usage": True}})
    *pieces, last = chunks
    texts, reasons = ["", "", ""], [None, None, None]
    for chunk in pieces:
        [choice] = chunk["choices"]
        assert reasons[choice["index"]] is None
        texts[choice["index"]] += choice["delta"].get("content", "")
        reasons[choice["index"]] = choice["finish_reason"]
        assert "metrics" not in chunk
    assert [(it["message"]["content"], it["finish_reason"]) for it in whole["choices"]] == list(
        zip(texts, reasons, strict=True)
    )
    assert last["usage"]["completion_tokens"] == whole["usage"]["completion_tokens"]
    assert last["metrics"]["skip"]["planned_flops"] > 0


def test_a_stop_string_ends_one_answer_of_several(client: httpx.Client) -> None:
    body = question("Why?", temperature=1.2, seed=3, max_tokens=9, n=3)
    texts = [choice["message"]["content"] for choice in ask(client, body)["choices"]]
    stop = next(it for it in texts[1] if it not in texts[0] + texts[2])
    choices = ask(client, body | {"stop": stop})["choices"]
    assert [it["message"]["content"] for it in choices] == [
        texts[0],
        texts[1][: texts[1].index(stop)],
        texts[2],
    ]
    assert choices[1]["finish_reason"] == "stop"


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("wants_stream", [False, True])
def test_a_client_that_leaves_frees_the_engine(
    live: LiveServer, wants_stream: bool, n: int
) -> None:
    body = question("Why?", temperature=2, seed=1, max_tokens=200, stream=wants_stream, n=n)
    before = cancelled(live)
    with live.client() as client:
        request = client.build_request("POST", CHAT, json=body)
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(request.content)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", request.url.port or 0)) as connection:
            connection.sendall(head.encode() + request.content)
            # The request is under way once the server has counted it.
            while live.built.serving.service.num_running == 0:
                client.get("/health")
        while cancelled(live) == before or live.built.serving.service.num_running:
            client.get("/health")
        assert live.built.serving.service.num_waiting == 0
        assert ask(client, question("Still there?"))["object"] == "chat.completion"


def asked(**fields: Any) -> Question:
    return read_chat(ChatForm.model_validate(question("Hi", **fields)))


@pytest.mark.fast
@pytest.mark.parametrize(
    "fields",
    [
        *({"cache_salt": salt} for salt in ("", "a b", "a\n", "\u00e9", "\x7f", "x" * 129, 7)),
        *({"timeout_seconds": seconds} for seconds in (0, -1, math.inf, math.nan, "5", True)),
    ],
)
def test_salts_and_times_that_are_none(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(fields))):
        ChatForm.model_validate(question("Hi", **fields))


def test_every_change_of_logits_arrives(client: httpx.Client, prompts: PromptProcessor) -> None:
    body = question("Why?", temperature=0, max_tokens=12, ignore_eos=True)
    plain = ask(client, body)["choices"][0]
    [run, *_] = prompts.runs_of("b")
    for fields in (
        {"presence_penalty": 2.0},
        {"frequency_penalty": 2.0},
        {"repetition_penalty": 5.0},
        {"logit_bias": {str(run[-1]): 100}},
        {"bad_words": [plain["message"]["content"][1]]},
    ):
        changed = ask(client, body | fields)["choices"][0]
        assert changed["message"]["content"] != plain["message"]["content"], fields
        assert changed["finish_reason"] == "length"


def test_an_answer_has_its_least_length(client: httpx.Client, prompts: PromptProcessor) -> None:
    ends = {str(token_id): 100 for token_id in prompts.end_token_ids}
    body = question("Why?", temperature=0, max_tokens=12, logit_bias=ends)
    assert ask(client, body)["usage"]["completion_tokens"] == 1
    longer = ask(client, body | {"min_tokens": 5})
    assert longer["usage"]["completion_tokens"] == 6
    assert longer["choices"][0]["finish_reason"] == "stop"
    endless = ask(client, body | {"ignore_eos": True})
    assert endless["usage"]["completion_tokens"] == 12
    assert endless["choices"][0]["finish_reason"] == "length"
    stopped = ask(client, question("Why?", temperature=0, max_tokens=12, ignore_eos=True))
    text = stopped["choices"][0]["message"]["content"]
    body = question("Why?", temperature=0, max_tokens=12, ignore_eos=True, stop=text[0])
    assert ask(client, body)["choices"][0]["message"]["content"] == ""
    assert ask(client, body | {"min_tokens": 12})["choices"][0]["message"]["content"] == text


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"logit_bias": {"320": 1}}, "logit_bias names the token 320, and the model's tokens are"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1: this must be at most 100"),
        ({"logit_bias": {"01": 1}}, "the names must be token ids, such as 13"),
        ({"bad_words": [""]}, "bad_words.0: this must not be empty"),
        ({"bad_words": ["a"] * 65}, "bad_words: this may have at most 64 items"),
        ({"min_tokens": 9, "max_tokens": 8}, "min_tokens is 9, more than the 8 tokens"),
        ({"min_tokens": -1}, "min_tokens: this must be at least 0"),
        ({"ignore_eos": 1}, "ignore_eos: this must be true or false"),
        ({"priority": 2**31}, "priority: this must be below 2147483648"),
    ],
)
def test_changes_that_cannot_be_made_are_refused(
    client: httpx.Client, field: dict[str, Any], message: str
) -> None:
    check_refused(client, field, message)


@pytest.mark.fast
@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1, "top_k": 0, "min_p": 0, "presence_penalty": 0, "frequency_penalty": 0.0},
        {"top_k": -1, "repetition_penalty": 1.0, "logit_bias": {}, "stop": []},
        {"response_format": {"type": "text"}, "logprobs": False, "stream": False},
        {"top_logprobs": 0},
        {"bad_words": [], "min_tokens": 0, "ignore_eos": False, "priority": 0},
    ],
)
def test_values_that_change_nothing_are_taken(fields: dict[str, Any]) -> None:
    assert replace(asked(**fields), id="") == replace(asked(), id="")


@pytest.mark.fast
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
    ],
)
def test_fields_that_need_another(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        asked(**fields)
    assert caught.value.param == param
