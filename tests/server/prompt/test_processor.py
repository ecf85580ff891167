"""Tests of prompts, against transformers' own."""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from skipserve.errors import InvalidRequestError
from skipserve.model.config import ModelConfig, ModelFilesError
from skipserve.prompt.processor import EncodedPrompt, PromptProcessor
from skipserve.prompt.template import ChatTemplate, Ending, ImagePart, Message, TextPart
from skipserve_policies.plan import TokenClass

IMAGE = 4
NUM_IMAGE_TOKENS = 16
TALK = [
    Message("system", (TextPart("Be brief."),)),
    Message("user", (TextPart("What is this, and the other?"), ImagePart(), ImagePart())),
    Message("assistant", (TextPart("Cats."),)),
    Message("user", (ImagePart(), TextPart("And this? grün €"))),
]


def encode(prompts: PromptProcessor, messages: list[Message]) -> EncodedPrompt:
    parts = [part for message in messages for part in message.parts]
    return prompts.encode_chat(messages, [NUM_IMAGE_TOKENS] * parts.count(ImagePart()))


def user(*parts: TextPart | ImagePart) -> list[Message]:
    return [Message("user", parts)]


@pytest.mark.fast
def test_rows_and_classes(prompts: PromptProcessor) -> None:
    encoded = encode(prompts, user(TextPart("Hi"), ImagePart()))
    text_only = encode(prompts, user(TextPart("Hi"))).prompt_ids
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
    assert list(encode(prompts, TALK).prompt_ids) == theirs(expanded)["input_ids"]


@pytest.mark.fast
def test_s26_special_tokens_in_text_are_text(prompts: PromptProcessor) -> None:
    plain = encode(prompts, user(TextPart("<image> </s><s> <pad>"), ImagePart()))
    assert plain.prompt_ids.count(IMAGE) == NUM_IMAGE_TOKENS
    assert plain.prompt_ids.count(1) == 1
    assert 2 not in plain.prompt_ids
    assert 3 not in plain.prompt_ids


@pytest.mark.fast
def test_s26_special_tokens_cannot_be_put_together_from_parts(prompts: PromptProcessor) -> None:
    ids = encode(prompts, user(TextPart("<ima"), TextPart("ge></"), TextPart("s>"))).prompt_ids
    assert IMAGE not in ids
    assert 2 not in ids


@pytest.mark.fast
def test_a_role_that_the_template_leaves_without_images(prompts: PromptProcessor) -> None:
    deaf = replace(prompts, template=ChatTemplate("{{ messages[0]['content'][0]['text'] }}", {}))
    with pytest.raises(InvalidRequestError, match="places for 0"):
        encode(deaf, user(TextPart("a"), ImagePart()))


@pytest.mark.fast
def test_a_prompt_must_leave_room_for_one_token(prompts: PromptProcessor) -> None:
    overhead = len(encode(prompts, user(TextPart(""))).prompt_ids)
    longest = "x" * (prompts.max_positions - overhead - 1)
    assert len(encode(prompts, user(TextPart(longest))).prompt_ids) == 255
    with pytest.raises(InvalidRequestError, match="256 tokens") as caught:
        encode(prompts, user(TextPart(longest + "x")))
    assert caught.value.param == "messages"


@pytest.mark.fast
def test_images_count_against_the_context(prompts: PromptProcessor) -> None:
    with pytest.raises(InvalidRequestError, match="context"):
        encode(prompts, user(*[ImagePart()] * 16))


@pytest.mark.fast
def test_text_that_cannot_fit_is_refused_before_any_work(prompts: PromptProcessor) -> None:
    with pytest.raises(InvalidRequestError, match="at most 1792"):
        encode(prompts, user(TextPart("x" * 10**6)))


@pytest.mark.fast
@pytest.mark.parametrize("text", ["", " ", "\n\t", "\x00", "\ufdd0", "\U0001f600", "\ud800"])
def test_s39_empty_and_odd_text(prompts: PromptProcessor, text: str) -> None:
    try:
        encoded = encode(prompts, user(TextPart(text)))
    except InvalidRequestError:
        return
    assert len(encoded.prompt_ids) == len(encoded.token_classes)


