"""What prompts and conversations are remembered by."""

from dataclasses import replace

import pytest

from skipserve.asking.auto.traces import conversation_of, marks_of
from skipserve.engine.request import Image
from skipserve.prompt.processor import EncodedPrompt
from skipserve.prompt.template import ImagePart, Message, TextPart
from skipserve_policies.flops import prompt_classes
from skipserve_policies.plan import TokenClass

pytestmark = pytest.mark.fast

ROOT, OTHER_ROOT = b"alice", b"bob"
PICTURE, OTHER_PICTURE = (Image(b"", digest * 32, 5) for digest in (b"p", b"q"))


def prompt(before: int, image_rows: int, after: int, first_id: int = 0) -> EncodedPrompt:
    parts = [(TokenClass.TEXT, before), (TokenClass.VISUAL, image_rows), (TokenClass.TEXT, after)]
    ids = [*range(first_id, first_id + before), *[999] * image_rows, *range(100, 100 + after)]
    return EncodedPrompt(tuple(ids), prompt_classes(parts))


def test_marks_stand_after_pages_of_text_and_after_images() -> None:
    marks = marks_of(prompt(20, 5, 40), [PICTURE], ROOT)
    assert [(it.num_text, it.num_images) for it in marks] == [(16, 0), (20, 1), (36, 1), (52, 1)]
    assert [it.num_rows(5) for it in marks] == [16, 25, 41, 57]


def test_prompts_share_the_marks_of_what_they_have_in_common() -> None:
    marks = marks_of(prompt(20, 5, 40), [PICTURE], ROOT)
    longer = marks_of(prompt(20, 5, 60), [PICTURE], ROOT)
    assert longer[: len(marks)] == marks
    other_text = marks_of(prompt(20, 5, 40, first_id=1), [PICTURE], ROOT)
    other_picture = marks_of(prompt(20, 5, 40), [OTHER_PICTURE], ROOT)
    assert not set(other_text) & set(marks)
    assert set(other_picture) & set(marks) == {marks[0]}
    assert not set(marks_of(prompt(20, 5, 40), [PICTURE], OTHER_ROOT)) & set(marks)


def test_an_image_of_fewer_rows_is_the_same_image() -> None:
    few = marks_of(prompt(20, 2, 40), [replace(PICTURE, num_rows=2)], ROOT)
    assert few == marks_of(prompt(20, 5, 40), [PICTURE], ROOT)


def test_a_prompt_that_ends_with_an_image() -> None:
    ends = EncodedPrompt((1, 999), (TokenClass.TEXT, TokenClass.LAST))
    (mark,) = marks_of(ends, [replace(PICTURE, num_rows=1)], ROOT)
    assert (mark.num_text, mark.num_images) == (1, 1)


def said(role: str, text: str) -> Message:
    return Message(role, (TextPart(text),))


SHOWN = Message("user", (ImagePart(), TextPart("What is this?")))
TURNS = [SHOWN, said("assistant", "A cat."), said("user", "Which?")]


def test_a_later_turn_knows_the_earlier_one() -> None:
    first = conversation_of(TURNS[:1], [PICTURE], ROOT)
    second = conversation_of(TURNS, [PICTURE], ROOT)
    third = [*TURNS, said("assistant", "Tabby."), said("user", "Sure?")]
    assert first.earlier == ()
    assert second.earlier == (first.own,)
    assert conversation_of(third, [PICTURE], ROOT).earlier == (second.own, first.own)


def test_what_the_assistant_is_made_to_have_said_does_not_matter() -> None:
    edited = [SHOWN, said("assistant", "A dog."), said("user", "Which?")]
    first = conversation_of(TURNS[:1], [PICTURE], ROOT)
    assert conversation_of(edited, [PICTURE], ROOT).earlier == (first.own,)


def test_other_pictures_words_and_askers_are_other_conversations() -> None:
    own = conversation_of(TURNS[:1], [PICTURE], ROOT).own
    for others in (
        conversation_of(TURNS, [OTHER_PICTURE], ROOT),
        conversation_of(TURNS, [PICTURE], OTHER_ROOT),
        conversation_of([said("user", "What is this?"), *TURNS[1:]], [PICTURE], ROOT),
    ):
        assert own not in others.earlier


def test_a_raw_prompt_is_no_conversation() -> None:
    assert conversation_of([], [], ROOT).own is None
