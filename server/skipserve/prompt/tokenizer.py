"""The checkpoint's tokenizer: text to ids, ids to bytes. Knows no messages and no images."""

import json
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import tokenizers

# A noncharacter that, put inside a special token's text, keeps it from being read as the token.
GUARD = "\ufdd0"


class TokenizerFilesError(Exception):
    """A tokenizer that cannot be read or is of a kind that is not supported."""


class Tokenizer:
    """A fast tokenizer, and the bytes that each of its tokens stands for.

    Args:
        definition: the content of `tokenizer.json`.

    Raises:
        TokenizerFilesError: it is not a tokenizer, or neither byte-level nor SentencePiece-like.
    """

    def __init__(self, definition: str) -> None:
        try:
            fields = json.loads(definition)
            self._tokenizer = tokenizers.Tokenizer.from_str(definition)
            plain = fields | {"added_tokens": [], "post_processor": None}
            self._plain = tokenizers.Tokenizer.from_str(json.dumps(plain))
        except Exception as error:
            raise TokenizerFilesError(f"tokenizer.json cannot be read: {error}") from error
        self._piece_bytes = _piece_bytes(fields.get("decoder"))
        added = self._tokenizer.get_added_tokens_decoder()
        self._added = {index: token.content for index, token in added.items()}
        self._special = frozenset(index for index, token in added.items() if token.special)

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """Read the tokenizer of a checkpoint.

        Raises:
            TokenizerFilesError: there is none, or it is not supported.
        """
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise TokenizerFilesError("the model folder has no tokenizer.json")
        return cls(path.read_text(encoding="utf-8"))

    @cached_property
    def longest_token(self) -> int:
        """Characters of the longest token: so many times n is the most that n tokens can hold."""
        return max(len(token) for token in self._tokenizer.get_vocab())

    def guard(self, text: str) -> str:
        """Return text in which `encode` will see no special token, nor half of one at its ends.

        Halves of surrogate pairs, which are no characters, become question marks.
        """
        text = text.replace(GUARD, "").encode(errors="replace").decode()
        for content in self._added.values():
            if content in text:
                text = text.replace(content, content[:1] + GUARD + content[1:])
        splits = [
            (word[:at], word[at:]) for word in self._added.values() for at in range(1, len(word))
        ]
        before = GUARD if text.startswith(tuple(tail for _, tail in splits)) else ""
        after = GUARD if text.endswith(tuple(head for head, _ in splits)) else ""
        return before + text + after

    def encode(self, text: str, *, adds_special: bool) -> list[int]:
        """Return the ids of a text; special tokens in it are special unless guarded.

        Args:
            text: what to encode, parts of it passed through `guard`.
            adds_special: whether the tokenizer puts its own tokens around it.
        """
        if GUARD not in text:
            return list(self._tokenizer.encode(text, add_special_tokens=adds_special).ids)
        encodings = [self._encode_run(run) for run in self._split_at_special(text) if run]
        merged = tokenizers.Encoding.merge(encodings, growing_offsets=True)
        if adds_special:
            merged = self._tokenizer.post_process(merged)
        return list(merged.ids)

    def _encode_run(self, run: str) -> Any:
        if run in self._added.values():
            return self._tokenizer.encode(run, add_special_tokens=False)
        return self._plain.encode(run.replace(GUARD, ""), add_special_tokens=False)

    def _split_at_special(self, text: str) -> Iterator[str]:
        """Yield runs of text and single special tokens, in order."""
        while text:
            found = [(text.find(token), -len(token)) for token in self._added.values()]
            start, length = min(((at, n) for at, n in found if at >= 0), default=(len(text), 0))
            yield text[:start]
            yield text[start : start - length]
            text = text[start - length :]

    def token_text(self, token_id: int) -> str:
        """Return one token as text, for people to read; special tokens by their names."""
        return self.token_bytes(token_id).decode(errors="replace") or self._added.get(token_id, "")

    def token_bytes(self, token_id: int) -> bytes:
        """Return what a token adds to an answer; nothing for a special or an unused id."""
        if token_id in self._special:
            return b""
        if token_id in self._added:
            return self._added[token_id].encode()
        piece = self._tokenizer.id_to_token(token_id)
        return b"" if piece is None else self._piece_bytes(piece)


def _piece_bytes(decoder: dict[str, Any] | None) -> Callable[[str], bytes]:
    """Return the function from a vocabulary entry to its bytes, by the kind of the decoder."""
    kinds = {step["type"] for step in (decoder or {}).get("decoders", [decoder]) if step}
    if kinds == {"ByteLevel"}:
        table = _byte_of_character()
        return lambda piece: bytes(table[character] for character in piece)
    if "Metaspace" in kinds or "ByteFallback" in kinds:
        return _sentencepiece_bytes
    raise TokenizerFilesError(
        f"the tokenizer's decoder {sorted(kinds)} is not supported; byte-level BPE and "
        "SentencePiece with byte fallback are"
    )


def _byte_of_character() -> dict[str, int]:
    """Return GPT-2's table: printable bytes stand for themselves, the rest from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    table = {chr(byte): byte for byte in printable}
    hidden = (byte for byte in range(256) if byte not in printable)
    return table | {chr(0x100 + index): byte for index, byte in enumerate(hidden)}


def _sentencepiece_bytes(piece: str) -> bytes:
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        return bytes([int(piece[3:5], 16)])
    return piece.replace("\u2581", " ").encode()
