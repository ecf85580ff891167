"""Tests of text completions, against a whole server, and of their form alone."""

import json
import uuid
from typing import Any

import httpx
import pytest
from live_server import LiveServer
from pydantic import ValidationError

from skipserve.api.forms.completions import CompletionForm, read_completion
from skipserve.asking.question import Question
from skipserve.errors import InvalidRequestError
from skipserve.prompt.processor import PromptProcessor

COMPLETIONS = "/v1/completions"
SKIPPING = "skip-block-every-3-from-16-all"


def alone(body: dict[str, Any]) -> dict[str, Any]:
    """Return a body that reuses nothing, so that equal requests are computed alike."""
    return {"cache_salt": uuid.uuid4().hex, "max_tokens": 6, "temperature": 0} | body


def ask(client: httpx.Client, prompt: object, **fields: object) -> dict[str, Any]:
    reply = client.post(COMPLETIONS, json=alone({"prompt": prompt} | fields))
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def stream(client: httpx.Client, prompt: object, **fields: object) -> list[dict[str, Any]]:
    """Return the events of a stream; checks how it ends."""
    body = alone({"prompt": prompt, "stream": True} | fields)
    events = client.post(COMPLETIONS, json=body).text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    return [json.loads(event.removeprefix("data: ")) for event in events[:-2]]


def texts(replies: list[dict[str, Any]]) -> list[str]:
    """Return the texts of all choices, put together from the events of a stream."""
    whole: dict[int, str] = {}
    for reply in replies:
        for choice in reply["choices"]:
            whole[choice["index"]] = whole.get(choice["index"], "") + choice["text"]
    return [whole[index] for index in sorted(whole)]


def test_a_reply_in_the_old_form(client: httpx.Client) -> None:
    reply = client.post(COMPLETIONS, json=alone({"prompt": "The sky is", "skip_policy": SKIPPING}))
    assert reply.headers["X-Skip-Policy"] == SKIPPING
    told = reply.json()
    assert told["object"] == "text_completion"
    assert told["id"].startswith("cmpl-")
    assert told["model"] == "tiny"
    [choice] = told["choices"]
    assert choice.keys() == {"index", "text", "finish_reason"}
    assert choice["finish_reason"] in {"stop", "length"}
    assert told["usage"]["prompt_tokens_details"] == {"cached_tokens": 0, "multimodal_tokens": 0}
    assert told["metrics"]["skip"]["policy"] == SKIPPING


def test_no_template_is_put_around_a_text(client: httpx.Client, prompts: PromptProcessor) -> None:
    ids = prompts.tokenizer.encode("The sky is", adds_special=True)
    assert ids[0] == 1
    by_text, by_ids = ask(client, "The sky is"), ask(client, ids)
    assert by_text["usage"]["prompt_tokens"] == len(ids)
    assert texts([by_text]) == texts([by_ids])
    # Written out, the first token is not put there again; as any text, it would be three more.
    assert ask(client, "<s>The sky is")["usage"] == by_text["usage"]


def test_log_probabilities_in_the_old_form(client: httpx.Client) -> None:
    [choice] = ask(client, "The sky is", logprobs=3, max_tokens=5)["choices"]
    told = choice["logprobs"]
    assert told.keys() == {"tokens", "token_logprobs", "top_logprobs", "text_offset"}
    assert len({len(values) for values in told.values()}) == 1
    assert told["text_offset"][0] == 0
    assert told["text_offset"] == sorted(told["text_offset"])
    for token, logprob, top in zip(
        told["tokens"], told["token_logprobs"], told["top_logprobs"], strict=True
    ):
        assert top[token] == logprob == max(top.values())
        assert len(top) == 3
    streamed = stream(client, "The sky is", logprobs=3, max_tokens=5)
    for name, values in told.items():
        pieces = [
            value
            for event in streamed
            for choice in event["choices"]
            for value in choice["logprobs"][name]
        ]
        assert pieces == values


def test_several_prompts_have_an_answer_each(client: httpx.Client) -> None:
    prompts = ["The sky is", "A", "Why?"]
    alone_ = [texts([ask(client, prompt)])[0] for prompt in prompts]
    reply = ask(client, prompts)
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2]
    assert texts([reply]) == alone_
    counted = [choice["metrics"]["skip"]["saved_for"]["prompt"] for choice in reply["choices"]]
    assert sum(int(prompt) for prompt in counted) == reply["usage"]["prompt_tokens"]
    assert "metrics" not in reply
    events = stream(client, prompts, stream_options={"include_usage": True})
    assert texts(events) == alone_
    assert events[-1]["usage"] == reply["usage"]
    assert events[-1]["choices"] == []
    assert not any("usage" in event for event in events[:-1])
    ends = [
        choice["index"]
        for event in events
        for choice in event["choices"]
        if choice.get("finish_reason")
    ]
    assert sorted(ends) == [0, 1, 2]


def test_lists_of_tokens(client: httpx.Client) -> None:
    reply = ask(client, [[1, 40, 41], [1, 50]])
    assert reply["usage"]["prompt_tokens"] == 5
    assert texts([reply]) == [texts([ask(client, ids)])[0] for ids in ([1, 40, 41], [1, 50])]


@pytest.mark.parametrize("wants_stream", [False, True])
def test_an_echo_begins_with_the_prompt(client: httpx.Client, wants_stream: bool) -> None:
    prompts = ["The sky is", "Why?"]
    plain = texts([ask(client, prompts)])
    wanted = [prompt + text for prompt, text in zip(prompts, plain, strict=True)]
    if wants_stream:
        assert texts(stream(client, prompts, echo=True)) == wanted
    else:
        assert texts([ask(client, prompts, echo=True)]) == wanted


