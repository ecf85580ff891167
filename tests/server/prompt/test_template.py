"""Tests of chat templates."""

import json
from pathlib import Path

import pytest

from skipserve.errors import InvalidRequestError
from skipserve.prompt.template import (
    LLAVA_TEMPLATE,
    ChatTemplate,
    ImagePart,
    Message,
    TextPart,
)

pytestmark = pytest.mark.fast

TALK = [
    Message("user", (TextPart("What is this?"), ImagePart())),
    Message("assistant", (TextPart("A cat."),)),
    Message("user", (TextPart("Sure?"),)),
]
# As the processor of llava-hf/llava-1.5-7b-hf renders it.
RENDERED = "USER: <image>\nWhat is this? ASSISTANT: A cat. USER: Sure? ASSISTANT:"


def test_llava_template() -> None:
    assert ChatTemplate(LLAVA_TEMPLATE, {}).render(TALK) == RENDERED


def test_generation_marks_are_taken_as_nothing() -> None:
    source = LLAVA_TEMPLATE.replace(
        "{{ part['text'] + ' ' }}", "{% generation %}{{ part['text'] + ' ' }}{% endgeneration %}"
    )
    assert ChatTemplate(source, {}).render(TALK) == RENDERED


@pytest.mark.parametrize(
    ("name", "wrap"),
    [
        ("chat_template.jinja", lambda source: source),
        ("chat_template.json", lambda source: json.dumps({"chat_template": source})),
        ("processor_config.json", lambda source: json.dumps({"chat_template": source})),
        ("tokenizer_config.json", lambda source: json.dumps({"chat_template": source})),
    ],
)
def test_where_a_template_is_found(tmp_path: Path, name: str, wrap: object) -> None:
    assert callable(wrap)
    (tmp_path / name).write_text(wrap("{{ bos_token }} of " + name))
    template = ChatTemplate.from_folder(tmp_path, {"bos_token": "<s>"})
    assert template.render(TALK) == "<s> of " + name


def test_a_folder_without_a_template(tmp_path: Path) -> None:
    assert ChatTemplate.from_folder(tmp_path, {}).render(TALK) == RENDERED


def test_a_template_may_refuse() -> None:
    template = ChatTemplate("{{ raise_exception('roles must alternate') }}", {})
    with pytest.raises(InvalidRequestError, match="roles must alternate") as caught:
        template.render(TALK)
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{% for i in range(10**9) %}x{% endfor %}",
    ],
)
def test_s28_a_template_stays_in_its_sandbox(source: str) -> None:
    with pytest.raises((InvalidRequestError, OverflowError)):
        ChatTemplate(source, {}).render(TALK)
