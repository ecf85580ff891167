"""How many tokens a request may have where the cache is small, and with whom it shares pages."""

from dataclasses import replace

from skipserve.api.wire import ChatForm
from skipserve.digests import digest_of
from skipserve.engine.request import SamplingParams
from skipserve.errors import InvalidRequestError


def cache_salt(own: str | None, key_digest: bytes | None) -> str:
    """Return the salt of a request: requests of one salt share what they computed.

    Args:
        own: what the client asks for.
        key_digest: of its API key; None where keys share a cache.
    """
    if key_digest is None:
        return own or ""
    return digest_of(key_digest, (own or "").encode()).hex()


def fit_cache(
    form: ChatForm, sampling: SamplingParams, num_prompt: int, num_cache_tokens: int
) -> SamplingParams:
    """Return the sampling of a request that fits the cache; shorter if no length was asked for.

    Args:
        form: what was asked.
        sampling: the same, for a cache without end.
        num_prompt: rows of the prompt.
        num_cache_tokens: positions that the cache holds.

    Raises:
        InvalidRequestError: the request could never run.
    """
    num_left = num_cache_tokens - num_prompt
    if sampling.max_tokens <= num_left:
        return sampling
    if num_left <= 0:
        raise InvalidRequestError(
            f"the messages have {num_prompt} tokens, but this server has room for "
            f"{num_cache_tokens} with the answer; send fewer",
            param="messages",
        )
    if form.max_tokens is None and form.max_completion_tokens is None:
        return replace(sampling, max_tokens=num_left)
    raise InvalidRequestError(
        f"the answer may have {sampling.max_tokens} tokens, but the prompt leaves {num_left} of "
        f"the {num_cache_tokens} that this server has room for",
        param="max_completion_tokens" if form.max_completion_tokens else "max_tokens",
    )