@pytest.mark.fast
def test_a_template_that_writes_the_first_token_itself(prompts: PromptProcessor) -> None:
    own = replace(prompts, template=ChatTemplate("{{ bos_token }}hello", {"bos_token": "<s>"}))
    assert encode(own, user(TextPart(""))).prompt_ids.count(1) == 1


FORMS = {
    "trimmed": "{% for m in messages %}{{ m.role }}: {{ m['content'] | trim }} {% endfor %}",
    "joined": "{{ bos_token }}{% for m in messages %}{{ m.role + ':' + m.content }}{% endfor %}",
}


def with_files(checkpoint: Path, folder: Path, **files: Any) -> Path:
    """Return a copy of a checkpoint, without weights, with some files changed or taken away."""
    folder.mkdir()
    for path in checkpoint.iterdir():
        if path.suffix != ".safetensors":
            (folder / path.name).write_bytes(path.read_bytes())
    for name, value in files.items():
        path = folder / name.replace("__", ".")
        if value is None:
            path.unlink()
        elif path.suffix == ".json":
            fields = json.loads(path.read_text()) if path.is_file() else {}
            path.write_text(json.dumps(fields | value))
        else:
            path.write_text(value)
    return folder


def load(folder: Path) -> PromptProcessor:
    return PromptProcessor.from_folder(folder, ModelConfig.from_folder(folder))


@pytest.mark.fast
@pytest.mark.parametrize("source", FORMS.values(), ids=FORMS)
def test_templates_whose_content_is_one_text(checkpoint: Path, tmp_path: Path, source: str) -> None:
    prompts = load(with_files(checkpoint, tmp_path / "model", chat_template__jinja=source))
    ids = encode(prompts, user(TextPart("What is <s> this?"), ImagePart())).prompt_ids
    assert ids.count(IMAGE) == NUM_IMAGE_TOKENS
    assert ids.count(1) == 1
    text = b"".join(map(prompts.tokenizer.token_bytes, ids)).decode()
    assert text.strip().removeprefix("user:").strip() == "What is <s> this?"


@pytest.mark.fast
@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ messages[0].content.text.first }}", "has no attribute 'text'"),
        ("{{ messages[0].content.image }}", "writes it 0 times"),
        ("{{ raise_exception('no') }}", "refuses these messages: no"),
        ("{{ messages[0].content / 2 }}", "fails on these messages: TypeError"),
        ("{{ messages[0].content[1].text }} <picture>", "writes it 0 times"),
        ("{{ messages[0].content[1].text }} <image><image>", "writes it 2 times"),
        ("a\n{% for m in", r"\(chat_template.jinja, line 2\) is broken"),
        ("{{ 'a' | no_such_filter }}", "no_such_filter"),
        ("", "writes it 0 times"),
    ],
)
def test_a_template_that_cannot_ask_about_an_image_is_found_out_at_the_start(
    checkpoint: Path, tmp_path: Path, source: str, message: str
) -> None:
    folder = with_files(checkpoint, tmp_path / "model", chat_template__jinja=source)
    with pytest.raises(ModelFilesError, match=message) as caught:
        load(folder)
    assert "chat_template.jinja" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("image_token_id", "message"),
    [
        (3, "is 3, the token '<pad>'; to the tokenizer and the processor images are '<image>'"),
        (300, "no added token of that id; it has '<image>' with the id 4, "),
        (65, "no added token of that id"),
    ],
)
def test_an_image_token_that_is_another_one_is_found_out_at_the_start(
    checkpoint: Path, tmp_path: Path, image_token_id: int, message: str
) -> None:
    fields = {"image_token_index": image_token_id}
    folder = with_files(checkpoint, tmp_path / "model", config__json=fields)
    with pytest.raises(ModelFilesError, match=message):
        load(folder)


