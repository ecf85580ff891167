"""Log-probabilities of prompts over HTTP and without: what is told where, and what is refused."""

import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
from live_server import LiveServer
from pictures import data_uri, encode, image_part, question, random_picture
from tiny_llava import make_tokenizer

from skipserve import LLaVA
from skipserve_policies.cost import make_request, parse_prompt, saving

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
IMAGE_ID = 4
# Of scopes that have rows of a prompt computed as those of an answer.
POLICIES = ("full", "skip-block-every-3-from-16-all", "skip-ffn-every-3-from-16-all")


def ask(client: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    fresh = {"cache_salt": uuid.uuid4().hex, "max_tokens": 4, "temperature": 0, "ignore_eos": True}
    reply = client.post(path, json=fresh | body)
    assert reply.status_code == 200, reply.text
    return dict(reply.json())


def complete(client: httpx.Client, prompt: object, **fields: object) -> dict[str, Any]:
    return ask(client, COMPLETIONS, {"prompt": prompt, **fields})


def own(entries: list[dict[str, Any] | None], ids: list[int]) -> list[float]:
    """Return the log-probabilities of a prompt's own tokens but the first."""
    return [entry[str(it)]["logprob"] for entry, it in zip(entries, ids, strict=True) if entry]


def test_a_chat_about_a_picture(client: httpx.Client, picture_url: str) -> None:
    """By the place of each token: null for the first and for rows of the picture."""
    fields = {"prompt_logprobs": 2, "return_token_ids": True}
    reply = ask(client, CHAT, question("Why?", picture_url, **fields))
    ids, entries = reply["prompt_token_ids"], reply["prompt_logprobs"]
    assert len(ids) == len(entries) == reply["usage"]["prompt_tokens"]
    assert [place for place, entry in enumerate(entries) if entry is None] == [
        0,
        *(place for place, it in enumerate(ids) if it == IMAGE_ID),
    ]
    tokenizer = make_tokenizer()
    for token_id, entry in zip(ids, entries, strict=True):
        if entry is None:
            continue
        told = list(entry.items())
        assert told[0][0] == str(token_id)
        ranks = [each["rank"] for _, each in told]
        assert sorted(ranks)[:2] == [1, 2]
        assert len(told) == (2 if ranks[0] <= 2 else 3)
        ordered = sorted(told, key=lambda it: it[1]["rank"])
        logprobs = [each["logprob"] for _, each in ordered]
        assert logprobs == sorted(logprobs, reverse=True)
        assert all(each.keys() == {"logprob", "rank", "decoded_token"} for _, each in told)
        name = tokenizer.decode([token_id], skip_special_tokens=False)
        assert told[0][1]["decoded_token"] == name
    assert "prompt_logprobs" not in ask(client, CHAT, question("Why?", picture_url))
    assert "prompt_logprobs" not in reply["choices"][0]


@pytest.mark.parametrize("policy", POLICIES)
def test_an_answer_is_as_probable_in_a_prompt(client: httpx.Client, policy: str) -> None:
    """What was generated with its log-probabilities has the same ones as part of a prompt."""
    text = "The sky is so very blue"
    told = ask(
        client,
        CHAT,
        question(text, skip_policy=policy, return_token_ids=True, logprobs=True, max_tokens=9),
    )
    [choice] = told["choices"]
    ids = told["prompt_token_ids"] + choice["token_ids"]
    reply = complete(client, ids, prompt_logprobs=0, skip_policy=policy)
    entries = reply["choices"][0]["prompt_logprobs"]
    assert all(entry.keys() == {str(it)} for entry, it in zip(entries[1:], ids[1:], strict=True))
    expected = [token["logprob"] for token in choice["logprobs"]["content"]]
    assert own(entries, ids)[-9:] == pytest.approx(expected, abs=1e-3)


def test_an_echo_tells_the_prompt_with_the_answer(client: httpx.Client) -> None:
    """As tools that score choices read it."""
    texts = ["The sky is blue", "<s>Why ü?"]
    reply = complete(client, texts, echo=True, logprobs=1, prompt_logprobs=0, max_tokens=1)
    for text, choice in zip(texts, reply["choices"], strict=True):
        told = choice["logprobs"]
        entries = choice["prompt_logprobs"]
        assert len({len(values) for values in told.values()}) == 1
        assert len(told["tokens"]) == len(entries) + 1
        assert told["token_logprobs"][0] is told["top_logprobs"][0] is None
        assert told["tokens"][0] == "<s>"
        assert choice["text"].startswith(text)
        for place, entry in enumerate(entries[1:], start=1):
            [of_token] = entry.values()
            top = told["top_logprobs"][place]
            assert told["token_logprobs"][place] == of_token["logprob"]
            assert top[told["tokens"][place]] == of_token["logprob"] <= max(top.values())
            assert (of_token["rank"] == 1) == (of_token["logprob"] == max(top.values()))
        ends = [*told["text_offset"][1:], len(choice["text"])]
        for name, start, stop in zip(told["tokens"], told["text_offset"], ends, strict=True):
            written = choice["text"][start:stop]
            assert written == name or "bytes:" in name or (name == "<s>" and not written)
        assert told["text_offset"][-1] == len(text)


def test_an_echo_of_tokens(client: httpx.Client) -> None:
    """Without the token that begins a text, whose place tools count on not to be there."""
    ids = make_tokenizer().encode("The sky is", add_special_tokens=False).ids
    [choice] = complete(client, ids, echo=True, logprobs=0)["choices"]
    assert len(choice["logprobs"]["tokens"]) == len(ids) + 4
    assert "".join(choice["logprobs"]["tokens"][: len(ids)]) == "The sky is"
    assert [len(top) for top in choice["logprobs"]["top_logprobs"][1:]] == [1] * (len(ids) + 3)
    assert "prompt_logprobs" not in choice


def test_what_it_costs_is_reported(client: httpx.Client, live: LiveServer) -> None:
    """And with the shape of the request, that can be counted again."""
    processor = live.built.serving.processor
    for name in ("full", "visual-freeze-from-16", "vtw-half", "divprune-64"):
        policy = processor.policies.resolved[name]
        url = data_uri(encode(random_picture(40, 30)))
        body = question("Why?", url, prompt_logprobs=1, skip_policy=name, n=2)
        skip = ask(client, CHAT, body)["metrics"]["skip"]
        assert skip["digest"] == policy.digest
        first, [second] = skip["saved_for"], skip["further_answers"]
        assert first["cached_tokens"] == 0
        assert "scored_tokens" not in second
        counted = [
            saving(
                processor.reporter.sizes,
                policy.plan_for(scores="scored_tokens" in shape),
                make_request(
                    parse_prompt(shape["prompt"]),
                    shape["generated_tokens"],
                    shape["cached_tokens"],
                    shape.get("scored_tokens", 0),
                ),
                policy.reduction,
                policy.narrowing,
            )
            for shape in (first, second)
        ]
        assert skip["planned_flops"] == sum(it.planned_flops for it in counted)
        assert skip["full_flops"] == sum(it.full_flops for it in counted)
        plain = ask(client, CHAT, question("Why?", url, skip_policy=name))["metrics"]["skip"]
        assert plain["planned_flops"] < counted[0].planned_flops


def test_several_answers_share_the_prompts(client: httpx.Client) -> None:
    reply = complete(client, ["The sky", "A long word " * 4], n=2, prompt_logprobs=1)
    told = [choice["prompt_logprobs"] for choice in reply["choices"]]
    assert told[0] == told[1] != told[2] == told[3]


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        (CHAT, {"prompt_logprobs": 0, "stream": True}, "prompt_logprobs"),
        (CHAT, {"prompt_logprobs": 21}, "prompt_logprobs"),
        (CHAT, {"prompt_logprobs": -1}, "prompt_logprobs"),
        (CHAT, {"prompt_logprobs": True}, "prompt_logprobs"),
        (CHAT, {"prompt_logprobs": 1, "skip_policy": "fastv-2-half"}, "prompt_logprobs"),
        (COMPLETIONS, {"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
        (COMPLETIONS, {"echo": True, "logprobs": 1, "stream": True}, "echo"),
        (
            COMPLETIONS,
            {"prompt": ["x " * 90] * 8, "prompt_logprobs": 20, "n": 16},
            "prompt_logprobs",
        ),
    ],
)
def test_what_is_refused_is_named(
    client: httpx.Client, picture_url: str, path: str, fields: dict[str, Any], param: str
) -> None:
    body = question("Why?", picture_url) if path == CHAT else {"prompt": "Why?"}
    reply = client.post(path, json=body | {"max_tokens": 2} | fields)
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["param"] == param


def test_a_text_alone_under_a_policy_that_ranks(client: httpx.Client) -> None:
    """No row leaves, so nothing is refused, and all is the full model's."""
    ranked, full = (
        complete(client, "The sky is", prompt_logprobs=0, skip_policy=name)["choices"][0]
        for name in ("fastv-2-half", "full")
    )
    assert ranked["prompt_logprobs"][0] is None
    for ours, theirs in zip(
        ranked["prompt_logprobs"][1:], full["prompt_logprobs"][1:], strict=True
    ):
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert ours[name]["logprob"] == pytest.approx(theirs[name]["logprob"], abs=1e-3)


def test_without_a_server(checkpoint: Path, client: httpx.Client) -> None:
    picture = random_picture(40, 30)
    llava = LLaVA(checkpoint, num_threads=1)
    for policy in ("full", "skip-block-every-3-from-0-all"):
        (answer,) = llava.generate(
            [(picture, "Why?")], prompt_logprobs=3, skip_policy=policy, max_tokens=2
        )
        url = data_uri(encode(picture))
        body = question("Why?", url, prompt_logprobs=3, skip_policy=policy, max_tokens=2)
        told = ask(client, CHAT, body)["prompt_logprobs"]
        assert answer.prompt_logprobs is not None
        assert answer.num_prompt_tokens == len(answer.prompt_logprobs) == len(told)
        for ours, theirs in zip(answer.prompt_logprobs, told, strict=True):
            assert (ours is None) == (theirs is None)
            if ours is not None and theirs is not None:
                first, found = next(iter(ours)), next(iter(theirs))
                assert str(first) == found
                assert ours[first].logprob == pytest.approx(theirs[found]["logprob"], abs=1e-3)
        assert answer.skip.saved_for.scored_tokens == sum(it is not None for it in told)
    (plain,) = llava.generate([(picture, "Why?")], max_tokens=2)
    assert plain.prompt_logprobs is None


def test_the_picture_part_says_which_rows_are_its(client: httpx.Client, picture_url: str) -> None:
    """Two pictures side by side: behind each null comes text again, which is scored."""
    content = [image_part(picture_url), image_part(picture_url), {"type": "text", "text": "Why?"}]
    body = {"messages": [{"role": "user", "content": content}], "prompt_logprobs": 0}
    for policy, num_behind in (("full", 0), ("vtw-half", 2)):
        reply = ask(client, CHAT, body | {"return_token_ids": True, "skip_policy": policy})
        ids, entries = reply["prompt_token_ids"], reply["prompt_logprobs"]
        nulls = [place for place, entry in enumerate(entries) if entry is None]
        assert len(nulls) == 1 + ids.count(IMAGE_ID) + num_behind
