"""How many tokens an answer may have: what was asked for, within what the prompt leaves."""

from skipserve.asking.question import Generation
from skipserve.errors import InvalidRequestError


def answer_length(
    wanted: Generation, num_prompt: int, max_positions: int, num_cache_tokens: int | None = None
) -> int:
    """Return how many tokens an answer may have: as many as are asked for, or all that fit.

    Args:
        wanted: what was asked for.
        num_prompt: rows of the prompt.
        max_positions: the model's context.
        num_cache_tokens: positions that the engine's cache holds; None for no limit.

    Raises:
        InvalidRequestError: the prompt leaves no room for an answer.
    """
    room = max_positions if num_cache_tokens is None else min(max_positions, num_cache_tokens)
    num_left = room - num_prompt
    if num_left < 1:
        raise InvalidRequestError(
            f"the messages have {num_prompt} tokens, but there is room for {room} with the answer; "
            "send fewer",
            param="messages",
        )
    asked = wanted.open_tokens if wanted.max_tokens is None else wanted.max_tokens
    return num_left if asked is None else min(asked, num_left)
