"""What has been told of an answer, so that another engine can go on with it."""

import msgspec

from skipserve.engine.reports import StepOutput


class DivergedError(Exception):
    """An engine that ran a request anew has come to other tokens."""


class Told:
    """The tokens of an answer that have been passed on.

    An answer is begun anew in another engine, and what comes again is held back: so what is told in
    all is what that engine says, from its first token on.

    Attributes:
        is_again: whether it has been begun anew.
    """

    def __init__(self) -> None:
        self.is_again = False
        self._tokens: list[int] = []
        # Of the tokens, those that the engine that runs now has said too.
        self._num_said = 0

    @property
    def has_begun(self) -> bool:
        """Whether a token has been passed on."""
        return bool(self._tokens)

    def begin_again(self) -> None:
        """Expect the answer from its first token on."""
        self.is_again = True
        self._num_said = 0

    def take(self, output: StepOutput) -> StepOutput | None:
        """Return what is to be passed on of the next output; None if that is nothing.

        Raises:
            DivergedError: it was another one before.
        """
        if output.token_id is None:
            return output
        if self._num_said == len(self._tokens):
            self._tokens.append(output.token_id)
            self._num_said += 1
            return output
        if output.token_id != self._tokens[self._num_said]:
            raise DivergedError
        self._num_said += 1
        if output.finish_reason is None:
            return None
        # The end is news, the token is none.
        return msgspec.structs.replace(output, token_id=None, logprob=None, top_logprobs=())
