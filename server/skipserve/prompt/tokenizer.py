"""The checkpoint's tokenizer: text to ids, ids to bytes. Knows no messages and no images."""

import json
import re
import secrets
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any

import tokenizers

from skipserve.prompt.tokenizer_files import TokenizerFilesError


def _unguessable() -> str:
    return "".join(chr(0xE000 + secrets.randbelow(0x1900)) for _ in range(12))


# What stands in a text that is not encoded yet for a word that is no token, and for one that is:
# this, the token's id, and an end, all in private characters. No client can write it.
_TEXT, _TOKEN = _unguessable(), _unguessable()
_DIGITS = {ord(str(digit)): 0xFDD0 + digit for digit in range(10)}
_END = "\ufdda"
_AT_AN_END = _TEXT + _END
_AS_TEXT = re.compile(f"{_TEXT}[\ufdd0-\ufdd9]*{_END}")


def _spelt(kind: str, index: int) -> str:
    return kind + str(index).translate(_DIGITS) + _END


class Tokenizer:
    """A fast tokenizer, and the bytes that each of its tokens stands for.

    A *reserved* token is one that a template may write and a client's text may not: what spells it
    there is text. Padding, truncation and BPE's dropout belong to training and are off.

    Attributes:
        definition: the content of `tokenizer.json`, with what belongs to training off.
        size: ids that there are, up to the highest.

    Args:
        definition: the content of `tokenizer.json`.
        reserves: added tokens that are reserved besides the special ones.

    Raises:
        TokenizerFilesError: it is not a tokenizer, neither byte-level nor SentencePiece-like, or
            finds reserved tokens in other words too.
    """

    def __init__(self, definition: str, reserves: Collection[str] = ()) -> None:
        try:
            fields = json.loads(definition)
            fields |= {"padding": None, "truncation": None}
            fields["model"] |= {"dropout": None} if "dropout" in fields["model"] else {}
            self.definition = json.dumps(fields)
            self._tokenizer = tokenizers.Tokenizer.from_str(self.definition)
            self.size = max(self._tokenizer.get_vocab().values(), default=-1) + 1
            added = self._tokenizer.get_added_tokens_decoder()
            self._added = {index: token.content for index, token in added.items()}
            self._special = frozenset(index for index, token in added.items() if token.special)
            self._reserved = _longest_first(
                {
                    token.content: index
                    for index, token in added.items()
                    if token.special or token.content in reserves
                }
            )
            names = {word: _spelt(_TOKEN, index) for word, index in self._reserved.items()}
            self._renamed = tokenizers.Tokenizer.from_str(json.dumps(_renamed(fields, names)))
        except Exception as error:
            raise TokenizerFilesError(f"tokenizer.json cannot be read: {error}") from error
        self._check_is_found_as_written(
            token.content for token in added.values() if token.normalized
        )
        self._piece_bytes = _piece_bytes(fields.get("decoder"))
        words = self._reserved
        self._reserved_ids = frozenset(words.values())
        self._as_text = {_spelt(_TEXT, index): word for word, index in words.items()}
        self._heads = tuple(word[:at] for word in words for at in range(1, len(word)))
        self._tails = tuple(word[at:] for word in words for at in range(1, len(word)))

    @cached_property
    def hidden_tokens(self) -> Mapping[str, int]:
        """The special tokens, which never show in an answer's text: their ids by their words."""
        return {self._added[index]: index for index in sorted(self._special)}

    @cached_property
    def longest_token(self) -> int:
        """Characters of the longest token: so many times n is the most that n tokens can hold."""
        return max(len(token) for token in self._tokenizer.get_vocab())

    def token_id(self, word: str) -> int | None:
        """Return the id of a token; None if there is no such token."""
        return self._tokenizer.token_to_id(word)

    def guard(self, text: str) -> str:
        """Return text in which `encode` will see no reserved token, nor half of one at its ends.

        Only texts that hold or touch one change. Ends are looked at as they are and without the
        white space around them, which templates strip. Halves of surrogate pairs, which are no
        characters, become question marks.
        """
        text = text.encode(errors="replace").decode()
        for word, index in self._reserved.items():
            if word in text:
                text = text.replace(word, _spelt(_TEXT, index))
        core = text.strip()
        before, _, after = text.partition(core) if core else ("", "", text)
        if core.startswith(self._tails):
            core = _AT_AN_END + core
        if core.endswith(self._heads):
            core += _AT_AN_END
        if before and text.startswith(self._tails):
            before = _AT_AN_END + before
        if after and text.endswith(self._heads):
            after += _AT_AN_END
        return before + core + after

    def unguarded(self, text: str) -> str:
        """Return text as it was before `guard`."""
        if _TEXT not in text:
            return text
        return _AS_TEXT.sub(lambda found: self._as_text.get(found[0], ""), text)

    def reserved_in(self, token_ids: Sequence[int]) -> list[int]:
        """Return the reserved tokens among some, in their order."""
        return [token_id for token_id in token_ids if token_id in self._reserved_ids]

    def encode(self, text: str, *, adds_special: bool) -> list[int]:
        """Return the ids of a text; reserved tokens in it are tokens unless guarded.

        All of a text is encoded at once. One with guarded words, or where two parts would join to
        one, is encoded by the same tokenizer in which reserved tokens have other names: the words
        are then as any others.

        Args:
            text: what to encode, parts of it passed through `guard`.
            adds_special: whether the tokenizer puts its own tokens around it.
        """
        pieces = text.split(_AT_AN_END)
        plain = "".join(pieces)
        if _TEXT not in plain:
            encoding = self._tokenizer.encode(plain, add_special_tokens=adds_special)
            ends = list(accumulate(map(len, pieces[:-1])))
            if not self._is_joined(encoding, ends):
                return list(encoding.ids)
        for word, index in self._reserved.items():
            text = text.replace(word, _spelt(_TOKEN, index))
        text = self.unguarded(text)
        return list(self._renamed.encode(text, add_special_tokens=adds_special).ids)

    def _is_joined(self, encoding: tokenizers.Encoding, ends: list[int]) -> bool:
        """Return whether a reserved token reaches over one of these places of the text."""
        return bool(ends) and any(
            token_id in self._reserved_ids and bisect_right(ends, start) < bisect_left(ends, stop)
            for token_id, (start, stop) in zip(encoding.ids, encoding.offsets, strict=True)
        )

    def _check_is_found_as_written(self, words: Iterable[str]) -> None:
        """Refuse reserved words that other words are normalised to: `guard` would not see these."""
        if (normalizer := self._tokenizer.normalizer) is None:
            return
        normalise = normalizer.normalize_str
        for word in words:
            alike = [other for other in _variants(word) if normalise(other) == normalise(word)]
            if word in self._reserved and alike:
                raise TokenizerFilesError(
                    f"the token {word!r} is found in text that is normalised, where {alike[0]!r} "
                    'becomes it: its "normalized" in tokenizer.json must be false'
                )

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of tokens, special ones by their names."""
        text: str = self._tokenizer.decode(list(token_ids), skip_special_tokens=False)
        return text

    def token_name(self, token_id: int) -> str:
        """Return a token as the vocabulary spells it."""
        return self._tokenizer.id_to_token(token_id) or ""

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


def _longest_first(words: Mapping[str, int]) -> dict[str, int]:
    return {word: words[word] for word in sorted(words, key=len, reverse=True) if word}


def _variants(word: str) -> Iterator[str]:
    """Yield words that normalisers may turn into a word: of another case, width, accent, joint."""
    wide = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}
    others = (word.swapcase(), word.translate(wide), *(word + mark for mark in "\u0301\u200b"))
    yield from (other for other in others if other != word)


def _renamed(fields: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return a tokenizer's definition in which some added tokens have other names, all ids equal.

    Nothing else can yield these tokens there, no entry of the vocabulary and no merge.
    """
    added = [
        token | {"content": names[token["content"]], "normalized": False, "single_word": False}
        if token["content"] in names
        else token
        for token in fields["added_tokens"]
    ]
    model = dict(fields["model"])
    if isinstance(model.get("vocab"), dict):
        model["vocab"] = {names.get(word, word): index for word, index in model["vocab"].items()}
    elif isinstance(model.get("vocab"), list):
        model["vocab"] = [[names.get(word, word), score] for word, score in model["vocab"]]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if "merges" in model:
        model["merges"] = [merge for merge in model["merges"] if not _touches(merge, names)]
    return {**fields, "added_tokens": added, "model": model}