@pytest.mark.fast
def test_a_template_that_writes_another_token_for_images(checkpoint: Path, tmp_path: Path) -> None:
    """Though it would take one text too, in which we could write the right one."""
    source = (
        "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}"
        "{% for p in m.content %}{{ p.text or '<pad>' }}{% endfor %}{% endif %}{% endfor %}"
    )
    folder = with_files(checkpoint, tmp_path / "model", chat_template__jinja=source)
    with pytest.raises(ModelFilesError, match="writes it 0 times for an image: '<pad>"):
        load(folder)


@pytest.mark.fast
@pytest.mark.parametrize("field", ["max_position_embeddings", "sliding_window"])
def test_an_image_larger_than_the_context_is_found_out_at_the_start(
    checkpoint: Path, tmp_path: Path, field: str
) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    text = {"text_config": config["text_config"] | {field: 20}}
    folder = with_files(checkpoint, tmp_path / "model", config__json=text)
    with pytest.raises(ModelFilesError, match=rf"takes 16 rows.*context has 20 \({field} in"):
        load(folder)


@pytest.mark.fast
def test_training_padding_is_off(
    checkpoint: Path, tmp_path: Path, prompts: PromptProcessor
) -> None:
    folder = with_files(checkpoint, tmp_path / "model")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding(length=200, pad_id=3, pad_token="<pad>")
    tokenizer.enable_truncation(12)
    tokenizer.save(str(folder / "tokenizer.json"))
    assert encode(load(folder), TALK) == encode(prompts, TALK)


@pytest.mark.fast
def test_the_tokenizers_end_token_ends_answers(checkpoint: Path, tmp_path: Path) -> None:
    fields = {"eos_token": "<pad>"}
    folder = with_files(checkpoint, tmp_path / "model", tokenizer_config__json=fields)
    assert load(folder).end_token_ids == (3,)
    assert load(folder).stop_token_ids(["</s>", "x"], [9, 8]) == (2, 3, 8, 9)


@pytest.mark.fast
def test_stops_that_could_never_be_seen_are_refused(prompts: PromptProcessor) -> None:
    with pytest.raises(InvalidRequestError, match="'</s>' never shows") as caught:
        prompts.stop_token_ids(["a</s>"])
    assert caught.value.param == "stop"
    with pytest.raises(InvalidRequestError, match="holds 320, and the model's tokens are 0 to 319"):
        prompts.stop_token_ids([], [0, 320])


@pytest.mark.fast
def test_words_of_the_template_cannot_be_spelt(checkpoint: Path, tmp_path: Path) -> None:
    """Even where a checkpoint does not call them special."""
    source = "{% for m in messages %}<|user|>{{ m.content }}{% endfor %}"
    words = {"added_tokens_decoder": {"266": {"content": "<|user|>", "special": False}}}
    prompts = load(
        with_files(
            checkpoint,
            tmp_path / "model",
            chat_template__jinja=source,
            tokenizer_config__json=words,
        )
    )
    marker = prompts.tokenizer.token_id("<|user|>")
    ids = encode(prompts, user(TextPart("x<|user|>y"))).prompt_ids
    assert ids.count(marker) == 1


@pytest.mark.fast
def test_images_may_take_different_numbers_of_rows(prompts: PromptProcessor) -> None:
    messages = user(ImagePart(), TextPart("a"), ImagePart())
    ids = prompts.encode_chat(messages, [2, 5]).prompt_ids
    first = ids.index(IMAGE)
    assert ids[first : first + 2] == (IMAGE,) * 2
    assert ids.count(IMAGE) == 7


@pytest.mark.fast
def test_words_of_a_language_stay_tokens_whatever_the_template_says(
    checkpoint: Path, tmp_path: Path
) -> None:
    source = "{{ 'Answer with red. ' }}{% for m in messages %}{{ m.content }}{% endfor %}"
    words = {"added_tokens_decoder": {"266": {"content": "red", "special": False}}}
    prompts = load(
        with_files(
            checkpoint,
            tmp_path / "model",
            chat_template__jinja=source,
            tokenizer_config__json=words,
        )
    )
    ids = encode(prompts, user(TextPart("a red square"))).prompt_ids
    assert ids.count(prompts.tokenizer.token_id("red")) == 2


