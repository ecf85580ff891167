"""Tests of how a question becomes a request, and which policy it gets; a form brings it."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures import data_uri, encode, question, random_picture

from skipserve.api.forms.chat import read_chat
from skipserve.api.wire import ChatForm
from skipserve.app import Built
from skipserve.asking.asker import Asker
from skipserve.asking.processor import QuestionProcessor, cache_salt
from skipserve.asking.question import Prepared, Question
from skipserve.asking.terms import TimeLimits
from skipserve.engine.reports import FinishReason, Stage, StepOutput
from skipserve.errors import (
    FeatureOffError,
    InvalidRequestError,
    NotFoundError,
    PolicyFitError,
    SkipserveError,
    UnusableImageError,
)
from skipserve.media.data_uri import EncodedImage
from skipserve.media.decode import decode_image
from skipserve_policies.plan import TokenClass

pytestmark = pytest.mark.fast

FIRST, SECOND = "skip-block-every-3-from-16", "exit-after-24"
INLINE = {"rules": [{"action": "skip_ffn", "layers": [3], "scope": "all"}]}


@pytest.fixture(scope="session")
def processor(idle: Built) -> QuestionProcessor:
    return idle.serving.processor


def asked(text: str, *urls: str, header: str | None = None, **fields: Any) -> Question:
    return read_chat(ChatForm.model_validate(question(text, *urls, **fields)), header)


def prepare(processor: QuestionProcessor, header: str | None = None, **fields: Any) -> Prepared:
    return processor.prepare(asked("Hi", header=header, **fields))


def refused(
    processor: QuestionProcessor, kind: type[SkipserveError], **fields: Any
) -> SkipserveError:
    with pytest.raises(kind) as caught:
        prepare(processor, **fields)
    return caught.value


def policy_of(processor: QuestionProcessor, header: str | None = None, **fields: Any) -> str:
    prepared = prepare(processor, header, **fields)
    assert prepared.request.policy_name == prepared.policy.name
    assert prepared.request.plan == prepared.policy.plan
    return prepared.policy.name


def test_the_default_policy(processor: QuestionProcessor) -> None:
    assert policy_of(processor) == "full"


def test_where_a_policy_is_looked_for(processor: QuestionProcessor) -> None:
    in_arguments = {"vllm_xargs": {"skip_policy": SECOND}}
    assert policy_of(processor, "full", skip_policy=FIRST, **in_arguments) == FIRST
    assert policy_of(processor, "full", **in_arguments) == SECOND
    assert policy_of(processor, FIRST) == FIRST
    assert policy_of(processor, model=f"tiny@{SECOND}") == SECOND
    assert policy_of(processor, skip_policy=None, model="tiny") == "full"


def test_a_policy_named_twice(processor: QuestionProcessor) -> None:
    assert policy_of(processor, skip_policy=FIRST, model=f"tiny@{FIRST}") == FIRST
    for fields in (
        {"skip_policy": SECOND},
        {"vllm_xargs": {"skip_policy": SECOND}},
        {"header": SECOND},
        {"skip_policy": INLINE},
    ):
        error = refused(processor, InvalidRequestError, model=f"tiny@{FIRST}", **fields)
        assert error.param == "skip_policy"


def test_an_unknown_policy_is_told_its_nearest(processor: QuestionProcessor) -> None:
    error = refused(processor, NotFoundError, skip_policy="skip-blok-every-3-from-16")
    assert error.param == "skip_policy"
    assert FIRST in error.message
    assert "the nearest are " in refused(processor, NotFoundError, skip_policy="nope").message
    assert refused(processor, NotFoundError, header="nope").param == "skip_policy"
    assert refused(processor, NotFoundError, model="tiny@nope").param == "skip_policy"
    assert refused(processor, NotFoundError, model="tiny@").param == "skip_policy"


def test_an_unknown_model(processor: QuestionProcessor) -> None:
    error = refused(processor, NotFoundError, model="gpt-4o")
    assert (error.param, "'tiny'" in error.message) == ("model", True)


def test_an_inline_policy(processor: QuestionProcessor) -> None:
    first = prepare(processor, skip_policy=INLINE)
    assert first.policy.name == "inline"
    assert first.policy.layers == {"skip_ffn": (3,)}
    assert prepare(processor, vllm_xargs={"skip_policy": INLINE}).policy is first.policy


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ([{"action": "skip_ffn", "layers": [32]}], "layer 32 does not exist"),
        (
            [
                {"action": "skip_ffn", "layers": [3]},
                {"action": "parallel_ffn_attention", "layers": [3]},
            ],
            "rule 0 .* and rule 1",
        ),
    ],
)
def test_an_inline_policy_that_cannot_run(
    processor: QuestionProcessor, rules: list[dict[str, Any]], words: str
) -> None:
    error = refused(processor, PolicyFitError, skip_policy={"rules": rules})
    assert error.param == "skip_policy"
    with pytest.raises(PolicyFitError, match=words):
        raise error


def test_inline_policies_can_be_switched_off(processor: QuestionProcessor) -> None:
    strict = with_terms(processor, takes_inline=False)
    assert refused(strict, FeatureOffError, skip_policy=INLINE).param == "skip_policy"
    assert policy_of(strict, skip_policy=FIRST) == FIRST


def with_images(processor: QuestionProcessor, question: Question) -> Question:
    fit = processor.preprocessor.fit
    files = processor.read_images(question)
    images = tuple(
        fit(decode_image(it, 10**6), it.param) for it in files if isinstance(it, EncodedImage)
    )
    return replace(question, images=images, image_uris=())


def test_images_become_rows(processor: QuestionProcessor) -> None:
    urls = [data_uri(encode(random_picture(30, 20, seed=seed))) for seed in (0, 1)]
    prepared = processor.prepare(with_images(processor, asked("Which?", *urls)))
    request = prepared.request
    assert request.token_classes.count(TokenClass.VISUAL) == 32
    assert len({image.digest for image in request.images}) == 2
    assert {len(image.pixels) for image in request.images} == {28 * 28 * 3}
    assert prepared.stage_seconds.keys() == {Stage.TOKENIZE}


def test_sampling(processor: QuestionProcessor) -> None:
    sampling = prepare(
        processor, temperature=0.5, top_p=0.9, seed=-7, logprobs=True, top_logprobs=2, max_tokens=9
    ).request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.seed) == (0.5, 0.9, -7)
    assert (sampling.num_top_logprobs, sampling.max_tokens) == (2, 9)
    assert prepare(processor, logprobs=True).request.sampling.num_top_logprobs == 0
    plain = prepare(processor).request.sampling
    assert (plain.temperature, plain.top_p, plain.num_top_logprobs) == (1.0, 1.0, None)
    assert plain.seed != prepare(processor).request.sampling.seed
    assert (plain.top_k, plain.min_p) == (0, 0.0)
    filtered = prepare(processor, top_k=5, min_p=0.1).request.sampling
    assert (filtered.top_k, filtered.min_p) == (5, 0.1)


@pytest.mark.parametrize("top_k", [None, 0, -1])
def test_values_of_top_k_that_keep_all(processor: QuestionProcessor, top_k: int | None) -> None:
    assert prepare(processor, top_k=top_k).request.sampling.top_k == 0


def test_the_length_of_the_answer(processor: QuestionProcessor) -> None:
    left = 256 - prepare(processor).request.num_prompt
    assert prepare(processor, max_tokens=None).request.sampling.max_tokens == left
    assert prepare(processor, max_tokens=left).request.sampling.max_tokens == left
    assert prepare(processor, max_completion_tokens=3).request.sampling.max_tokens == 3
    assert prepare(processor, max_tokens=left + 1).request.sampling.max_tokens == left
    error = refused(processor, InvalidRequestError, max_tokens=3, max_completion_tokens=4)
    assert error.param == "max_tokens"


def test_the_answer_fits_the_engine_s_cache(processor: QuestionProcessor) -> None:
    num_prompt = prepare(processor).request.num_prompt
    it = asked("Hi", max_tokens=None)
    prepared = processor.prepare(it, num_cache_tokens=num_prompt + 5)
    assert prepared.request.sampling.max_tokens == 5
    with pytest.raises(InvalidRequestError) as caught:
        processor.prepare(it, num_cache_tokens=num_prompt)
    assert caught.value.param == "messages"


def with_terms(processor: QuestionProcessor, **changes: Any) -> QuestionProcessor:
    return replace(processor, terms=replace(processor.terms, **changes))


def test_times(processor: QuestionProcessor) -> None:
    strict = with_terms(processor, times=TimeLimits(queue_seconds=2.0, request_seconds=9.0))
    for wanted, seconds in [(None, 9.0), (0.5, 0.5), (9.5, 9.0), (1e300, 9.0)]:
        request = prepare(strict, timeout_seconds=wanted).request
        assert (request.queue_seconds, request.deadline_seconds) == (2.0, seconds)


def test_salts(processor: QuestionProcessor) -> None:
    def salt(isolation: bytes | None, **fields: Any) -> str:
        asker = Asker(isolation=isolation)
        return processor.prepare(asked("Hi", **fields), asker).request.cache_salt

    assert not salt(None)
    assert salt(None, cache_salt="s") == "s"
    salts = [salt(key, cache_salt=own) for key in (b"k", b"l") for own in (None, "s")]
    assert len({*salts, "", "s"}) == 6


def test_a_request_s_turn_costs_the_most_that_it_can_take(
    processor: QuestionProcessor, picture_url: str
) -> None:
    for name, policy in processor.policies.resolved.items():
        question = with_images(processor, asked("Which?", picture_url, skip_policy=name))
        request = processor.prepare(question).request
        num_tokens = request.sampling.max_tokens
        report = processor.reporter.report(request, policy, num_tokens, num_cached=0)
        assert request.planned_flops == report.planned_flops, name
        for fewer in ((num_tokens - 1, 0), (num_tokens, 4)):
            less = processor.reporter.report(request, policy, *fewer)
            assert less.planned_flops < request.planned_flops


def test_too_many_images_are_refused_before_any_is_read(processor: QuestionProcessor) -> None:
    with pytest.raises(InvalidRequestError, match="5 images; at most 4"):
        processor.read_images(asked("?", *["data:image/png;base64,AAA"] * 5))


def test_the_policy_is_looked_up_before_any_image_is_read(processor: QuestionProcessor) -> None:
    with pytest.raises(NotFoundError):
        processor.read_images(asked("?", "data:image/png;base64,AAA", skip_policy="nope"))


def test_an_image_names_its_place(processor: QuestionProcessor) -> None:
    with pytest.raises(UnusableImageError) as caught:
        processor.read_images(asked("?", "data:image/png;base64,AAA"))
    assert caught.value.param == "messages[0].content[0].image_url"


def test_a_raw_prompt_goes_through_no_template(processor: QuestionProcessor) -> None:
    text = processor.prepare(Question("a", prompt="Hi"))
    ids = processor.prepare(Question("b", prompt=text.request.prompt_ids))
    assert text.request.num_prompt == 3
    assert text.request.prompt_ids == ids.request.prompt_ids
    bare = processor.prepare(Question("c", prompt="Hi", adds_special=False))
    assert bare.request.prompt_ids == text.request.prompt_ids[1:]
    assert processor.prompt_text(Question("d", prompt=text.request.prompt_ids)) == "<s>Hi"
    assert processor.prompt_text(Question("e", prompt="<s> Hi")) == "<s> Hi"


def test_the_first_space_is_the_templates_and_of_no_raw_prompt(
    processor: QuestionProcessor,
) -> None:
    (token,) = processor.prompts.tokenizer.encode(" the", adds_special=False)
    step = StepOutput("a", token, finish_reason=FinishReason.LENGTH)
    chat, raw = prepare(processor), processor.prepare(Question("a", prompt="Hi"))
    texts = [processor.answer_text(prepared).push(step).text for prepared in (chat, raw)]
    assert texts == ["the", " the"]


@pytest.mark.parametrize("wrong", [("x",) * 5000, (1, 4), ()])
def test_a_fault_of_what_is_said_is_told_of_the_forms_own_field(
    processor: QuestionProcessor, wrong: tuple[Any, ...]
) -> None:
    prompt = "".join(wrong) if wrong[:1] == ("x",) else wrong
    with pytest.raises(InvalidRequestError) as caught:
        processor.prepare(Question("a", prompt=prompt, prompt_param="input"))
    assert caught.value.param == "input"
    with pytest.raises(InvalidRequestError) as caught:
        processor.read_images(replace(asked("?", *["data:,"] * 5), prompt_param="input"))
    assert caught.value.param == "input"
    with pytest.raises(InvalidRequestError) as caught:
        processor.prepare(replace(asked("Hi"), prompt_param="input"), num_cache_tokens=3)
    assert caught.value.param == "input"


def test_rows_are_counted_before_any_image_is_read(processor: QuestionProcessor) -> None:
    one = processor.encode(
        asked("?", "data:image/png;base64,AAAA"), processor.policies.find("full")
    )
    assert one.token_classes.count(TokenClass.VISUAL) == processor.preprocessor.num_rows


def test_stop_strings(processor: QuestionProcessor) -> None:
    assert prepare(processor).generation.stops == ()
    assert prepare(processor, stop="a").generation.stops == ("a",)
    assert prepare(processor, stop=["a", "b"]).generation.stops == ("a", "b")


def test_ids_are_made_here(processor: QuestionProcessor) -> None:
    ids = {prepare(processor).request.id for _ in range(10)}
    assert len(ids) == 10


ONE, OTHER = b"1" * 32, b"2" * 32


def test_without_keys_the_client_s_salt_is_the_salt() -> None:
    assert cache_salt(None, None) == ""
    assert cache_salt("team-7", None) == "team-7"


def test_each_key_has_salts_of_its_own() -> None:
    salts = [cache_salt(own, key) for own in (None, "a", "b") for key in (None, ONE, OTHER)]
    assert len(set(salts)) == 9
    assert cache_salt("a", ONE) == cache_salt("a", ONE)


def test_a_salt_shows_no_key() -> None:
    assert ONE.hex() not in cache_salt("a", ONE)
    assert ONE.decode() not in cache_salt("a", ONE)


@given(*[st.binary(min_size=1, max_size=40)] * 2, *[st.text(max_size=8)] * 2)
def test_parts_do_not_run_into_each_other(
    key: bytes, other_key: bytes, own: str, other: str
) -> None:
    is_same = (key, own) == (other_key, other)
    assert (cache_salt(own, key) == cache_salt(other, other_key)) == is_same
