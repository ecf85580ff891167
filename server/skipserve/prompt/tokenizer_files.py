"""The files of a checkpoint that say what its tokens are, joined as transformers joins them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken

from skipserve.model.config import read_json

_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")
# Ends in "_token" and names none.
_NO_NAMES = {"add_bos_token", "add_eos_token"}


class TokenizerFilesError(Exception):
    """A tokenizer that cannot be read or is of a kind that is not supported."""


@dataclass(frozen=True)
class TokenizerFiles:
    """What the files of a tokenizer say together.

    Attributes:
        definition: `tokenizer.json`, with the added tokens of the other files.
        added: the words of all added tokens by their ids.
        names: the named special tokens: `bos_token`, `eos_token`, ...
    """

    definition: str
    added: Mapping[int, str]
    names: Mapping[str, str]


def read_tokenizer_files(folder: Path) -> TokenizerFiles:
    """Read `tokenizer.json` and what other files add to it.

    Tokens may stand in `tokenizer_config.json` alone, or in the older `added_tokens.json` and
    `special_tokens_map.json`, which count where the former lists no tokens. Where two files
    describe one token, `tokenizer.json` wins.

    Raises:
        ModelFilesError: one of the other files is damaged.
        TokenizerFilesError: `tokenizer.json` is missing or damaged, or a token is.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise TokenizerFilesError(
            "the model folder has no tokenizer.json; a tokenizer.model is not read: "
            "load it with transformers' AutoTokenizer and call save_pretrained"
        )
    config = read_json(folder / "tokenizer_config.json")
    older: dict[str, Any] = {}
    if "added_tokens_decoder" not in config:
        config |= read_json(folder / "special_tokens_map.json")
        older = read_json(folder / "added_tokens.json")
    names = _special_names(config)
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:
        raise TokenizerFilesError(f"{path} cannot be read: {error}") from error
    known = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    try:
        for token in (*_listed(config, names), *_older(older, names), *_special(config, names)):
            if token.content not in known:
                tokenizer.add_tokens([token])
                known.add(token.content)
    except Exception as error:
        raise TokenizerFilesError(
            f"the added tokens in tokenizer_config.json or beside it, in {folder}, cannot be read: "
            f"{error!r}"
        ) from error
    added = tokenizer.get_added_tokens_decoder()
    words = {index: token.content for index, token in added.items()}
    return TokenizerFiles(tokenizer.to_str(), words, names)


def _special_names(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the words behind `bos_token` and its like, of this form or that."""
    extra = config.get("extra_special_tokens")
    named = {**config, **extra} if isinstance(extra, dict) else config
    words = {key: _word(value) for key, value in named.items() if key.endswith("_token")}
    return {key: word for key, word in words.items() if word and key not in _NO_NAMES}


def _word(token: Any) -> str | None:
    word = token.get("content") if isinstance(token, dict) else token
    return word if isinstance(word, str) else None


def _listed(config: Mapping[str, Any], names: Mapping[str, str]) -> Iterator[AddedToken]:
    """Yield the tokens of `added_tokens_decoder` in the order of their ids."""
    listed: Mapping[str, Any] = config.get("added_tokens_decoder") or {}
    for _, token in sorted(listed.items(), key=lambda item: int(item[0])):
        yield _added(token, is_special=token.get("special") or token["content"] in names.values())


def _older(older: Mapping[str, int], names: Mapping[str, str]) -> Iterator[AddedToken]:
    for word in sorted(older, key=lambda word: older[word]):
        yield _added({"content": word}, is_special=word in names.values())


def _special(config: Mapping[str, Any], names: Mapping[str, str]) -> Iterator[AddedToken]:
    for key, word in names.items():
        value = config.get(key)
        yield _added(value if isinstance(value, dict) else {"content": word}, is_special=True)
    more = config.get("extra_special_tokens") or config.get("additional_special_tokens")
    for token in more if isinstance(more, list) else ():
        yield _added(token if isinstance(token, dict) else {"content": token}, is_special=True)


def _added(token: Mapping[str, Any], *, is_special: bool) -> AddedToken:
    flags = {flag: token[flag] for flag in _FLAGS if flag in token}
    return AddedToken(token["content"], special=bool(is_special), **flags)
