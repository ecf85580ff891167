"""Grammars in the engine: masks among other changes of logits, ends, and what cannot go on."""

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from fake_decoder import CONFIG, EOS_ID, FakeDecoder, make_request
from grammar_parts import vocabulary_of
from tokenizer_forms import EOS

from skipserve.engine.engine import Engine
from skipserve.engine.limits import EngineLimits
from skipserve.engine.reports import Failed, FailureKind, FinishReason, StepOutput
from skipserve.engine.request import Adjustments, Grammar, Request
from skipserve.errors import InvalidRequestError
from skipserve.grammar.matcher import Grammars
from skipserve.grammar.structure import Choice, ContextFree, Regex, Shape
from skipserve.grammar.writing import written
from skipserve.model.batch import Batch
from skipserve.model.layers import KVCache

pytestmark = pytest.mark.fast

WIDTH = vocabulary_of()[1].size
DECODER = replace(CONFIG.sizes.decoder, vocab_size=WIDTH)


class Wide(FakeDecoder):
    """A decoder of as many logits as the small tokenizer has tokens."""

    config = replace(CONFIG, sizes=replace(CONFIG.sizes, decoder=DECODER))

    def forward(self, batch: Batch, cache: KVCache) -> torch.Tensor:
        logits = super().forward(batch, cache)
        return logits.repeat(1, WIDTH // logits.shape[1] + 1)[:, :WIDTH]


@cache
def grammars() -> Grammars:
    return Grammars(lambda: vocabulary_of()[1])


def asked(name: str, shape: Shape, max_tokens: int = 20, **changes: Any) -> Request:
    held = Adjustments(grammar=Grammar(written(shape), "field"), **changes)
    return make_request(name, max_tokens=max_tokens, adjustments=held, ends_at_eos=True)


def run(
    *requests: Request, looks_ahead: bool = False
) -> tuple[dict[str, list[StepOutput]], list[Failed]]:
    engine = Engine(Wide(), EngineLimits(looks_ahead=looks_ahead), grammars())
    outputs: dict[str, list[StepOutput]] = {request.id: [] for request in requests}
    failed: list[Failed] = []
    for request in requests:
        engine.add(request)
    while engine.has_work:
        result = engine.step()
        failed += result.failed
        for output in result.outputs:
            outputs[output.request_id].append(output)
    assert engine.check() == []
    return outputs, failed


def text_of(outputs: list[StepOutput]) -> str:
    spelt = (vocabulary_of()[0].token_bytes(it.token_id) for it in outputs if it.token_id)
    return b"".join(spelt).decode()


def test_the_two_vocabularies_have_one_end() -> None:
    assert EOS == EOS_ID
    assert CONFIG.eos_token_ids == (EOS,)


@pytest.mark.parametrize("looks_ahead", [False, True])
def test_answers_follow_their_grammars_beside_plain_ones(looks_ahead: bool) -> None:
    plain = make_request("plain", max_tokens=9)
    held = [asked("a", Regex("[ab]{5}")), asked("b", Choice(("xyz",))), asked("c", Regex("q*"), 7)]
    outputs, failed = run(plain, *held, looks_ahead=looks_ahead)
    assert failed == []
    assert len(text_of(outputs["a"])) == 5
    assert text_of(outputs["b"]) == "xyz"
    assert text_of(outputs["c"]).strip("q") == ""
    assert outputs["a"][-1].finish_reason is FinishReason.STOP
    assert outputs["a"][-1].token_id == EOS
    alone, _ = run(plain, looks_ahead=looks_ahead)
    assert [it.token_id for it in alone["plain"]] == [it.token_id for it in outputs["plain"]]


def test_an_answer_that_is_too_long_is_cut() -> None:
    outputs, _ = run(asked("a", Regex("x{9}"), max_tokens=4))
    assert text_of(outputs["a"]) == "xxxx"
    assert outputs["a"][-1].finish_reason is FinishReason.LENGTH


def test_the_end_comes_when_nothing_else_may() -> None:
    ends: dict[str, Any] = {"min_tokens": 12, "end_token_ids": (EOS,)}
    outputs, failed = run(asked("a", Choice(("xy",)), **ends), asked("b", Regex("x*"), 15, **ends))
    assert failed == []
    assert text_of(outputs["a"]) == "xy"
    assert len(text_of(outputs["b"])) >= 12


def test_bias_and_bad_words_choose_within_a_grammar() -> None:
    tokenizer = vocabulary_of()[0]
    [x], [y] = (tokenizer.encode(it, adds_special=False) for it in "xy")
    biased = asked("a", Regex("[xyz]{4}"), logit_bias=((y, 100.0),))
    held = asked("b", Regex("[xy]{4}"), bad_words=((x,),))
    outputs, _ = run(biased, held)
    assert text_of(outputs["a"]) == text_of(outputs["b"]) == "yyyy"


def test_whoever_cannot_go_on_fails_alone() -> None:
    [x] = vocabulary_of()[0].encode("x", adds_special=False)
    stuck = asked("stuck", Regex("ax"), bad_words=((x,),))
    # More rules than a row may have, behind the first letter.
    rules = "\n".join(f'r{it}: "b{it}" "c"' for it in range(600))
    many = f'start: "a" "x" many\nmany: {" | ".join(f"r{it}" for it in range(600))}\n{rules}'
    costly = asked("costly", ContextFree(many))
    outputs, failed = run(stuck, costly, asked("good", Choice(("xyz",))))
    assert text_of(outputs["good"]) == "xyz"
    by_id = {each.request_id: each for each in failed}
    assert by_id.keys() == {"stuck", "costly"}
    assert {each.kind for each in failed} == {FailureKind.INVALID}
    assert {each.param for each in failed} == {"field"}
    assert "bad_words" in by_id["stuck"].message
    assert "items" in by_id["costly"].message


def test_what_is_no_grammar_is_refused() -> None:
    bad = make_request("a", adjustments=Adjustments(grammar=Grammar("start: (", "field")))
    with pytest.raises(InvalidRequestError) as caught:
        Engine(Wide(), None, grammars()).add(bad)
    assert caught.value.param == "field"
    with pytest.raises(InvalidRequestError, match="no grammars"):
        Engine(Wide()).add(asked("b", Regex("a")))
