"""Tests of how a form becomes a request, and which policy it gets."""

import math
from typing import Any

import pytest
from pictures import data_uri, encode, question, random_picture
from pydantic import ValidationError

from skipserve.api.convert import Converter, Prepared, TimeLimits
from skipserve.api.wire import ChatForm
from skipserve.app import Built
from skipserve.engine.reports import Stage
from skipserve.errors import (
    FeatureOffError,
    InvalidRequestError,
    NotFoundError,
    PolicyFitError,
    SkipserveError,
    UnusableImageError,
)
from skipserve_policies.plan import TokenClass

pytestmark = pytest.mark.fast

FIRST, SECOND = "skip-block-every-3-from-16", "exit-after-24"
INLINE = {"rules": [{"action": "skip_ffn", "layers": [3], "scope": "all"}]}


@pytest.fixture(scope="session")
def converter(idle: Built) -> Converter:
    return idle.serving.converter


def convert(converter: Converter, header: str | None = None, **fields: Any) -> Prepared:
    return converter.convert(ChatForm.model_validate(question("Hi", **fields)), header)


def refused(converter: Converter, kind: type[SkipserveError], **fields: Any) -> SkipserveError:
    with pytest.raises(kind) as caught:
        convert(converter, **fields)
    return caught.value


def policy_of(converter: Converter, header: str | None = None, **fields: Any) -> str:
    prepared = convert(converter, header, **fields)
    assert prepared.request.policy_name == prepared.policy.name
    assert prepared.request.plan == prepared.policy.plan
    return prepared.policy.name


def test_the_default_policy(converter: Converter) -> None:
    assert policy_of(converter) == "full"


def test_where_a_policy_is_looked_for(converter: Converter) -> None:
    in_arguments = {"vllm_xargs": {"skip_policy": SECOND}}
    assert policy_of(converter, "full", skip_policy=FIRST, **in_arguments) == FIRST
    assert policy_of(converter, "full", **in_arguments) == SECOND
    assert policy_of(converter, FIRST) == FIRST
    assert policy_of(converter, model=f"tiny@{SECOND}") == SECOND
    assert policy_of(converter, skip_policy=None, model="tiny") == "full"


def test_a_policy_named_twice(converter: Converter) -> None:
    assert policy_of(converter, skip_policy=FIRST, model=f"tiny@{FIRST}") == FIRST
    for fields in (
        {"skip_policy": SECOND},
        {"vllm_xargs": {"skip_policy": SECOND}},
        {"header": SECOND},
        {"skip_policy": INLINE},
    ):
        error = refused(converter, InvalidRequestError, model=f"tiny@{FIRST}", **fields)
        assert error.param == "skip_policy"


def test_an_unknown_policy_is_told_its_nearest(converter: Converter) -> None:
    error = refused(converter, NotFoundError, skip_policy="skip-blok-every-3-from-16")
    assert error.param == "skip_policy"
    assert FIRST in error.message
    assert "the nearest are " in refused(converter, NotFoundError, skip_policy="nope").message
    assert refused(converter, NotFoundError, header="nope").param == "skip_policy"
    assert refused(converter, NotFoundError, model="tiny@nope").param == "skip_policy"
    assert refused(converter, NotFoundError, model="tiny@").param == "skip_policy"


def test_an_unknown_model(converter: Converter) -> None:
    error = refused(converter, NotFoundError, model="gpt-4o")
    assert (error.param, "'tiny'" in error.message) == ("model", True)


def test_an_inline_policy(converter: Converter) -> None:
    first = convert(converter, skip_policy=INLINE)
    assert first.policy.name == "inline"
    assert first.policy.layers == {"skip_ffn": (3,)}
    assert convert(converter, vllm_xargs={"skip_policy": INLINE}).policy is first.policy


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
    converter: Converter, rules: list[dict[str, Any]], words: str
) -> None:
    error = refused(converter, PolicyFitError, skip_policy={"rules": rules})
    assert error.param == "skip_policy"
    with pytest.raises(PolicyFitError, match=words):
        raise error


def test_inline_policies_can_be_switched_off(converter: Converter) -> None:
    strict = with_changes(converter, takes_inline=False)
    assert refused(strict, FeatureOffError, skip_policy=INLINE).param == "skip_policy"
    assert policy_of(strict, skip_policy=FIRST) == FIRST


def test_images_become_rows(converter: Converter) -> None:
    urls = [data_uri(encode(random_picture(30, 20, seed=seed))) for seed in (0, 1)]
    form = ChatForm.model_validate(question("Which?", *urls))
    prepared = converter.convert(form, None)
    request = prepared.request
    assert request.token_classes.count(TokenClass.VISUAL) == 32
    assert len({image.digest for image in request.images}) == 2
    assert {len(image.pixels) for image in request.images} == {28 * 28 * 3}
    assert prepared.stage_seconds.keys() == {Stage.DECODE_IMAGE, Stage.PREPROCESS, Stage.TOKENIZE}


def test_sampling(converter: Converter) -> None:
    sampling = convert(
        converter, temperature=0.5, top_p=0.9, seed=-7, logprobs=True, top_logprobs=2, max_tokens=9
    ).request.sampling
    assert (sampling.temperature, sampling.top_p, sampling.seed) == (0.5, 0.9, -7)
    assert (sampling.num_top_logprobs, sampling.max_tokens) == (2, 9)
    assert convert(converter, logprobs=True).request.sampling.num_top_logprobs == 0
    plain = convert(converter).request.sampling
    assert (plain.temperature, plain.top_p, plain.num_top_logprobs) == (1.0, 1.0, None)
    assert plain.seed != convert(converter).request.sampling.seed
    assert (plain.top_k, plain.min_p) == (0, 0.0)
    filtered = convert(converter, top_k=5, min_p=0.1).request.sampling
    assert (filtered.top_k, filtered.min_p) == (5, 0.1)


