"""What an answer's logits are to be changed by: words and limits to tokens."""

from skipserve.asking.question import Generation
from skipserve.engine.request import Adjustments
from skipserve.errors import InvalidRequestError
from skipserve.prompt.processor import PromptProcessor

_NOTHING = Adjustments()


def adjustments_of(wanted: Generation, prompts: PromptProcessor) -> Adjustments | None:
    """Return what is asked for; None where that changes nothing.

    Raises:
        InvalidRequestError: a token is not the model's, a word has none, or more tokens must come
            than may, or the answer is held to a form and cannot end.
    """
    for token_id, _ in wanted.logit_bias:
        if not 0 <= token_id < prompts.vocab_size:
            raise InvalidRequestError(
                f"logit_bias names the token {token_id}, and the model's tokens are 0 to "
                f"{prompts.vocab_size - 1}",
                param="logit_bias",
            )
    if wanted.max_tokens is not None and wanted.min_tokens > wanted.max_tokens:
        raise InvalidRequestError(
            f"min_tokens is {wanted.min_tokens}, more than the {wanted.max_tokens} tokens that the "
            "answer may have",
            param="min_tokens",
        )
    if wanted.grammar is not None and wanted.ignores_eos:
        param = wanted.grammar.param
        raise InvalidRequestError(
            f"ignore_eos lets no end token end the answer, and {param} lets nothing else: leave "
            "one of them out",
            param="ignore_eos",
        )
    adjustments = Adjustments(
        presence_penalty=wanted.presence_penalty,
        frequency_penalty=wanted.frequency_penalty,
        repetition_penalty=wanted.repetition_penalty,
        logit_bias=tuple(sorted(wanted.logit_bias)),
        bad_words=tuple(run for word in wanted.bad_words for run in prompts.runs_of(word)),
        min_tokens=wanted.min_tokens,
        end_token_ids=prompts.end_token_ids if wanted.min_tokens else (),
        grammar=wanted.grammar,
    )
    return None if adjustments == _NOTHING else adjustments