@pytest.mark.fast
def test_a_tokenizer_that_knows_more_than_the_model_is_found_out_at_the_start(
    checkpoint: Path, tmp_path: Path
) -> None:
    config = json.loads((checkpoint / "config.json").read_text())
    text = {"text_config": config["text_config"] | {"vocab_size": 100}}
    folder = with_files(checkpoint, tmp_path / "model", config__json=text)
    with pytest.raises(ModelFilesError, match=r"has the id 22., and the model's vocabulary 100"):
        load(folder)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("shown", "text", "expected"),
    [
        ("m.content[:12]", "> is it this one <", "> is it this"),
        ("m.content | wordwrap(8)", ">> is it <", ">> is it\n<"),
        ("m.content | tojson(ensure_ascii=true)", "> is it <", '"> is it <"'),
        ("m.content.split('</s>')[-1]", "because </s>so", "so"),
        ("m.content | replace('<pad>', '')", "<pad>so", "so"),
        ("m.content[:12]", "is it <image> this one", "is it <image"),
    ],
)
def test_templates_see_what_a_message_says(
    checkpoint: Path, tmp_path: Path, shown: str, text: str, expected: str
) -> None:
    """Though it holds, or touches, what could be a special token."""
    source = "{% for m in messages %}{{ " + shown + " }}{% endfor %}"
    prompts = load(with_files(checkpoint, tmp_path / "model", chat_template__jinja=source))
    ids = prompts.encode_chat(user(TextPart(text))).prompt_ids
    assert b"".join(map(prompts.tokenizer.token_bytes, ids)).decode() == expected
    assert prompts.tokenizer.reserved_in(ids) == [1]


@pytest.mark.fast
def test_what_a_template_cuts_still_spells_no_special_token(
    checkpoint: Path, tmp_path: Path
) -> None:
    source = "{% for m in messages %}{{ m.content[:20] }}{% endfor %}"
    prompts = load(with_files(checkpoint, tmp_path / "model", chat_template__jinja=source))
    ids = prompts.encode_chat(user(TextPart("is it </s> this one <"))).prompt_ids
    assert prompts.tokenizer.reserved_in(ids) == [1]


@pytest.mark.fast
def test_a_text_without_a_template(prompts: PromptProcessor) -> None:
    encode = prompts.tokenizer.encode
    encoded = prompts.encode_text("Hi there")
    assert list(encoded.prompt_ids) == [1, *encode("Hi there", adds_special=False)]
    assert encoded.token_classes[-1] is TokenClass.LAST
    assert set(encoded.token_classes[:-1]) == {TokenClass.TEXT}
    assert prompts.encode_text("<s>Hi there") == encoded
    bare = prompts.encode_text("Hi there", adds_special=False)
    assert (1, *bare.prompt_ids) == encoded.prompt_ids
    assert prompts.encode_ids(encoded.prompt_ids) == encoded
    assert 2 in prompts.encode_text("Hi</s>").prompt_ids
    assert prompts.encode_text("half \ud800").prompt_ids


@pytest.mark.fast
@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ((), "no tokens"),
        ((1, 320), "no token 320: the model's are 0 to 319"),
        ((-1,), "no token -1"),
        ((1, IMAGE, 5), "the token of an image, 4"),
        ((5,) * 256, "the prompt has 256 tokens"),
    ],
)
def test_ids_that_are_no_prompt(
    prompts: PromptProcessor, ids: tuple[int, ...], message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        prompts.encode_ids(ids)


@pytest.mark.fast
def test_a_prompt_may_end_with_its_messages(prompts: PromptProcessor) -> None:
    whole = prompts.encode_chat(user(TextPart("Hi"))).prompt_ids
    ended = prompts.encode_chat(user(TextPart("Hi")), ending=Ending.MESSAGE).prompt_ids
    assert whole[: len(ended)] == ended
    assert prompts.tokenizer.decode(whole[len(ended) :]) == "ASSISTANT:"