@pytest.mark.parametrize("top_k", [None, 0, -1])
def test_values_of_top_k_that_keep_all(converter: Converter, top_k: int | None) -> None:
    assert convert(converter, top_k=top_k).request.sampling.top_k == 0


def test_the_length_of_the_answer(converter: Converter) -> None:
    left = 256 - convert(converter).request.num_prompt
    assert convert(converter, max_tokens=None).request.sampling.max_tokens == left
    assert convert(converter, max_tokens=left).request.sampling.max_tokens == left
    assert convert(converter, max_completion_tokens=3).request.sampling.max_tokens == 3
    assert refused(converter, InvalidRequestError, max_tokens=left + 1).param == "max_tokens"
    error = refused(converter, InvalidRequestError, max_tokens=3, max_completion_tokens=4)
    assert error.param == "max_tokens"


def test_the_answer_fits_the_engine_s_cache(converter: Converter) -> None:
    num_prompt = convert(converter).request.num_prompt
    form = ChatForm.model_validate(question("Hi", max_tokens=None))
    prepared = converter.convert(form, num_cache_tokens=num_prompt + 5)
    assert prepared.request.sampling.max_tokens == 5
    with pytest.raises(InvalidRequestError) as caught:
        converter.convert(form, num_cache_tokens=num_prompt)
    assert caught.value.param == "messages"


def with_changes(converter: Converter, **changes: Any) -> Converter:
    fields = {name: getattr(converter, name) for name in converter.__dataclass_fields__}
    return Converter(**fields | changes)


def test_times(converter: Converter) -> None:
    strict = with_changes(converter, times=TimeLimits(queue_seconds=2.0, request_seconds=9.0))
    for asked, seconds in [(None, 9.0), (0.5, 0.5), (9.5, 9.0), (1e300, 9.0)]:
        request = convert(strict, timeout_seconds=asked).request
        assert (request.queue_seconds, request.deadline_seconds) == (2.0, seconds)


def test_salts(converter: Converter) -> None:
    def salt(converter: Converter, key_digest: bytes | None, **fields: Any) -> str:
        form = ChatForm.model_validate(question("Hi", **fields))
        return converter.convert(form, key_digest=key_digest).request.cache_salt

    assert salt(converter, b"k") == salt(converter, None) == ""
    assert salt(converter, b"k", cache_salt="s") == "s"
    isolating = with_changes(converter, isolates_keys=True)
    assert salt(isolating, None, cache_salt="s") == "s"
    salts = [salt(isolating, key, cache_salt=own) for key in (b"k", b"l") for own in (None, "s")]
    assert len({*salts, "", "s"}) == 6


@pytest.mark.parametrize(
    "fields",
    [
        *({"cache_salt": salt} for salt in ("", "a b", "a\n", "\u00e9", "\x7f", "x" * 129, 7)),
        *({"timeout_seconds": seconds} for seconds in (0, -1, math.inf, math.nan, "5", True)),
    ],
)
def test_salts_and_times_that_are_none(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(fields))):
        ChatForm.model_validate(question("Hi", **fields))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 2),
        ("presence_penalty", 0.5),
        ("frequency_penalty", -0.5),
        ("repetition_penalty", 1.1),
        ("logit_bias", {"5": 1.0}),
        ("response_format", {"type": "json_object"}),
        ("response_format", {"type": "json_schema", "json_schema": {}}),
    ],
)
def test_fields_that_do_not_work_yet_are_named(
    converter: Converter, field: str, value: object
) -> None:
    error = refused(converter, InvalidRequestError, **{field: value})
    assert (error.param, field in error.message) == (field, True)


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 1, "top_k": 0, "min_p": 0, "presence_penalty": 0, "frequency_penalty": 0.0},
        {"top_k": -1, "repetition_penalty": 1.0, "logit_bias": {}, "stop": []},
        {"response_format": {"type": "text"}, "logprobs": False, "stream": False},
    ],
)
def test_values_that_change_nothing_are_taken(converter: Converter, fields: dict[str, Any]) -> None:
    convert(converter, **fields)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
    ],
)
def test_fields_that_need_another(converter: Converter, fields: dict[str, Any], param: str) -> None:
    assert refused(converter, InvalidRequestError, **fields).param == param


def test_too_many_images_are_refused_before_any_is_decoded(converter: Converter) -> None:
    form = ChatForm.model_validate(question("?", *["data:image/png;base64,AAAA"] * 5))
    with pytest.raises(InvalidRequestError, match="5 images; at most 4"):
        converter.convert(form, None)


def test_an_image_names_its_place(converter: Converter) -> None:
    form = ChatForm.model_validate(question("?", "data:image/png;base64,AAAA"))
    with pytest.raises(UnusableImageError) as caught:
        converter.convert(form, None)
    assert caught.value.param == "messages[0].content[0].image_url"


def test_stop_strings(converter: Converter) -> None:
    assert convert(converter).stops == ()
    assert convert(converter, stop="a").stops == ("a",)
    assert convert(converter, stop=["a", "b"]).stops == ("a", "b")


def test_ids_are_made_here(converter: Converter) -> None:
    ids = {convert(converter).request.id for _ in range(10)}
    assert len(ids) == 10
