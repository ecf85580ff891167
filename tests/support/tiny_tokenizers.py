"""Tokenizers as language models bring them: with and without a token that begins each text."""

from collections.abc import Callable

from tiny_language import LETTERS, make_tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

_CHARACTERS = [chr(code) for code in range(33, 127)]
_MARK = "▁"  # what SentencePiece writes a space as


def _make_starting() -> PreTrainedTokenizerFast:
    """Make a byte-level tokenizer that begins with `</s>`, as OPT's; none has an image's token."""
    words = ["<pad>", "</s>", *LETTERS]
    tokenizer = Tokenizer(models.BPE({word: index for index, word in enumerate(words)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing("</s> $A", None, [("</s>", 1)])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", bos_token="</s>"
    )


def _make_pieces(*, only_first: bool) -> PreTrainedTokenizerFast:
    """Make a tokenizer as LLaMA's: `<s>` begins a text, and a space each stretch or the first."""
    words = ["<unk>", "</s>", "<s>", _MARK, *_CHARACTERS]
    model = models.BPE({word: index for index, word in enumerate(words)}, [], unk_token="<unk>")
    tokenizer = Tokenizer(model)
    if only_first:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend(_MARK), normalizers.Replace(" ", _MARK)]
        )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(_MARK, " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", None, [("<s>", 2)])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, unk_token="<unk>", eos_token="</s>", bos_token="<s>"
    )


TOKENIZERS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "with an image's token": make_tokenizer,
    "OPT's": _make_starting,
    "LLaMA's": lambda: _make_pieces(only_first=False),
    "LLaMA's of later": lambda: _make_pieces(only_first=True),
}
