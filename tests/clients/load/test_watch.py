"""When tokens came, as servers tell it: chunk by chunk, several at once, with errors between."""

import json
from typing import Any

import pytest

from skipserve_client import ApiError, ProtocolError
from skipserve_client.load.records import Tokens
from skipserve_client.load.watch import Watch

pytestmark = pytest.mark.fast


def chunk(text: str = "", total: int | None = None, reason: str | None = None) -> str:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": reason}
    usage = None if total is None else {"prompt_tokens": 9, "completion_tokens": total}
    return json.dumps({"choices": [choice], "usage": usage})


def watch(*events: tuple[str, float], tells_tokens: bool = False) -> Watch:
    found = Watch(tells_tokens=tells_tokens)
    for event, time in events:
        found.take(event, time)
    return found


def test_each_chunk_with_text_is_a_token() -> None:
    found = watch((chunk(), 1.0), (chunk("a"), 2.0), (chunk("b"), 2.5), (chunk("c"), 4.0))
    assert (found.first, found.gaps) == (2.0, [0.5, 1.5])
    assert found.tokens() == Tokens(prompt=0, cached=0, completion=3, chunks=3)


def test_a_chunk_of_several_tokens_is_as_many_gaps() -> None:
    found = watch(
        (chunk("", 0), 1.0),
        (chunk("a", 2), 2.0),
        (chunk("bcd", 5), 5.0),
        (chunk("", 5), 6.0),
        (chunk("e", 6), 7.0),
        tells_tokens=True,
    )
    assert (found.first, found.gaps) == (2.0, [1.0, 1.0, 1.0, 2.0])
    assert found.tokens() == Tokens(prompt=9, cached=0, completion=6, chunks=3)


def test_tokens_without_text_count_where_the_server_tells_them() -> None:
    events = ((chunk("a", 1), 2.0), (chunk("", 3, "length"), 4.0))
    assert watch(*events, tells_tokens=True).gaps == [1.0, 1.0]
    assert watch(*events).gaps == []


def test_usage_at_the_end_brings_no_token() -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 7, "prompt_tokens_details": None}
    metrics = {"skip": {"planned_flops": 3, "full_flops": 4}}
    last = json.dumps({"choices": [], "usage": usage, "metrics": metrics})
    for tells_tokens in (True, False):
        found = watch((chunk("a", 1), 1.0), (last, 3.0), tells_tokens=tells_tokens)
        assert (found.first, found.gaps) == (1.0, [])
        assert found.tokens() == Tokens(9, 0, 7, 1, planned_flops=3, full_flops=4)


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "tool_calls"])
def test_what_is_no_answer_is_tokens_too(field: str) -> None:
    event = json.dumps({"choices": [{"delta": {field: "hm"}}]})
    assert watch((event, 3.0)).first == 3.0


def test_an_answer_is_complete_at_its_end() -> None:
    assert not watch((chunk("a"), 1.0)).is_complete
    assert watch((chunk("a"), 1.0), ("[DONE]", 1.0)).is_complete
    found = watch((chunk("a", reason="stop"), 1.0))
    assert (found.is_complete, found.finish_reason) == (True, "stop")


def test_an_error_in_a_stream_is_one_of_the_server() -> None:
    with pytest.raises(ApiError) as error:
        watch((json.dumps({"error": {"message": "no", "code": 503}}), 1.0))
    assert error.value.status == 503


STRANGE: list[Any] = [
    "nonsense",
    [],
    3,
    {"choices": 3},
    {"choices": [3]},
    {"choices": [{"delta": 3}]},
    {"usage": 3, "choices": [{"delta": {"content": "a"}}]},
    {"metrics": [1]},
    {"metrics": {"skip": {"planned_flops": "many"}}},
    {"usage": {"prompt_tokens": "many"}},
    {"usage": {"completion_tokens": float("inf")}},
    {"usage": {"prompt_tokens_details": 3}},
]


@pytest.mark.parametrize("event", ["{", "", *map(json.dumps, STRANGE)])
def test_what_is_of_another_form_is_told(event: str) -> None:
    with pytest.raises(ProtocolError):
        watch((event, 1.0), tells_tokens=True).tokens()