def test_an_echo_of_tokens_is_their_text(client: httpx.Client, prompts: PromptProcessor) -> None:
    ids = prompts.tokenizer.encode("The sky", adds_special=False)
    assert texts([ask(client, ids, echo=True)])[0].startswith("The sky")


def test_sixteen_tokens_unless_told(client: httpx.Client) -> None:
    body = {"prompt": "Why?", "temperature": 0, "stop_token_ids": []}
    usage = client.post(COMPLETIONS, json=body).json()["usage"]
    assert usage["completion_tokens"] <= 16
    long = client.post(COMPLETIONS, json=body | {"prompt": "x " * 240 + "x"})
    assert long.status_code == 400 or long.json()["usage"]["completion_tokens"] <= 16


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("<image>What?", "the token of an image"),
        ([1, 4], "the token of an image"),
        ([1, 320], "there is no token 320: the model's are 0 to 319"),
        ([[1], [320]], "there is no token 320"),
        ([1] * 256, "the model's context is 256"),
        ("x" * 5000, "the text has 5000 characters"),
        ([], "prompt: the list is empty"),
        ([[]], "prompt.0: the list is empty"),
        (5, "a prompt is a text, a list of texts, or a list of token ids"),
        ({"text": "Hi"}, "a prompt is a text, a list of texts, or a list of token ids"),
        ([1, "a"], "prompt.1: this must be a whole number"),
        (["a", 1], "prompt.1: this must be a text"),
        ([True], "prompt.0: this must be a whole number"),
        (["a"] * 129, "prompt: this may have at most 128 items"),
    ],
)
def test_a_prompt_that_is_none(client: httpx.Client, prompt: object, message: str) -> None:
    reply = client.post(COMPLETIONS, json={"prompt": prompt})
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert message in error["message"]
    assert error["param"].startswith("prompt")


def test_an_empty_text_is_the_first_token_alone(client: httpx.Client) -> None:
    assert ask(client, "")["usage"]["prompt_tokens"] == 1


def test_a_field_that_is_misspelt_is_told_in_the_words_of_this_form(client: httpx.Client) -> None:
    reply = client.post(COMPLETIONS, json={"promt": "Hi"})
    assert reply.json()["error"]["message"] == "promt: this field is not known; is it prompt?"


def test_each_prompt_takes_a_place(live: LiveServer, client: httpx.Client) -> None:
    reply = client.post(COMPLETIONS, json={"prompt": ["Hi"] * 30})
    assert reply.status_code == 503
    assert reply.headers["Retry-After"]
    assert live.built.serving.admission._num_inside == 0
    assert ask(client, ["Hi"] * 10)


def test_one_prompt_that_fails_ends_all(live: LiveServer, client: httpx.Client) -> None:
    reply = client.post(COMPLETIONS, json={"prompt": ["Hi", "Hi"], "timeout_seconds": 1e-6})
    assert (reply.status_code, reply.json()["error"]["type"]) == (408, "timeout_error")
    while live.built.serving.service.num_running:
        client.get("/health")


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"best_of": 2}, "best_of: answers are sampled, not searched for"),
        ({"suffix": "end"}, "suffix: the text goes on, and is not filled in"),
        ({"top_logprobs": 2}, "top_logprobs: send logprobs with their number"),
        ({"messages": [{}]}, "messages: the prompt goes through no template"),
    ],
)
def test_fields_that_would_change_the_text_are_named(
    client: httpx.Client, field: dict[str, Any], message: str
) -> None:
    reply = client.post(COMPLETIONS, json={"prompt": "Hi"} | field)
    assert reply.status_code == 400
    assert reply.json()["error"]["message"].startswith(message)


def test_fields_that_change_nothing_are_named(client: httpx.Client) -> None:
    given = {"prompt": "Hi", "best_of": 1, "suffix": "", "user": "Ann", "max_tokens": 1}
    reply = client.post(COMPLETIONS, json=given)
    assert reply.headers["X-Ignored-Fields"] == "best_of, suffix, user"
    reply = client.post("/tokenize", json={"prompt": "Hi", "chat_template": None})
    assert reply.headers["X-Ignored-Fields"] == "chat_template"


def asked(**fields: Any) -> list[Question]:
    return read_completion(CompletionForm.model_validate({"prompt": "Hi"} | fields))


@pytest.mark.fast
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"echo": True, "logprobs": 0, "stream": True}, "echo"),
        ({"prompt_logprobs": 0, "stream": True}, "prompt_logprobs"),
        (
            {"stream": True, "stream_options": {"continuous_usage_stats": True}},
            "stream_options.continuous_usage_stats",
        ),
        ({"stream_options": {}}, "stream_options"),
    ],
)
def test_what_is_not_supported_is_named(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        asked(**fields)
    assert caught.value.param == param


@pytest.mark.fast
def test_values_that_change_nothing_are_taken() -> None:
    [question] = asked(echo=False, n=1, logprobs=None, add_special_tokens=True)
    [bare] = asked()
    assert (question.generation, question.prompt) == (bare.generation, bare.prompt)


@pytest.mark.fast
def test_chats_fields_are_not_of_this_form() -> None:
    for field, value in (("messages", []), ("top_logprobs", 2), ("max_completion_tokens", 3)):
        with pytest.raises(ValidationError):
            CompletionForm.model_validate({"prompt": "Hi", field: value})


@pytest.mark.fast
def test_each_prompt_is_a_question_of_its_own() -> None:
    first, second = asked(prompt=["a", "b"], stop="x", logprobs=2, skip_policy="full")
    assert (first.prompt, second.prompt) == ("a", "b")
    assert second.id == f"{first.id}.1"
    assert second.generation == first.generation
    assert second.generation.stops == ("x",)
    assert second.policy == "full"
