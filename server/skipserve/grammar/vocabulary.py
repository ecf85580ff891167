"""A model's tokens as llguidance wants them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from llguidance import LLTokenizer, TokenizerWrapper

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
        """Read a checkpoint's tokenizer.

        Raises:
            GrammarFaultError: no token ends an answer.
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
        words = TokenizerWrapper(_Words(ours, end_token_ids, size))
        return cls(LLTokenizer(words, eos_token=end_token_ids), size)


# Whatever follows it is in the middle of a text; no merge has it.
_BEFORE = "\x02"


class _Words:
    """A tokenizer as llguidance asks for one.

    Reading `tokenizer.json` itself, llguidance takes whatever is spelt `<...>` for a special token,
    which no text may have: a model that calls functions by a token `<tool_call>` never could.

    Attributes:
        eos_token_id: one that ends an answer.
        bos_token_id: no grammar asks for it.
        tokens: the bytes of each token, special ones by their names; none of ids without a token.
        special_token_ids: those that are no text, with all that end an answer.
    """

    def __init__(self, ours: Tokenizer, end_token_ids: list[int], size: int) -> None:
        special = {index: word for word, index in ours.hidden_tokens.items()}
        special |= {index: name for index in end_token_ids if (name := ours.token_name(index))}
        self.eos_token_id = end_token_ids[0]
        self.bos_token_id = None
        self.special_token_ids = list(special)
        self.tokens = [
            special[index].encode() if index in special else ours.token_bytes(index)
            for index in range(size)
        ]
        self._ours = ours

    def __call__(self, text: str) -> list[int]:
        """Return the tokens, none of them special, of a text that others come before."""
        if self._spelt(token_ids := self._encode(text)) == text.encode():
            return token_ids
        # A space was put before it, as SentencePiece does at the beginning of a text.
        return self._encode(_BEFORE + text)[len(self._encode(_BEFORE)) :]

    def _encode(self, text: str) -> list[int]:
        return self._ours.encode(self._ours.guard(text), adds_special=False)

    def _spelt(self, token_ids: list[int]) -> bytes:
        return b"".join(map(self._ours.token_bytes, token_ids))
