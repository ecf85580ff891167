"""Tests with the clients that users have: OpenAI's, and our own."""

import asyncio
from enum import StrEnum
from typing import Any, Literal

import anthropic
import httpx
import openai
import pytest
from anthropic.types import Base64ImageSourceParam, ImageBlockParam, MessageParam
from live_server import LiveServer
from openai.types.responses import ResponseInputItemParam
from pictures import question
from played_app import PlayedService, app_with
from pydantic import BaseModel, ConfigDict

from skipserve.settings import Settings
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
        theirs.chat.completions.create(model="tiny", messages=messages, n=17)
    assert bad.value.param == "n"
    assert next(model.id for model in theirs.models.list()) == "tiny"


def test_openai_takes_several_answers_and_says_what_it_likes(theirs: openai.OpenAI) -> None:
    reply = theirs.chat.completions.with_raw_response.create(
        model="tiny",
        messages=question("Hello")["messages"],
        n=3,
        user="Ann",
        presence_penalty=0.5,
        logit_bias={"20": 1},
        reasoning_effort="low",
    )
    assert reply.headers["x-ignored-fields"] == "reasoning_effort, user"
    assert [choice.index for choice in reply.parse().choices] == [0, 1, 2]


def test_openai_comes_back_when_it_is_told_to(settings: Settings) -> None:
    service: Any = PlayedService()
    service.let_run()
    service.why_not_ready = "the model is loading"
    app, statuses = app_with(service, settings), []

    async def note(response: httpx.Response) -> None:
        statuses.append(response.status_code)
        service.why_not_ready = None

    async def ask() -> str | None:
        transport, hooks = httpx.ASGITransport(app), {"response": [note]}
        async with httpx.AsyncClient(transport=transport, event_hooks=hooks) as opened:
            # Newer versions of openai say that they want one of httpx2, and take both.
            http: Any = opened
            client = openai.AsyncOpenAI(
                base_url="http://server/v1", api_key="unused", http_client=http, max_retries=1
            )
            reply = await client.chat.completions.create(
                model="tiny", messages=question("Hello")["messages"]
            )
            return reply.choices[0].finish_reason

    assert asyncio.run(ask()) == "length"
    assert statuses == [503, 200]


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


@pytest.fixture(scope="module")
def anthropics(live: LiveServer) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=live.url, api_key="unused", max_retries=0)


def _block(url: str) -> ImageBlockParam:
    data = url.partition(",")[2]
    source: Base64ImageSourceParam = {"type": "base64", "media_type": "image/png", "data": data}
    return {"type": "image", "source": source}


def test_anthropic_answers(anthropics: anthropic.Anthropic, picture_url: str) -> None:
    reply = anthropics.messages.create(
        model=f"tiny@{SKIPPING}",
        system="Be brief.",
        messages=[
            {"role": "user", "content": [_block(picture_url), {"type": "text", "text": "What?"}]}
        ],
        max_tokens=4,
        stop_sequences=["never"],
        extra_body={"temperature": 0},
    )
    [block] = reply.content
    assert block.type == "text"
    assert reply.stop_reason in {"end_turn", "max_tokens"}
    assert reply.usage.input_tokens > 16
    assert reply._request_id is not None
    assert reply.model_extra is not None
    assert reply.model_extra["metrics"]["skip"]["policy"] == SKIPPING


def test_anthropic_streams(anthropics: anthropic.Anthropic) -> None:
    with anthropics.messages.stream(
        model="tiny", messages=[{"role": "user", "content": "Why?"}], max_tokens=6
    ) as stream:
        text = "".join(stream.text_stream)
        whole = stream.get_final_message()
    assert [block.text for block in whole.content if block.type == "text"] == [text]
    assert whole.stop_reason in {"end_turn", "max_tokens"}
    assert whole.usage.output_tokens >= 1


def test_anthropic_counts_tokens(anthropics: anthropic.Anthropic) -> None:
    messages: list[MessageParam] = [{"role": "user", "content": "Why?"}]
    counted = anthropics.messages.count_tokens(model="tiny", messages=messages, system="Be brief.")
    reply = anthropics.messages.create(
        model="tiny", messages=messages, system="Be brief.", max_tokens=1
    )
    cached = reply.usage.cache_read_input_tokens or 0
    assert counted.input_tokens == reply.usage.input_tokens + cached


