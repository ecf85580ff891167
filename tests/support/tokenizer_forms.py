"""Small tokenizers of the forms that checkpoints have theirs in, with one set of special tokens."""

import json

from tiny_llava import make_tokenizer
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
from tokenizers.pre_tokenizers import Metaspace

BOS, EOS = 1, 2
SPECIAL = ("<unk>", "<s>", "</s>", "<image>")
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
_MERGES = [("\u2581", "a"), ("a", "b"), ("\u2581a", "b")]
_PIECES = ["\u2581", "a", "b", "\u2581a", "ab", "\u2581ab"]


def llama_like(*, normalized: bool = False) -> Tokenizer:
    """Return a tokenizer as LLaVA-1.5's: pieces with byte fallback, a space before each run.

    Args:
        normalized: whether special tokens are found behind a space alone, as in older files.
    """
    tokenizer = Tokenizer(_bpe())
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    return _with_decoder(tokenizer, normalized=normalized)


def metaspace(prepend_scheme: str) -> Tokenizer:
    """Return the same as newer files have it: with a pre-tokenizer that prepends by a scheme."""
    tokenizer = Tokenizer(_bpe())
    tokenizer.pre_tokenizer = Metaspace(prepend_scheme=prepend_scheme, split=False)
    return _with_decoder(tokenizer)


def unigram() -> Tokenizer:
    """Return a tokenizer of scored pieces, whose lattice could find special tokens too."""
    scored = [(word, 0.0) for word in SPECIAL[:3]]
    scored += [(word, -9.0) for word in _BYTES] + [(word, -2.0) for word in _PIECES]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = Metaspace(prepend_scheme="first", split=False)
    return _with_decoder(tokenizer)


def single_words() -> Tokenizer:
    """Return a byte-level tokenizer that finds its special tokens beside no letter."""
    definition = json.loads(make_tokenizer().to_str())
    for token in definition["added_tokens"]:
        token["single_word"] = True
    return Tokenizer.from_str(json.dumps(definition))


def all_forms() -> dict[str, Tokenizer]:
    """Return one tokenizer of each form, by a name."""
    return {
        "byte_level": make_tokenizer(),
        "single_words": single_words(),
        "prepend": llama_like(),
        "prepend_normalized": llama_like(normalized=True),
        "metaspace_first": metaspace("first"),
        "metaspace_always": metaspace("always"),
        "metaspace_never": metaspace("never"),
        "unigram": unigram(),
    }


def id_of(tokenizer: Tokenizer, token: str) -> int:
    """Return the id of a token, which there must be."""
    token_id = tokenizer.token_to_id(token)
    assert token_id is not None
    return token_id


def _bpe() -> models.BPE:
    words = [*SPECIAL[:3], *_BYTES, *_PIECES]
    return models.BPE(
        {word: index for index, word in enumerate(words)},
        _MERGES,
        unk_token="<unk>",
        fuse_unk=True,
        byte_fallback=True,
    )


def _with_decoder(tokenizer: Tokenizer, *, normalized: bool = False) -> Tokenizer:
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens([AddedToken(word, normalized=normalized) for word in SPECIAL])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", BOS)]
    )
    return tokenizer
