"""Refuses a request that the model cannot run, before it could hurt others."""

import math
from itertools import chain

from skipserve.engine.drops import Drops
from skipserve.engine.request import (
    MAX_PROMPT_LOGPROBS,
    Adjustments,
    Request,
    SamplingParams,
)
from skipserve.errors import InvalidRequestError
from skipserve.model.config import ModelConfig
from skipserve_policies.plan import Plan, TokenClass

# More than any vocabulary has; beyond what an array holds, an error would come too late.
_MAX_TOP = 2**31 - 1
# OpenAI's limits, and one far beyond what is of use.
_MAX_PENALTY, _MAX_BIAS, _MAX_RATIO = 2, 100, 10
_MIN_RATIO = 0.01


def check_request(request: Request, config: ModelConfig, num_cache_tokens: int) -> None:
    """Check all that a forward relies on.

    Args:
        request: what is asked.
        config: the model.
        num_cache_tokens: positions that there is memory for.

    Raises:
        InvalidRequestError: what is wrong with the request.
    """
    _check_length(request, config.max_positions, num_cache_tokens)
    _check_sampling(request.sampling)
    _check_prompt_logprobs(request)
    if request.sampling.adjustments is not None:
        _check_adjustments(request.sampling.adjustments, config.sizes.decoder.vocab_size)
    _check_plan(request, config.sizes.decoder.num_layers)
    _check_classes(request.token_classes, request.num_prompt)
    _check_tokens(request, config)
    _check_images(request, config)


def _require(is_met: bool, message: str) -> None:
    if not is_met:
        raise InvalidRequestError(message)


def _check_length(request: Request, max_positions: int, num_cache_tokens: int) -> None:
    num_prompt, max_tokens = request.num_prompt, request.sampling.max_tokens
    _require(num_prompt >= 1, "the prompt is empty")
    _require(max_tokens >= 1, f"max_tokens is {max_tokens}, it must be at least 1")
    _require(
        num_prompt + max_tokens <= max_positions,
        f"the prompt has {num_prompt} tokens, with {max_tokens} to generate that is over the "
        f"context of {max_positions}",
    )
    _require(
        num_prompt + max_tokens <= num_cache_tokens,
        f"the prompt has {num_prompt} tokens, with {max_tokens} to generate that is over the "
        f"{num_cache_tokens} that the engine has memory for",
    )


def _check_sampling(sampling: SamplingParams) -> None:
    is_temperature = math.isfinite(sampling.temperature) and sampling.temperature >= 0
    _require(is_temperature, f"temperature is {sampling.temperature}, it must be 0 or more")
    is_count = 0 <= sampling.top_k <= _MAX_TOP
    _require(is_count, f"top_k is {sampling.top_k}, it must be in 0 to {_MAX_TOP}")
    _require(0 < sampling.top_p <= 1, f"top_p is {sampling.top_p}, it must be in (0, 1]")
    _require(0 <= sampling.min_p <= 1, f"min_p is {sampling.min_p}, it must be in [0, 1]")
    num_top = sampling.num_top_logprobs or 0
    is_count = 0 <= num_top <= _MAX_TOP
    _require(is_count, f"top_logprobs is {num_top}, it must be in 0 to {_MAX_TOP}")


def _check_prompt_logprobs(request: Request) -> None:
    num_top = request.num_prompt_logprobs
    if num_top is None:
        return
    if not 0 <= num_top <= MAX_PROMPT_LOGPROBS:
        raise InvalidRequestError(
            f"prompt_logprobs is {num_top}, it must be in 0 to {MAX_PROMPT_LOGPROBS}",
            "prompt_logprobs",
        )
    narrowing = request.active_narrowing
    if narrowing is not None and narrowing.is_ranked:
        raise InvalidRequestError(
            f"the skip policy drops visual rows by {narrowing.method.value}, which looks at the "
            "last row of the prompt: what rows before it say of the next token would depend on "
            "what follows, and be no probability. Leave prompt_logprobs out, or choose another "
            "policy",
            "prompt_logprobs",
        )


