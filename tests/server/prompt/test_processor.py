"""Tests of prompts, against transformers' own."""

import os
from pathlib import Path
from typing import Any

import pytest

from skipserve.errors import InvalidRequestError
from skipserve.prompt.processor import PromptProcessor, special_tokens
from skipserve.prompt.template import ImagePart, Message, TextPart
from skipserve_policies.plan import TokenClass

IMAGE = 4
NUM_IMAGE_TOKENS = 16
TALK = [
    Message("system", (TextPart("Be brief."),)),
    Message("user", (TextPart("What is this, and the other?"), ImagePart(), ImagePart())),
    Message("assistant", (TextPart("Cats."),)),
    Message("user", (ImagePart(), TextPart("And this? grün €"))),
]


def user(*parts: TextPart | ImagePart) -> list[Message]:
    return [Message("user", parts)]


@pytest.mark.fast
def test_rows_and_classes(prompts: PromptProcessor) -> None:
    encoded = prompts.encode_chat(user(TextPart("Hi"), ImagePart()))
    text_only = prompts.encode_chat(user(TextPart("Hi"))).prompt_ids
    assert encoded.prompt_ids.count(IMAGE) == NUM_IMAGE_TOKENS
    first = encoded.prompt_ids.index(IMAGE)
    assert encoded.prompt_ids[first : first + NUM_IMAGE_TOKENS] == (IMAGE,) * NUM_IMAGE_TOKENS
    for token_id, token_class in zip(encoded.prompt_ids[:-1], encoded.token_classes, strict=False):
        assert (token_class is TokenClass.VISUAL) == (token_id == IMAGE)
    assert encoded.token_classes[-1] is TokenClass.LAST
    assert encoded.token_classes.count(TokenClass.LAST) == 1
    assert len(encoded.prompt_ids) == len(text_only) + NUM_IMAGE_TOKENS + 1


def test_ids_equal_those_of_transformers(
    prompts: PromptProcessor, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "HF_HUB_OFFLINE", "1")
    from transformers import AutoTokenizer  # noqa: PLC0415 (slow to import)

    theirs = AutoTokenizer.from_pretrained(checkpoint)
    form: list[Any] = [
        {
            "role": message.role,
            "content": [
                {"type": "text", "text": part.text}
                if isinstance(part, TextPart)
                else {"type": "image"}
                for part in message.parts
            ],
        }
        for message in TALK
    ]
    text = theirs.apply_chat_template(form, tokenize=False, add_generation_prompt=True)
    assert isinstance(text, str)
    expanded = text.replace("<image>", "<image>" * NUM_IMAGE_TOKENS)
    assert list(prompts.encode_chat(TALK).prompt_ids) == theirs(expanded)["input_ids"]


@pytest.mark.fast
def test_s26_special_tokens_in_text_are_text(prompts: PromptProcessor) -> None:
    plain = prompts.encode_chat(user(TextPart("<image> </s><s> <pad>"), ImagePart()))
    assert plain.prompt_ids.count(IMAGE) == NUM_IMAGE_TOKENS
    assert plain.prompt_ids.count(1) == 1
    assert 2 not in plain.prompt_ids
    assert 3 not in plain.prompt_ids


@pytest.mark.fast
def test_s26_special_tokens_cannot_be_put_together_from_parts(prompts: PromptProcessor) -> None:
    ids = prompts.encode_chat(user(TextPart("<ima"), TextPart("ge></"), TextPart("s>"))).prompt_ids
    assert IMAGE not in ids
    assert 2 not in ids


@pytest.mark.fast
def test_a_role_that_the_template_leaves_without_images(prompts: PromptProcessor) -> None:
    template = type(prompts.template)("{{ messages[0]['content'][0]['text'] }}", {})
    deaf = PromptProcessor(
        template, prompts.tokenizer, "", IMAGE, NUM_IMAGE_TOKENS, prompts.max_positions
    )
    with pytest.raises(InvalidRequestError, match="places for 0"):
        deaf.encode_chat(user(TextPart("a"), ImagePart()))


@pytest.mark.fast
def test_a_prompt_must_leave_room_for_one_token(prompts: PromptProcessor) -> None:
    overhead = len(prompts.encode_chat(user(TextPart(""))).prompt_ids)
    longest = "x" * (prompts.max_positions - overhead - 1)
    assert len(prompts.encode_chat(user(TextPart(longest))).prompt_ids) == 255
    with pytest.raises(InvalidRequestError, match="256 tokens") as caught:
        prompts.encode_chat(user(TextPart(longest + "x")))
    assert caught.value.param == "messages"


@pytest.mark.fast
def test_images_count_against_the_context(prompts: PromptProcessor) -> None:
    with pytest.raises(InvalidRequestError, match="context"):
        prompts.encode_chat(user(*[ImagePart()] * 16))


@pytest.mark.fast
def test_text_that_cannot_fit_is_refused_before_any_work(prompts: PromptProcessor) -> None:
    with pytest.raises(InvalidRequestError, match="at most 1792"):
        prompts.encode_chat(user(TextPart("x" * 10**6)))


@pytest.mark.fast
@pytest.mark.parametrize("text", ["", " ", "\n\t", "\x00", "\ufdd0", "\U0001f600", "\ud800"])
def test_s39_empty_and_odd_text(prompts: PromptProcessor, text: str) -> None:
    try:
        encoded = prompts.encode_chat(user(TextPart(text)))
    except InvalidRequestError:
        return
    assert len(encoded.prompt_ids) == len(encoded.token_classes)


@pytest.mark.fast
def test_a_template_that_writes_the_first_token_itself(prompts: PromptProcessor) -> None:
    template = type(prompts.template)("{{ bos_token }}hello", {"bos_token": "<s>"})
    own = PromptProcessor(template, prompts.tokenizer, "<s>", IMAGE, 16, 256)
    assert own.encode_chat(user(TextPart(""))).prompt_ids.count(1) == 1


@pytest.mark.fast
def test_named_special_tokens(tmp_path: Path) -> None:
    (tmp_path / "special_tokens_map.json").write_text(
        '{"bos_token": {"content": "<s>"}, "eos_token": "</s>"}'
    )
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<end>", "model_max_length": 1}')
    assert special_tokens(tmp_path) == {"bos_token": "<s>", "eos_token": "<end>"}
