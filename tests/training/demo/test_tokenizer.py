"""Words are whole, text survives, and training twice gives the same file."""

import pytest
from tokenizers import Tokenizer

from skipserve_client.evaluate.dataset import demo_examples
from skipserve_client.evaluate.questions import QuestionType
from skipserve_client.evaluate.scenes import Split
from skipserve_training.demo.tokenizer import (
    ANSWER_MARK,
    END_ID,
    IMAGE,
    IMAGE_ID,
    PADDING_ID,
    PROMPT_HEAD,
    SPECIAL_TOKENS,
    START_ID,
    question_text,
    train_tokenizer,
)

pytestmark = pytest.mark.fast

SIZE = 448


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(SIZE)


def test_training_is_deterministic(tokenizer: Tokenizer) -> None:
    assert train_tokenizer(SIZE).to_str() == tokenizer.to_str()


def test_special_tokens_have_their_ids(tokenizer: Tokenizer) -> None:
    assert tokenizer.get_vocab_size() <= SIZE
    ids = {token: tokenizer.token_to_id(token) for token in SPECIAL_TOKENS}
    assert ids == {
        "<unk>": 0,
        "<s>": START_ID,
        "</s>": END_ID,
        "<pad>": PADDING_ID,
        IMAGE: IMAGE_ID,
    }


def test_every_word_about_shapes_is_one_token(tokenizer: Tokenizer) -> None:
    for example in demo_examples(Split.HELD_OUT, 160):
        if example.type == QuestionType.REFUSAL:
            continue
        text = question_text(example.question) + " " + example.answer
        length = len(tokenizer.encode(text, add_special_tokens=False).ids)
        assert length == len(_pieces(text))


def _pieces(text: str) -> list[str]:
    for mark in "\n?,.:":
        text = text.replace(mark, f" {mark} ")
    return [piece for piece in text.split(" ") if piece]


@pytest.mark.parametrize("text", ["What color is it?", "zebra", "naïve 🦓", " two  spaces\n"])
def test_any_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids) == text


def test_a_prompt_starts_with_the_start_token(tokenizer: Tokenizer) -> None:
    encoded = tokenizer.encode(f"{PROMPT_HEAD}{IMAGE}{question_text('Describe the image.')}")
    assert encoded.ids[0] == START_ID
    assert encoded.ids.count(IMAGE_ID) == 1
    assert encoded.tokens[-2:] == ["ĠASSISTANT", ":"]
    assert ANSWER_MARK.endswith(":")
