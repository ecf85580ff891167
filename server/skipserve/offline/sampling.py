"""How answers are sampled: the keywords of `LLaVA.generate`, and what they ask for."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from numbers import Integral, Real
from typing import Any, TypedDict, get_args, get_origin, get_type_hints

from skipserve.asking.question import Generation
from skipserve.errors import InvalidRequestError

_MAX_TOKENS = 128
_NUM_SEEDS = 2**64

# By the type that a keyword is declared with: what it takes, and how that is called.
_NUMBERS: dict[type, tuple[type, str]] = {
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
}


class Sampling(TypedDict, total=False):
    """How answers are chosen, and what is told of them.

    Attributes:
        max_tokens: at most so many tokens are generated for an answer, 128 without it; fewer
            where the prompt leaves less of the model's context.
        temperature: 0, which is what it is without, takes the most probable token each time.
        top_k: keep so many of the most probable tokens; 0 keeps all.
        top_p: then keep the smallest set of tokens that holds this much probability.
        min_p: then keep tokens at least this many times as probable as the best one.
        seed: question i draws with seed + i, so that a question asked several times has several
            answers, and the same ones the next time; 0 without it.
        stop: the answer ends before any of these; a special token's word stands for the token.
        stop_token_ids: the answer ends before any of these tokens.
        ignore_eos: whether the model's end tokens do not end the answer.
        min_tokens: nothing ends the answer before it has so many tokens.
        presence_penalty: is taken off the logit of each token that the answer has.
        frequency_penalty: the same, as often as the answer has it.
        repetition_penalty: divides the logits of tokens of prompt and answer, or multiplies those
            that are negative.
        logit_bias: token ids and what is added to their logits, -100 to 100.
        bad_words: texts that the answer may not have.
        logprobs: whether to report the log-probability of each token.
        top_logprobs: how many alternatives to report with it.
        prompt_logprobs: how many alternatives to report with the log-probability of each token of
            the prompt, at most 20; none, nor those, without it.
    """

    max_tokens: int
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    seed: int
    stop: str | Sequence[str]
    stop_token_ids: Sequence[int]
    ignore_eos: bool
    min_tokens: int
    presence_penalty: float
    frequency_penalty: float
    repetition_penalty: float
    logit_bias: Mapping[int, float]
    bad_words: Sequence[str]
    logprobs: bool
    top_logprobs: int
    prompt_logprobs: int


def checked_sampling(given: Mapping[str, Any]) -> Sampling:
    """Return keywords whose names are known and whose values are of the right kinds.

    Raises:
        TypeError: there is no such keyword.
        InvalidRequestError: a value is of another kind.
    """
    kinds = get_type_hints(Sampling)
    checked = Sampling()
    for name, value in given.items():
        if name not in kinds:
            near = get_close_matches(name, kinds, n=1)
            guess = f"; is it {near[0]!r}?" if near else ""
            raise TypeError(f"generate() got an unexpected keyword argument {name!r}{guess}")
        checked[name] = _checked(name, value, kinds[name])  # type: ignore[literal-required]
    return checked


def _checked(name: str, value: Any, kind: Any) -> Any:
    """Return a value as plain Python has it; numbers may be NumPy's."""
    if kind is bool:
        is_right, right = isinstance(value, bool), "True or False"
    elif kind in _NUMBERS:
        numbers, right = _NUMBERS[kind]
        is_right = _is_number(value, numbers)
        value = kind(value) if is_right else value
    elif get_origin(kind) is Mapping:
        is_right, right = isinstance(value, Mapping), "a mapping"
    else:
        right = "a text or a list" if str in get_args(kind) else "a list"
        is_right = isinstance(value, Sequence) and not isinstance(value, bytes)
    if not is_right:
        message = f"{name} is {value!r}; it must be {right}, or be left out"
        raise InvalidRequestError(message, param=name)
    return value


def generation_of(sampling: Sampling, index: int) -> Generation:
    """Return how the answer to one question is generated; the engine checks the numbers.

    Args:
        sampling: what holds for all questions.
        index: which question it is.

    Raises:
        InvalidRequestError: alternatives are asked for without log-probabilities, or a stop is
            none.
    """
    fields: dict[str, Any] = {"temperature": 0.0}
    fields |= sampling
    fields["seed"] = _wrap(fields.get("seed", 0) + index)
    fields["stops"] = _stop_strings(fields.pop("stop", ()))
    fields["stop_token_ids"] = _stop_tokens(fields.pop("stop_token_ids", ()))
    fields["ignores_eos"] = fields.pop("ignore_eos", False)
    fields["logit_bias"] = _biases(fields.pop("logit_bias", {}))
    fields["bad_words"] = _stop_strings(fields.pop("bad_words", ()), "bad_words")
    fields["num_prompt_logprobs"] = fields.pop("prompt_logprobs", None)
    has_logprobs, num_top = fields.pop("logprobs", False), fields.pop("top_logprobs", None)
    if num_top is not None and not has_logprobs:
        raise InvalidRequestError("top_logprobs needs logprobs=True", param="top_logprobs")
    return Generation(
        open_tokens=_MAX_TOKENS,
        num_top_logprobs=(num_top or 0) if has_logprobs else None,
        **fields,
    )


def _stop_strings(stop: str | Sequence[str], name: str = "stop") -> tuple[str, ...]:
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    if not all(isinstance(each, str) and each for each in stops):
        raise InvalidRequestError(
            f"{name} is {stop!r}; it must be a text or several, none of them empty", param=name
        )
    return stops


def _biases(given: Mapping[int, float]) -> tuple[tuple[int, float], ...]:
    pairs = given.items()
    is_right = all(_is_number(key, Integral) and _is_number(bias, Real) for key, bias in pairs)
    if not is_right:
        raise InvalidRequestError(
            f"logit_bias is {dict(given)!r}; it must have token ids and numbers", param="logit_bias"
        )
    return tuple((int(key), float(bias)) for key, bias in pairs)


def _is_number(value: object, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _stop_tokens(given: Sequence[int]) -> tuple[int, ...]:
    token_ids = tuple(given)
    if not all(_is_number(it, Integral) for it in token_ids):
        raise InvalidRequestError(
            f"stop_token_ids is {token_ids!r}; it must hold token ids", param="stop_token_ids"
        )
    return tuple(map(int, token_ids))


def _wrap(seed: int) -> int:
    """Return a seed as a signed integer of 64 bits."""
    return (seed + _NUM_SEEDS // 2) % _NUM_SEEDS - _NUM_SEEDS // 2
