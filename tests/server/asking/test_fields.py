"""Tests of the table of a request's fields, and of what is sifted out by it."""

import time
from collections.abc import Sequence
from typing import Any

import pytest
from patience import slowness
from pydantic import BaseModel

from skipserve.api.wire import ChatForm, StreamOptions, VllmArguments
from skipserve.asking import fields
from skipserve.asking.fields import CHAT, FieldTable, Handling, shown_names, sift
from skipserve.asking.messages import (
    AudioContent,
    AudioUrl,
    ChatMessage,
    ImageContent,
    ImageUrl,
    InputAudio,
    RecordingContent,
    TextContent,
    VideoContent,
    VideoUrl,
)

pytestmark = pytest.mark.fast

USER = {"role": "user", "content": "Hi"}
ROWS = [(table, row) for table in CHAT.walk() for row in table.rows]


@pytest.mark.parametrize(
    ("table", "forms"),
    [
        (CHAT, (ChatForm,)),
        (fields.STREAM_OPTIONS, (StreamOptions,)),
        (fields.XARGS, (VllmArguments,)),
        (fields.MESSAGE, (ChatMessage,)),
        (
            fields.PART,
            (TextContent, ImageContent, VideoContent, AudioContent, RecordingContent),
        ),
        (fields.VIDEO_URL, (VideoUrl,)),
        (fields.AUDIO_URL, (AudioUrl,)),
        (fields.INPUT_AUDIO, (InputAudio,)),
        (fields.IMAGE_URL, (ImageUrl,)),
    ],
)
def test_the_forms_take_what_the_table_calls_honoured(
    table: FieldTable, forms: Sequence[type[BaseModel]]
) -> None:
    taken = {field.alias or name for form in forms for name, field in form.model_fields.items()}
    assert table.honoured == taken


def test_each_field_stands_there_once() -> None:
    for table in CHAT.walk():
        assert len(table.by_name) == len(table.rows)
        assert all(row.says for row in table.rows)


def with_field(table: FieldTable, name: str, value: object) -> dict[str, Any]:
    """Return a request with a field in the form of a table."""
    field: dict[str, Any] = {name: value}
    url = {"url": "data:"}
    part = {"type": "image_url", "image_url": url}
    placed: dict[str, dict[str, Any]] = {
        "": field,
        "messages.": {"messages": [USER, USER | field]},
        "messages.content.": {"messages": [USER, {"role": "user", "content": [part | field]}]},
        "messages.content.image_url.": {
            "messages": [{"role": "user", "content": [part | {"image_url": url | field}]}]
        },
        "messages.tool_calls.": {"messages": [USER | {"tool_calls": [field]}]},
        "messages.tool_calls.function.": {
            "messages": [USER | {"tool_calls": [{"function": field}]}]
        },
        "response_format.json_schema.": {"response_format": {"json_schema": field}},
        "tools.": {"tools": [field]},
        "tools.function.": {"tools": [{"function": field}]},
    }
    return {"messages": [USER]} | placed.get(table.place, {table.place.rstrip("."): field})


@pytest.mark.parametrize("value", [None, False, "", [], {}, 0, True, "x", [1], {"a": 1}])
def test_what_changes_no_answer_is_left_out(value: object) -> None:
    for table, row in ROWS:
        body = with_field(table, row.name, value)
        sifted, names = sift(body, CHAT)
        is_ignored = row.is_ignored(value)
        assert names == ((table.place + row.name,) if is_ignored else ())
        assert (sifted == body) is not is_ignored
        if row.handling is Handling.HONOURED:
            assert not is_ignored
        if row.handling is Handling.WITHOUT_EFFECT or value in (None, [], {}, ""):
            assert is_ignored is (row.handling is not Handling.HONOURED)


@pytest.mark.parametrize(
    ("name", "value", "is_ignored"),
    [
        ("function_call", "none", True),
        ("function_call", "required", False),
        ("functions", [], True),
        ("functions", [{}], False),
        ("modalities", ["text"], True),
        ("modalities", ["text", "audio"], False),
        ("skip_special_tokens", True, True),
        ("skip_special_tokens", 1, False),
        ("best_of", 1, True),
        ("best_of", True, False),
        ("audio", None, True),
        ("audio", {"voice": "a"}, False),
        ("user", "Ann", True),
        ("reasoning_effort", "high", True),
    ],
)
def test_values_that_ask_for_nothing(name: str, value: object, is_ignored: bool) -> None:
    assert bool(sift({name: value}, CHAT)[1]) is is_ignored


def test_what_was_sent_is_not_touched() -> None:
    body = {"user": "a", "messages": [USER | {"name": "b"}], "n": 1}
    sifted, names = sift(body, CHAT)
    assert body == {"user": "a", "messages": [USER | {"name": "b"}], "n": 1}
    assert sifted == {"messages": [USER], "n": 1}
    assert names == ("messages.name", "user")


@pytest.mark.parametrize(
    "body",
    [
        None,
        "Hi",
        [],
        [{"user": 1}],
        {"messages": None, "stream_options": 3, "vllm_xargs": [[{"a": 1}]]},
        {"messages": ["Hi", [USER], None, {"content": None}, {"content": [[{"uuid": 1}], "x"]}]},
        {"messages": {"role": "user"}},
    ],
)
def test_what_is_no_form_is_left_to_the_forms(body: Any) -> None:
    assert sift(body, CHAT, ignores_unknown=True)[0] == (
        [{}] if isinstance(body, list) and body else body
    )


@pytest.mark.parametrize("name", ["skip_polcy", "Skip_Policy", "skipPolicy", "max_token", "tool"])
def test_a_near_miss_is_never_ignored(name: str) -> None:
    body = {"messages": [USER], name: "x"}
    assert sift(body, CHAT, ignores_unknown=True) == (body, ())


def test_unknown_fields_are_ignored_where_that_is_asked_for() -> None:
    body = {"messages": [USER | {"mood": 1}], "zebra": None, "\ud800": 1}
    assert sift(body, CHAT) == (body, ())
    sifted, names = sift(body, CHAT, ignores_unknown=True)
    assert sifted == {"messages": [USER]}
    assert names == ("messages.mood", "zebra", "\ud800")
    assert sift({"audio": {}, "prediction": "x"}, CHAT, ignores_unknown=True)[1] == ("audio",)


def test_many_unknown_fields_cost_little() -> None:
    """As many as a body may hold: all but the first are left to the form, which counts them."""
    body = {"messages": [{f"field{i}-{j}": 1 for j in range(60)} for i in range(256)]}
    body |= {f"x{index}": [] for index in range(16_000)}
    begun = time.process_time()
    _, names = sift(body, CHAT, ignores_unknown=True)
    assert time.process_time() - begun < slowness()
    assert len(names) == 64
    assert len(shown_names(names)) < 4000


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (("messages.name", "user"), "messages.name, user"),
        (("a\r\nX-Evil: 1",), "a%0D%0AX-Evil%3A%201"),
        (("\ud800", "\u00e9,"), "%3F, %C3%A9%2C"),
        (("a" * 10_000,), "a" * 100),
        (tuple(map(str, range(40))), ", ".join(map(str, range(32))) + ", ..."),
    ],
)
def test_names_are_harmless_in_a_header(names: tuple[str, ...], shown: str) -> None:
    assert shown_names(names) == shown


def test_a_field_is_found_by_its_place() -> None:
    row = CHAT.find(("messages", 3, "content", 0, "image_url", "detail"))
    assert row is not None
    assert row.name == "detail"
    assert CHAT.find(("skip_policy", "rules", 0, "audio")) is None
    assert CHAT.find(()) is None
