"""Tests of how steps become text."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_llava import make_tokenizer

from skipserve.asking.answer import AnswerText, Piece, WholeAnswer
from skipserve.asking.question import Generation
from skipserve.engine.reports import FinishReason, StepOutput, TokenLogprob
from skipserve.prompt.template import Ending
from skipserve.prompt.tokenizer import Tokenizer

pytestmark = pytest.mark.fast

THEIRS = make_tokenizer()
OURS = Tokenizer(THEIRS.to_str())
EOS = 2


def steps(text: str, finish_reason: FinishReason = FinishReason.STOP) -> list[StepOutput]:
    """Return the steps that answer a text, each with log-probabilities."""
    ids = THEIRS.encode(text, add_special_tokens=False).ids
    if finish_reason is FinishReason.STOP:
        ids.append(EOS)
    return [
        StepOutput(
            "r",
            token_id,
            logprob=-float(index),
            top_logprobs=(TokenLogprob(token_id, -float(index)), TokenLogprob(5, -9.0)),
            finish_reason=finish_reason if index == len(ids) - 1 else None,
        )
        for index, token_id in enumerate(ids)
    ]


def pieces(
    outputs: list[StepOutput], *stops: str, has_logprobs: bool = True, **fields: Any
) -> list[Piece]:
    wanted = Generation(stops=stops, num_top_logprobs=2 if has_logprobs else None, **fields)
    text, shown = AnswerText(OURS, wanted), []
    for output in outputs:
        shown.append(text.push(output))
        if shown[-1].finish_reason is not None:
            break
    return shown


def text_of(shown: list[Piece]) -> str:
    return "".join(piece.text for piece in shown)


def tokens_of(shown: list[Piece]) -> str:
    return "".join(token.token for piece in shown for token in piece.logprobs)


@pytest.mark.parametrize("reason", [FinishReason.STOP, FinishReason.LENGTH])
def test_a_whole_answer(reason: FinishReason) -> None:
    shown = pieces(steps(" a grey € cat", reason))
    assert text_of(shown) == "a grey € cat"
    assert [piece.finish_reason for piece in shown] == [None] * (len(shown) - 1) + [reason]
    whole = WholeAnswer.join(shown)
    assert (whole.text, whole.finish_reason) == ("a grey € cat", reason)
    assert [token for piece in shown for token in piece.logprobs] == list(whole.logprobs)


def test_log_probabilities_cover_the_answer_and_not_its_end() -> None:
    shown = pieces(steps(" the cat"))
    assert tokens_of(shown) == "the cat"
    [first, *_] = [token for piece in shown for token in piece.logprobs]
    assert (bytes(first.bytes), first.top_logprobs[0].token) == (b"the", "the")
    assert [top.logprob for top in first.top_logprobs] == [0.0, -9.0]
    assert not tokens_of(pieces(steps(" the cat"), has_logprobs=False))


def test_log_probabilities_of_a_character_in_parts() -> None:
    shown = pieces(steps("€"))
    bytes_shown = [byte for piece in shown for token in piece.logprobs for byte in token.bytes]
    assert bytes(bytes_shown).decode() == "€"


def test_a_stop_string_across_tokens_is_left_out() -> None:
    shown = pieces(steps("one, two, three"), "o, t")
    assert text_of(shown) == "one, tw"
    assert shown[-1].finish_reason is FinishReason.STOP
    assert tokens_of(shown) == "one, tw"


def test_what_looked_like_a_stop_string_is_shown_at_the_end() -> None:
    shown = pieces(steps("cats and do"), "dogs")
    assert text_of(shown) == "cats and do"
    assert tokens_of(shown) == "cats and do"


def test_a_stop_string_completed_by_the_last_token() -> None:
    shown = pieces(steps("abc", FinishReason.LENGTH), "c")
    assert (text_of(shown), shown[-1].finish_reason) == ("ab", FinishReason.STOP)


def test_an_empty_answer() -> None:
    [piece] = pieces(steps(""))
    assert piece == Piece("", (), FinishReason.STOP, token_ids=(EOS,))


def test_an_end_without_a_token() -> None:
    shown = pieces(
        [
            *steps("ab", FinishReason.LENGTH)[:1],
            StepOutput("r", None, finish_reason=FinishReason.LENGTH),
        ]
    )
    assert text_of(shown) == "a"
    assert shown[-1].finish_reason is FinishReason.LENGTH


@given(
    text=st.text("ab c€", max_size=12),
    stop=st.none() | st.text("ab c", min_size=1, max_size=3),
    ending=st.sampled_from([Ending.ANSWER, Ending.CONTINUED]),
)
def test_joined_tokens_are_the_content(text: str, stop: str | None, ending: Ending) -> None:
    shown = pieces(steps(text), *([stop] if stop else []), ending=ending)
    tokens = [token for piece in shown for token in piece.logprobs]
    content = text_of(shown)
    assert bytes(byte for token in tokens for byte in token.bytes) == content.encode()
    if "€" not in text:  # of which each token has a part
        assert "".join(token.token for token in tokens) == content
    if stop is None and ending is Ending.CONTINUED:
        assert content == text


def test_all_tokens_are_told_that_came() -> None:
    outputs = steps("one, two")
    ids = [output.token_id for output in outputs]
    assert [it for piece in pieces(outputs) for it in piece.token_ids] == ids
    whole = WholeAnswer.join(pieces(outputs, "e, t"))
    assert list(whole.token_ids) == ids[: len(whole.token_ids)]


@pytest.mark.parametrize(("min_tokens", "expected"), [(0, "on"), (2, "on"), (3, "one, on")])
def test_stop_strings_count_after_the_least_length(min_tokens: int, expected: str) -> None:
    assert len(steps("one")) == 4
    assert text_of(pieces(steps("one, one"), "e", min_tokens=min_tokens)) == expected


def test_the_time_that_it_takes_is_known() -> None:
    text = AnswerText(OURS, Generation())
    assert text.seconds == 0
    seen = [text.seconds for output in steps(" the cat") if text.push(output)]
    assert seen == sorted(set(seen))
    assert seen[0] > 0