def _check_adjustments(adjustments: Adjustments, vocab_size: int) -> None:
    for name in ("presence_penalty", "frequency_penalty"):
        value = getattr(adjustments, name)
        _require(abs(value) <= _MAX_PENALTY, f"{name} is {value}, it must be in [-2, 2]")
    ratio = adjustments.repetition_penalty
    # What divides by less leaves no numbers.
    _require(
        _MIN_RATIO <= ratio <= _MAX_RATIO,
        f"repetition_penalty is {ratio}, it must be in [{_MIN_RATIO}, {_MAX_RATIO}]",
    )
    _require(adjustments.min_tokens >= 0, f"min_tokens is {adjustments.min_tokens}, less than 0")
    biases = dict(adjustments.logit_bias)
    _require(len(biases) == len(adjustments.logit_bias), "logit_bias has a token twice")
    for bias in biases.values():
        _require(abs(bias) <= _MAX_BIAS, f"logit_bias has {bias}, it must be in [-100, 100]")
    _require(all(adjustments.bad_words), "bad_words has one without tokens")
    for token_id in chain(biases, adjustments.end_token_ids, *adjustments.bad_words):
        _require(
            0 <= token_id < vocab_size,
            f"token {token_id} is not in the vocabulary of {vocab_size}",
        )


def _check_plan(request: Request, num_layers: int) -> None:
    if isinstance(request.plan, bytes):
        return  # the table that it names was checked when it came
    _require(
        request.plan.num_layers == num_layers,
        f"the plan is for {request.plan.num_layers} layers, the model has {num_layers}",
    )


def check_drops(drops: Drops | None, plan: Plan) -> None:
    """Check that the host can tell what each row does which a ranking leaves.

    It knows how many visual rows are left, not of which image they are.

    Raises:
        InvalidRequestError: text stands between visual rows, and the plan tells them apart.
    """
    if drops is None or not drops.needs_whole_prompt:
        return
    visual, first = drops.visual, drops.layers[0]
    is_one_run = int(visual[-1]) - int(visual[0]) + 1 == len(visual)
    text, image = (
        (plan.columns[c][first:], plan.kv[c][first:]) for c in (TokenClass.TEXT, TokenClass.VISUAL)
    )
    _require(
        is_one_run or text == image,
        f"the skip policy ranks visual rows before layer {first} and has those that are left do "
        "other things than text there, which goes with images side by side alone, not with text "
        "between them",
    )


def _check_classes(classes: tuple[TokenClass, ...], num_prompt: int) -> None:
    prompt_classes = {TokenClass.TEXT, TokenClass.VISUAL}
    _require(
        len(classes) == num_prompt
        and classes[-1] is TokenClass.LAST
        and prompt_classes.issuperset(classes[:-1]),
        "each prompt token needs a class: text or visual, and last for the last one alone",
    )


def _check_tokens(request: Request, config: ModelConfig) -> None:
    """Check tokens and their classes as arrays: prompts are long, and all of them come by here."""
    vocab_size = config.sizes.decoder.vocab_size
    ids = request.prompt_array
    is_image = ids == config.image_token_id
    unknown = ~is_image & ((ids < 0) | (ids >= vocab_size))
    if unknown.any():
        token_id = request.prompt_ids[unknown.argmax()]
        raise InvalidRequestError(f"token {token_id} is not in the vocabulary of {vocab_size}")
    is_visual = request.class_array == TokenClass.VISUAL
    mismatched = (is_image != is_visual)[:-1]  # the last row may show anything
    if mismatched.any():
        place = mismatched.argmax()
        token_id, token_class = request.prompt_ids[place], request.token_classes[place]
        raise InvalidRequestError(f"token {token_id} is of class {token_class.name}")


def _check_images(request: Request, config: ModelConfig) -> None:
    vision = config.sizes.vision
    num_rows = request.prompt_ids.count(config.image_token_id)
    num_wanted = int(request.image_starts[-1])
    _require(
        num_rows == num_wanted,
        f"{len(request.images)} images need {num_wanted} image tokens, the prompt has {num_rows}",
    )
    for image in request.images:
        whole = config.sizes.rows_per_image
        wanted = whole if image.reduction is None else image.reduction.num_rows
        _require(
            image.num_rows == wanted <= whole,
            f"an image is to take {image.num_rows} rows, the model gives {min(wanted, whole)}",
        )
        shape = " x ".join(map(str, vision.input_shape))
        _require(
            len(image.pixels) == vision.input_bytes,
            f"what the model is shown of an image, a video or a sound must be {shape} values",
        )
