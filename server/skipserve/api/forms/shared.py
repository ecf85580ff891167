"""What the forms have in common: to a question, and from an account to what a reply tells."""

import uuid
from dataclasses import replace

from skipserve.api.wire import OpenAiFields, OwnFields, SamplingFields
from skipserve.asking.auto.form import AutoPolicy
from skipserve.asking.question import Generation, PolicyChoice, Question
from skipserve.errors import InvalidRequestError
from skipserve_policies.schema import SkipPolicy


def begin_question(form: OwnFields, policy_header: str | None, prefix: str) -> Question:
    """Return a question of which all is there but what is said, and how it is to be answered.

    Args:
        form: the body.
        policy_header: the header `X-Skip-Policy`.
        prefix: what the question's id begins with.
    """
    return Question(
        id=f"{prefix}{uuid.uuid4().hex}",
        policy=_policy(form, policy_header),
        model=form.model,
        cache_salt=form.cache_salt,
        timeout_seconds=form.timeout_seconds,
    )


def _policy(form: OwnFields, header: str | None) -> PolicyChoice | None:
    """Return the policy that a request gives: in the body, in vllm_xargs, or in a header."""
    in_arguments = form.vllm_xargs.skip_policy if form.vllm_xargs else None
    places = (form.skip_policy, in_arguments, header)
    return as_choice(next((given for given in places if given is not None), None))


def as_choice(given: str | SkipPolicy | AutoPolicy | None) -> PolicyChoice | None:
    """Return a policy as a form has it in the words of who asks."""
    return given.wish if isinstance(given, AutoPolicy) else given


def sampling(form: SamplingFields) -> Generation:
    """Return how tokens are to be chosen."""
    return Generation(
        temperature=1.0 if form.temperature is None else form.temperature,
        top_k=max(form.top_k or 0, 0),  # -1 keeps all, as in vLLM
        top_p=1.0 if form.top_p is None else form.top_p,
        min_p=form.min_p or 0.0,
        seed=form.seed,
    )


def openai_sampling(form: OpenAiFields) -> Generation:
    """Return how tokens are to be chosen, and what ends the answer."""
    stop = form.stop or ()
    return replace(
        sampling(form),
        stops=(stop,) if isinstance(stop, str) else stop,
        stop_token_ids=form.stop_token_ids or (),
        num_choices=form.n or 1,
        ignores_eos=bool(form.ignore_eos),
        min_tokens=form.min_tokens or 0,
        presence_penalty=form.presence_penalty or 0.0,
        frequency_penalty=form.frequency_penalty or 0.0,
        repetition_penalty=form.repetition_penalty or 1.0,
        logit_bias=tuple((int(key), bias) for key, bias in (form.logit_bias or {}).items()),
        bad_words=form.bad_words or (),
        num_prompt_logprobs=form.prompt_logprobs,
    )


def check_openai(form: OpenAiFields) -> None:
    """Refuse what OpenAI's two older forms may ask for and this server does not do.

    Raises:
        InvalidRequestError: the form does.
    """
    if form.stream_options is not None and not form.stream:
        raise InvalidRequestError("stream_options needs stream: true", param="stream_options")
    if form.prompt_logprobs is not None and form.stream:
        raise InvalidRequestError(
            "prompt_logprobs is not available in a stream; leave one of them out",
            param="prompt_logprobs",
        )


def not_supported(name: str) -> InvalidRequestError:
    """Return the error of a field that this server knows and does not follow yet."""
    return InvalidRequestError(f"{name} is not supported yet; leave it out", param=name)
