"""How exchanges are written as ids."""

import pytest
from tiny_language import make_tokenizer

from skipserve_training.mapping.lessons import Exchange, PromptForm
from skipserve_training.mapping.packing import PICTURE

pytestmark = pytest.mark.fast


def test_a_question_stands_between_the_picture_and_its_answer() -> None:
    tokenizer = make_tokenizer()
    form = PromptForm(tokenizer, 3, ["shape", "colour"])
    example = form.example(Exchange("what color?", "red", "colour"))
    assert example.prompt[:3] == (PICTURE,) * 3
    assert tokenizer.decode(list(example.prompt[3:])) == "Question: what color? Answer:"
    assert tokenizer.decode(list(example.answer)) == " red</s>"
    assert example.kind == 1


def test_a_caption_follows_the_picture() -> None:
    tokenizer = make_tokenizer()
    example = PromptForm(tokenizer, 2, ["caption"]).example(Exchange(None, "a dog", "caption"))
    assert example.prompt == (PICTURE,) * 2
    assert tokenizer.decode(list(example.answer)) == "a dog</s>"


def test_an_answer_that_melts_into_its_question_is_refused() -> None:
    class Joining:
        eos_token_id = 1

        def convert_tokens_to_ids(self, token: str) -> int:
            return 0

        def __call__(self, text: str) -> dict[str, list[int]]:
            return {"input_ids": [0, len(text)]}

    form = PromptForm(Joining(), 1, ["x"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="joins 'Question: a Answer:' to ' b'"):
        form.example(Exchange("a", "b", "x"))
