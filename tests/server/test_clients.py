"""Tests with the clients that users have: OpenAI's, and our own."""

import openai
import pytest
from live_server import LiveServer
from pictures import question

from skipserve_client.client import SkipserveClient

SKIPPING = "skip-block-every-3-from-16-all"


@pytest.fixture(scope="module")
def theirs(live: LiveServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{live.url}/v1", api_key="unused", max_retries=0)


def test_openai_answers(theirs: openai.OpenAI, picture_url: str) -> None:
    messages = question("What?", picture_url)["messages"]
    reply = theirs.chat.completions.create(
        model="tiny",
        messages=messages,
        max_completion_tokens=4,
        temperature=0,
        logprobs=True,
        top_logprobs=3,
        extra_body={"skip_policy": SKIPPING},
    )
    [choice] = reply.choices
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    assert len(choice.logprobs.content[0].top_logprobs) == 3
    assert reply.usage is not None
    assert reply.usage.prompt_tokens_details is not None
    assert reply.model_extra is not None
    assert reply.model_extra["metrics"]["skip"]["policy"] == SKIPPING


def test_openai_streams(theirs: openai.OpenAI, picture_url: str) -> None:
    messages = question("What?", picture_url)["messages"]
    stream = theirs.chat.completions.create(
        model=f"tiny@{SKIPPING}",
        messages=messages,
        max_tokens=4,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason in {"stop", "length"}
    assert chunks[-1].usage is not None


def test_openai_continues_a_conversation_with_its_own_message(theirs: openai.OpenAI) -> None:
    messages = question("Hello")["messages"]
    reply = theirs.chat.completions.create(model="tiny", messages=messages, max_tokens=2)
    messages.append(reply.choices[0].message.model_dump())
    messages.append({"role": "user", "content": "And now?"})
    assert theirs.chat.completions.create(model="tiny", messages=messages, max_tokens=2).choices


def test_openai_knows_the_errors(theirs: openai.OpenAI) -> None:
    messages = question("Hello")["messages"]
    with pytest.raises(openai.NotFoundError) as missing:
        theirs.chat.completions.create(
            model="tiny", messages=messages, extra_body={"skip_policy": "nope"}
        )
    assert missing.value.param == "skip_policy"
    with pytest.raises(openai.BadRequestError) as bad:
        theirs.chat.completions.create(model="tiny", messages=messages, n=3)
    assert bad.value.param == "n"
    assert next(model.id for model in theirs.models.list()) == "tiny"


def test_our_own_client(live: LiveServer, picture_url: str) -> None:
    with SkipserveClient(live.url) as client:
        answer = client.ask(picture_url, "What?", skip_policy=SKIPPING, max_tokens=3)
        assert answer.skip.policy == SKIPPING
        with client.stream_ask(picture_url, "What?", max_tokens=3, temperature=0) as stream:
            text = "".join(stream)
            assert stream.answer.text == text
        assert SKIPPING in {policy.name for policy in client.skip_policies()}


def test_openai_completes_texts(theirs: openai.OpenAI) -> None:
    reply = theirs.completions.create(
        model=f"tiny@{SKIPPING}",
        prompt=["Why?", "The sky"],
        max_tokens=4,
        temperature=0,
        logprobs=2,
    )
    assert [choice.index for choice in reply.choices] == [0, 1]
    assert all(choice.logprobs and choice.logprobs.text_offset for choice in reply.choices)
    assert reply.usage is not None
    stream = theirs.completions.create(
        model="tiny",
        prompt="Why?",
        max_tokens=4,
        stream=True,
        stream_options={"include_usage": True},
    )
    *chunks, last = stream
    assert chunks[-1].choices[0].finish_reason in {"stop", "length"}
    assert last.usage is not None
    assert last.model_extra is not None
    assert last.model_extra["metrics"]["skip"]["policy"] == "full"


def test_openai_looks_a_model_up(theirs: openai.OpenAI) -> None:
    assert theirs.models.retrieve(f"tiny@{SKIPPING}").id == f"tiny@{SKIPPING}"
    with pytest.raises(openai.NotFoundError):
        theirs.models.retrieve("other/model")
