"""A model's tokens as llguidance wants them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from llguidance import LLTokenizer

from skipserve.grammar.fault import GrammarFaultError
from skipserve.model.config import ModelConfig
from skipserve.prompt.tokenizer import Tokenizer
from skipserve.prompt.tokenizer_files import read_tokenizer_files


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a model.

    Attributes:
        tokenizer: llguidance's.
        size: ids that it knows, which may be more than the model does.
    """

    tokenizer: LLTokenizer
    size: int

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """Read a checkpoint's tokenizer, and make sure that it spells tokens as ours does.

        Raises:
            GrammarFaultError: it does not, or no token ends an answer.
            ModelFilesError: the folder holds no model.
            TokenizerFilesError: it holds no tokenizer that is supported.
        """
        config = ModelConfig.from_folder(folder)
        files = read_tokenizer_files(folder)
        ours = Tokenizer(files.definition)
        eos = ours.token_id(files.names.get("eos_token", ""))
        ends = {*config.eos_token_ids} | ({eos} if eos is not None else set())
        return cls.of(ours, sorted(ends), config.sizes.decoder.vocab_size)

    @classmethod
    def of(cls, ours: Tokenizer, end_token_ids: list[int], num_tokens: int) -> Self:
        """Return the tokens of a tokenizer.

        Args:
            ours: what an answer's text is put together with.
            end_token_ids: tokens that end an answer.
            num_tokens: ids that the model knows.

        Raises:
            GrammarFaultError: see `from_folder`.
        """
        if not end_token_ids:
            raise GrammarFaultError("the model has no token that ends an answer")
        size = max(num_tokens, ours.size, *(it + 1 for it in end_token_ids))
        try:
            theirs = LLTokenizer(ours.definition, n_vocab=size, eos_token=end_token_ids)
        except ValueError as error:
            raise GrammarFaultError(
                "the model's tokenizer is of a kind without grammars"
            ) from error
        _check_alike(ours, theirs)
        return cls(theirs, size)


def _check_alike(ours: Tokenizer, theirs: LLTokenizer) -> None:
    """Refuse a tokenizer whose tokens are other bytes there than in the answers' text."""
    for token_id in range(ours.size):
        spelt = ours.token_bytes(token_id)
        # There this byte marks special tokens; no text has it.
        if spelt and b"\xff" not in spelt and theirs.decode_bytes([token_id]) != spelt:
            raise GrammarFaultError(
                f"grammars do not go with the model's tokenizer, whose token {token_id} is other "
                "bytes there"
            )