def _touches(merge: str | list[str], names: Mapping[str, str]) -> bool:
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left in names or right in names or left + right in names


def _piece_bytes(decoder: dict[str, Any] | None) -> Callable[[str], bytes]:
    """Return the function from a vocabulary entry to its bytes, by the kind of the decoder."""
    steps = list(_steps(decoder))
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"]:
        table = _byte_of_character()
        return lambda piece: bytes(table[character] for character in piece)
    if all(map(_is_of_sentencepiece, steps)) and {"Replace", "Metaspace"}.intersection(kinds):
        return _sentencepiece_bytes if "ByteFallback" in kinds else _spaced
    shown = ", ".join(map(json.dumps, steps)) or "null"
    raise TokenizerFilesError(
        f"the decoder in tokenizer.json is not supported ({shown}); those of byte-level BPE and of "
        "SentencePiece are"
    )


def _steps(decoder: dict[str, Any] | None) -> Iterator[dict[str, Any]]:
    """Yield the parts of a decoder in their order."""
    if decoder is not None and decoder["type"] == "Sequence":
        for part in decoder["decoders"]:
            yield from _steps(part)
    elif decoder is not None:
        yield decoder


def _is_of_sentencepiece(step: Mapping[str, Any]) -> bool:
    """Return whether a part of a decoder is about bytes and spaces alone; may strip the first."""
    match step:
        case {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}:
            return True
        case {"type": "Metaspace", "replacement": "\u2581"}:
            return True
        case {"type": "Strip", "content": " ", "start": 0 | 1, "stop": 0}:
            return True
    return step["type"] in {"ByteFallback", "Fuse"}


def _byte_of_character() -> dict[str, int]:
    """Return GPT-2's table: printable bytes stand for themselves, the rest from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    table = {chr(byte): byte for byte in printable}
    hidden = (byte for byte in range(256) if byte not in printable)
    return table | {chr(0x100 + index): byte for index, byte in enumerate(hidden)}


def _sentencepiece_bytes(piece: str) -> bytes:
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        return bytes([int(piece[3:5], 16)])
    return _spaced(piece)


def _spaced(piece: str) -> bytes:
    return piece.replace("\u2581", " ").encode()
