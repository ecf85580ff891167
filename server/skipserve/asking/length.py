"""How many tokens an answer may have: what was asked for, within what the prompt leaves."""

from skipserve.asking.question import Generation
from skipserve.errors import InvalidRequestError


def answer_length(
    wanted: Generation, num_prompt: int, max_positions: int, num_cache_tokens: int | None = None
) -> int:
    """Return how many tokens an answer may have, at least 1 where it was left open.

    Args:
        wanted: what was asked for.
        num_prompt: rows of the prompt.
        max_positions: the model's context.
        num_cache_tokens: positions that the engine's cache holds; None for no limit.

    Raises:
        InvalidRequestError: the answer, or the prompt, could never fit.
    """
    in_context = max_positions - num_prompt
    in_cache = in_context if num_cache_tokens is None else num_cache_tokens - num_prompt
    if wanted.max_tokens_param is not None:
        _check_context(wanted, in_context)
        _check_cache(wanted, num_prompt, in_context, in_cache)
    if wanted.max_tokens is not None:
        return wanted.max_tokens
    num_left = min(in_context, in_cache)
    return max(1, num_left if wanted.open_tokens is None else min(wanted.open_tokens, num_left))


def _check_context(wanted: Generation, num_left: int) -> None:
    if wanted.max_tokens is not None and wanted.max_tokens > num_left:
        raise InvalidRequestError(
            f"the answer may have {wanted.max_tokens} tokens, but the prompt leaves {num_left} of "
            "the model's context",
            param=wanted.max_tokens_param,
        )


def _check_cache(wanted: Generation, num_prompt: int, in_context: int, in_cache: int) -> None:
    if (wanted.max_tokens or in_context) <= in_cache:
        return
    num_cache_tokens = in_cache + num_prompt
    if in_cache <= 0:
        raise InvalidRequestError(
            f"the messages have {num_prompt} tokens, but this server has room for "
            f"{num_cache_tokens} with the answer; send fewer",
            param="messages",
        )
    if wanted.max_tokens is not None:
        raise InvalidRequestError(
            f"the answer may have {wanted.max_tokens} tokens, but the prompt leaves {in_cache} of "
            f"the {num_cache_tokens} that this server has room for",
            param=wanted.max_tokens_param,
        )
