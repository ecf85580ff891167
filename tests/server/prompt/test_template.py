"""Tests of chat templates."""

import pytest
from jinja2 import TemplateError

from skipserve.errors import InvalidRequestError
from skipserve.prompt.template import (
    LLAVA_TEMPLATE,
    ChatTemplate,
    Ending,
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


def said(text: str) -> list[Message]:
    return [Message("user", (TextPart("Hi"),)), Message("assistant", (TextPart(text),))]


@pytest.mark.parametrize("text", ["I say", "I say ", "  I", "Hi", "a\nb"])
@pytest.mark.parametrize("body", ["content", "content.strip()"])
def test_a_last_message_is_continued_where_it_ends(text: str, body: str) -> None:
    source = "{% for m in messages %}[{{ m.role }}]{% set content = m.content %}{{ BODY }}</s>"
    source = source.replace("BODY", body) + "{% endfor %}{% if add_generation_prompt %}>{% endif %}"
    template = ChatTemplate(source, {})
    shown = text.strip() if "strip" in body else text
    continued = template.render(said(text), Ending.CONTINUED)
    assert continued == f"[user]Hi</s>[assistant]{shown}"
    assert template.render(said(text), Ending.MESSAGE) == continued + "</s>"
    assert template.render(said(text)) == continued + "</s>>"


@pytest.mark.parametrize("text", ["", " "])
def test_what_says_nothing_is_not_continued(text: str) -> None:
    template = ChatTemplate(LLAVA_TEMPLATE, {})
    with pytest.raises(InvalidRequestError, match="says something"):
        template.render(said(text), Ending.CONTINUED)
    with pytest.raises(InvalidRequestError, match="says something"):
        template.render(said("a")[:1], Ending.CONTINUED)


def test_a_template_that_changes_what_is_said_cannot_continue_it() -> None:
    source = "{% for m in messages %}{{ m.content | upper }}{% endfor %}"
    with pytest.raises(InvalidRequestError, match="does not show the last message"):
        ChatTemplate(source, {}).render(said("abc"), Ending.CONTINUED)


def test_llava_template() -> None:
    assert ChatTemplate(LLAVA_TEMPLATE, {}).render(TALK) == RENDERED


def test_generation_marks_are_taken_as_nothing() -> None:
    source = LLAVA_TEMPLATE.replace(
        "{{ part['text'] + ' ' }}", "{% generation %}{{ part['text'] + ' ' }}{% endgeneration %}"
    )
    assert ChatTemplate(source, {}).render(TALK) == RENDERED


def test_the_published_form_has_no_prefix_before_a_system_turn() -> None:
    system = Message("system", (TextPart("Be brief."),))
    assert ChatTemplate(LLAVA_TEMPLATE, {}).render([system, *TALK]) == "Be brief. " + RENDERED


TEXT_TEMPLATES = {
    "trimmed": "{% for m in messages %}[{{ m.role }}] {{ m['content'] | trim }}{% endfor %}",
    "joined": "{% for m in messages %}{{ '[' + m['role'] + '] ' + m['content'] }}{% endfor %}",
    "method": "{% for m in messages %}[{{ m.role }}] {{ m.content.strip() }}{% endfor %}",
    "upper": "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}",
}


@pytest.mark.parametrize("source", TEXT_TEMPLATES.values(), ids=TEXT_TEMPLATES)
def test_a_template_whose_content_is_one_text(source: str) -> None:
    expected = "[user] <image>\nWhat is this?[assistant] A cat.[user] Sure?"
    assert ChatTemplate(source, {}).render(TALK) == expected


def test_images_come_first_in_one_text() -> None:
    turn = Message("user", (TextPart("a"), ImagePart(), TextPart("b"), ImagePart()))
    template = ChatTemplate("{{ messages[0].content | trim }}", {}, "<picture>")
    assert template.render([turn]) == "<picture>\n<picture>\na\nb"


def test_a_template_that_says_itself_where_the_picture_comes() -> None:
    """As JoyCaption's: it takes the token away and writes it at the head of the user's turn."""
    source = (
        "{%- if messages[0]['role'] == 'system' %}{% set brief = messages[0]['content'] %}"
        "{% set messages = messages[1:] %}{% else %}{% set brief = '' %}{% endif %}"
        "{{- '<system>\n\n' + brief }}"
        "{% for m in messages %}{{ '<' + m['role'] + '>\n\n(<picture>)' "
        "+ m['content'].replace('<picture>', '').lstrip() }}{% endfor %}"
    )
    template = ChatTemplate(source, {}, "<picture>")
    user = Message("user", (ImagePart(), TextPart("Describe it.")))
    assert template.render([user]) == "<system>\n\n<user>\n\n(<picture>)Describe it."
    system = Message("system", (TextPart("Be brief."),))
    expected = "<system>\n\nBe brief.<user>\n\n(<picture>)Describe it."
    assert template.render([system, user]) == expected


def test_each_role_has_a_form_of_its_own() -> None:
    """Some templates take the user's content as parts, and an answer as one text."""
    source = (
        "{% for m in messages %}{% if m.role == 'user' %}"
        "{% for p in m.content %}{{ p.text or '<image>' }}{% endfor %}"
        "{% else %}{{ '|' + m.content + '|' }}{% endif %}{% endfor %}"
    )
    assert ChatTemplate(source, {}).render(TALK) == "What is this?<image>|A cat.|Sure?"


def test_parts_that_leave_images_out_give_way_to_one_text() -> None:
    """As templates of text models do that take both forms."""
    source = (
        "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}"
        "{% for p in m.content if p.type == 'text' %}{{ p.text }}{% endfor %}{% endif %}"
        "{% endfor %}"
    )
    assert ChatTemplate(source, {}).render(TALK[:1]) == "<image>\nWhat is this?"


def test_what_transformers_offers_to_templates() -> None:
    source = (
        "{{ {'a': '<é>'} | tojson }}{{ [1] | tojson(indent=1) }} "
        "{{ strftime_now('%Y') | length }} {{ tools is none }} {{ documents is none }}"
        "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}"
        "{{ m.content[0].text }}{% endfor %}"
    )
    assert ChatTemplate(source, {}).render(TALK) == (
        '{"a": "<é>"}[\n 1\n] 4 True TrueWhat is this?'
    )


@pytest.mark.parametrize(
    "source",
    [
        "{{ 1 / 0 }}",
        "{{ messages[0]['content'] + 1 }}",
        "{{ messages[7].content }}",
        "{{ messages | no_such_function }}",
        "{{ nothing.at.all }}",
        "{{ strftime_now(3) }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    ],
)
def test_whatever_a_template_raises_is_a_clear_error(source: str) -> None:
    try:
        template = ChatTemplate(source, {})
    except TemplateError:
        return  # told when the server starts
    with pytest.raises(InvalidRequestError, match="chat template") as caught:
        template.render(TALK)
    assert caught.value.param == "messages"
    assert "\n" not in caught.value.message


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
    with pytest.raises(InvalidRequestError):
        ChatTemplate(source, {}).render(TALK)
