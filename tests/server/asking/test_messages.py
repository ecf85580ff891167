"""Tests of messages in OpenAI's form."""

from typing import Any

import pytest
from pictures import image_part
from pydantic import TypeAdapter, ValidationError

from skipserve.asking.messages import ChatMessage, Messages, image_uris, template_messages
from skipserve.asking.question import ImageUri
from skipserve.prompt.template import ImagePart, Message, TextPart
from skipserve_policies.sizes import Modality

pytestmark = pytest.mark.fast

SAID: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {
        "role": "user",
        "content": [image_part("one"), {"type": "text", "text": "and"}, image_part("two")],
    },
    {"role": "assistant", "content": "Hi.", "refusal": None},
    {"role": "user", "content": [image_part("three")]},
]


def read(said: list[dict[str, Any]]) -> tuple[ChatMessage, ...]:
    return TypeAdapter[tuple[ChatMessage, ...]](Messages).validate_python(said)


def test_what_the_template_is_given() -> None:
    assert template_messages(read(SAID)) == (
        Message("system", (TextPart("Be brief."),)),
        Message("user", (ImagePart(), TextPart("and"), ImagePart())),
        Message("assistant", (TextPart("Hi."),)),
        Message("user", (ImagePart(),)),
    )


def test_videos_and_sounds_know_what_they_are() -> None:
    recording = {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}}
    parts = [
        {"type": "video_url", "video_url": {"url": "one"}},
        {"type": "audio_url", "audio_url": {"url": "two"}},
        recording,
    ]
    said = read([{"role": "user", "content": parts}])
    place = "messages[0].content"
    assert image_uris(said) == (
        ImageUri("one", f"{place}[0].video_url", Modality.VIDEO),
        ImageUri("two", f"{place}[1].audio_url", Modality.AUDIO),
        ImageUri("data:audio/wav;base64,UklG", f"{place}[2].input_audio", Modality.AUDIO),
    )
    assert template_messages(said) == (Message("user", (ImagePart(),) * 3),)
    with pytest.raises(ValidationError, match="the content of a tool's message is text"):
        read([{"role": "tool", "tool_call_id": "a", "content": [recording]}])


def test_images_know_the_field_that_held_them() -> None:
    assert image_uris(read(SAID)) == (
        ImageUri("one", "messages[1].content[0].image_url"),
        ImageUri("two", "messages[1].content[2].image_url"),
        ImageUri("three", "messages[3].content[0].image_url"),
    )


@pytest.mark.parametrize(
    "said",
    [
        [],
        [{"role": "boss", "content": "Hi"}],
        [{"role": "user", "content": []}],
        [{"role": "user", "content": "Hi", "nmae": "me"}],
        [{"role": "user", "content": [{"type": "video"}]}],
    ],
)
def test_what_is_no_message(said: list[dict[str, Any]]) -> None:
    with pytest.raises(ValidationError):
        read(said)
