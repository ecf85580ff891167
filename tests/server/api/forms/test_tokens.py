"""Tests of the routes from texts to tokens and back."""

from typing import Any

import httpx
import pytest
from pictures import question

from skipserve.prompt.processor import PromptProcessor

MESSAGES = question("What?")["messages"]


def tokenize(client: httpx.Client, **fields: object) -> dict[str, Any]:
    reply = client.post("/tokenize", json=fields)
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def test_a_text(client: httpx.Client, prompts: PromptProcessor) -> None:
    ids = prompts.tokenizer.encode("The sky", adds_special=True)
    told = tokenize(client, prompt="The sky")
    assert told == {"count": len(ids), "max_model_len": 256, "tokens": ids, "token_strs": None}
    assert tokenize(client, prompt="The sky", add_special_tokens=False)["tokens"] == ids[1:]
    named = tokenize(client, prompt="the the", return_token_strs=True, model="tiny@full")
    assert named["token_strs"] == ["<s>", *"the"[:1], "he", "\u0120the"]


def test_messages_are_counted_as_a_chat_counts_them(client: httpx.Client, picture_url: str) -> None:
    messages = question("What?", picture_url)["messages"]
    told = tokenize(client, messages=messages)
    chat = client.post("/v1/chat/completions", json=question("What?", picture_url)).json()
    assert told["count"] == len(told["tokens"]) == chat["usage"]["prompt_tokens"]
    assert told["tokens"].count(4) == 16


def test_messages_without_what_begins_the_answer(client: httpx.Client) -> None:
    whole = tokenize(client, messages=MESSAGES, add_special_tokens=False)["tokens"]
    ended = tokenize(client, messages=MESSAGES, add_generation_prompt=False)["tokens"]
    assert whole[: len(ended)] == ended
    reply = client.post("/detokenize", json={"tokens": whole[len(ended) :]})
    assert reply.json() == {"prompt": "ASSISTANT:"}


@pytest.mark.parametrize("text", ["The sky is gr\u00fcn \u20ac", "", " two  spaces ", "</s>"])
def test_back_again(client: httpx.Client, text: str) -> None:
    tokens = tokenize(client, prompt=text)["tokens"]
    reply = client.post("/detokenize", json={"tokens": tokens, "model": "tiny"})
    assert reply.json() == {"prompt": f"<s>{text}"}


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/tokenize", {}, 400, "prompt"),
        ("/tokenize", {"prompt": "a", "messages": MESSAGES}, 400, "prompt"),
        (
            "/tokenize",
            {"messages": MESSAGES, "add_special_tokens": True},
            400,
            "add_special_tokens",
        ),
        ("/tokenize", {"messages": []}, 400, "messages"),
        ("/tokenize", {"prompt": "x" * 5000}, 400, "prompt"),
        ("/tokenize", {"prompt": "<image>"}, 400, "prompt"),
        ("/tokenize", {"prompt": "a", "model": "other"}, 404, "model"),
        ("/tokenize", {"prompt": "a", "return_token_str": True}, 400, "return_token_str"),
        ("/detokenize", {"tokens": [1, 320]}, 400, "tokens"),
        ("/detokenize", {"tokens": [-1]}, 400, "tokens[0]"),
        ("/detokenize", {"tokens": "a"}, 400, "tokens"),
        ("/detokenize", {"tokens": [1], "model": "tiny@nope"}, 404, "skip_policy"),
    ],
)
def test_what_is_refused(
    client: httpx.Client, path: str, body: dict[str, Any], status: int, param: str
) -> None:
    reply = client.post(path, json=body)
    assert (reply.status_code, reply.json()["error"]["param"]) == (status, param)