def test_anthropic_knows_the_errors(anthropics: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="no model 'claude'") as missing:
        anthropics.messages.create(
            model="claude", messages=[{"role": "user", "content": "Hi"}], max_tokens=1
        )
    assert missing.value.request_id is not None
    with pytest.raises(anthropic.BadRequestError, match="not supported yet"):
        anthropics.messages.create(
            model="tiny", messages=[{"role": "assistant", "content": "Hi"}], max_tokens=1
        )


def test_anthropic_hears_of_an_error_in_a_stream(anthropics: anthropic.Anthropic) -> None:
    stream = anthropics.messages.create(
        model="tiny",
        messages=[{"role": "user", "content": "Hi"}],
        max_tokens=9,
        stream=True,
        extra_body={"timeout_seconds": 1e-6},
    )
    with pytest.raises(anthropic.APIStatusError, match="timeout_seconds"):
        list(stream)


def test_openai_responds(theirs: openai.OpenAI, picture_url: str) -> None:
    reply = theirs.responses.create(
        model=f"tiny@{SKIPPING}",
        instructions="Be brief.",
        input=[
            {
                "role": "user",
                "content": [
                    {"type": "input_image", "image_url": picture_url, "detail": "auto"},
                    {"type": "input_text", "text": "What?"},
                ],
            }
        ],
        max_output_tokens=4,
        temperature=0,
    )
    assert reply.status in {"completed", "incomplete"}
    [item] = reply.output
    assert item.type == "message"
    assert reply.output_text == "".join(
        part.text for part in item.content if part.type == "output_text"
    )
    assert reply.usage is not None
    assert reply.usage.input_tokens > 16
    assert reply.model_extra is not None
    assert reply.model_extra["metrics"]["skip"]["policy"] == SKIPPING


def test_openai_streams_responses(theirs: openai.OpenAI) -> None:
    with theirs.responses.stream(model="tiny", input="Why?", max_output_tokens=6) as stream:
        pieces = [event.delta for event in stream if event.type == "response.output_text.delta"]
    events = list(theirs.responses.create(model="tiny", input="Why?", temperature=0, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].type in {"response.completed", "response.incomplete"}
    assert pieces


def test_openai_goes_on_with_its_own_output(theirs: openai.OpenAI) -> None:
    first = theirs.responses.create(model="tiny", input="Hello", max_output_tokens=3)
    talk: list[ResponseInputItemParam] = [{"role": "user", "content": "Hello"}]
    talk += [item.model_dump(exclude_unset=True) for item in first.output]  # type: ignore[misc]
    talk.append({"role": "user", "content": "And now?"})
    reply = theirs.responses.create(model="tiny", input=talk, max_output_tokens=3)
    assert reply.usage is not None
    assert first.usage is not None
    assert reply.usage.input_tokens > first.usage.input_tokens
    assert reply.output[0].type == "message"


def test_openai_hears_what_responses_cannot_do(theirs: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="nothing is stored"):
        theirs.responses.create(model="tiny", input="Hi", previous_response_id="resp_1")


class Color(StrEnum):
    RED = "red"
    BLUE = "blue"


class Count(BaseModel):
    """Counts things; every answer within it ends soon."""

    model_config = ConfigDict(extra="forbid")

    number: Literal[1, 2, 3]
    color: Color


def test_openai_parses(theirs: openai.OpenAI) -> None:
    reply = theirs.chat.completions.parse(
        model=f"tiny@{SKIPPING}",
        messages=[{"role": "user", "content": "How many?"}],
        response_format=Count,
        n=2,
    )
    assert all(isinstance(choice.message.parsed, Count) for choice in reply.choices)
    assert {choice.finish_reason for choice in reply.choices} == {"stop"}
    answer = theirs.responses.parse(model="tiny", input="How many?", text_format=Count)
    assert isinstance(answer.output_parsed, Count)


def test_anthropic_s_output_follows_a_schema(anthropics: anthropic.Anthropic) -> None:
    reply = anthropics.messages.create(
        model="tiny",
        max_tokens=100,
        messages=[{"role": "user", "content": "How many?"}],
        output_config={"format": {"type": "json_schema", "schema": Count.model_json_schema()}},
    )
    [block] = reply.content
    assert block.type == "text"
    assert Count.model_validate_json(block.text)
