"""Tests of the tokenizer, against the library that it wraps."""

import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_llava import make_tokenizer
from tokenizers import AddedToken, decoders, models, normalizers, processors
from tokenizers import Tokenizer as FastTokenizer

from skipserve.prompt.tokenizer import GUARD, Tokenizer, TokenizerFilesError

pytestmark = pytest.mark.fast

BOS, EOS, IMAGE = 1, 2, 4


def llama_like() -> FastTokenizer:
    """A tokenizer built as LLaVA-1.5's is: SentencePiece pieces with byte fallback."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words += ["\u2581", "a", "b", "\u2581a", "ab", "\u2581ab"]
    merges = [("\u2581", "a"), ("a", "b"), ("\u2581a", "b")]
    tokenizer = FastTokenizer(
        models.BPE(
            {word: index for index, word in enumerate(words)},
            merges,
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("\u2581", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(
        [AddedToken(word, normalized=False) for word in ("<unk>", "<s>", "</s>", "<image>")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return tokenizer


def id_of(tokenizer: FastTokenizer, token: str) -> int:
    token_id = tokenizer.token_to_id(token)
    assert token_id is not None
    return token_id


KINDS = {"byte_level": make_tokenizer(), "sentencepiece": llama_like()}
OURS = {kind: Tokenizer(theirs.to_str()) for kind, theirs in KINDS.items()}
BY_KIND = pytest.mark.parametrize("kind", KINDS)


@BY_KIND
@given(text=st.text(), adds_special=st.booleans())
def test_encodes_as_the_library_does(kind: str, text: str, adds_special: bool) -> None:
    text = text.replace(GUARD, "")
    expected = KINDS[kind].encode(text, add_special_tokens=adds_special).ids
    assert OURS[kind].encode(text, adds_special=adds_special) == expected


@BY_KIND
def test_special_tokens_are_special_unless_guarded(kind: str) -> None:
    theirs, ours = KINDS[kind], OURS[kind]
    image = id_of(theirs, "<image>")
    ids = ours.encode(f"a <image> b {ours.guard('<image></s>')} <image>", adds_special=True)
    assert ids.count(image) == 2
    assert ids[0] == BOS
    assert EOS not in ids
    assert ids[-1] == image


@BY_KIND
@given(parts=st.lists(st.sampled_from(["<image>", "</s>", "<", "s>", "</", "ima", "ge>", "a"])))
def test_guarded_parts_never_join_to_a_special_token(kind: str, parts: list[str]) -> None:
    theirs, ours = KINDS[kind], OURS[kind]
    ids = ours.encode("".join(ours.guard(part) for part in parts), adds_special=False)
    assert not {id_of(theirs, word) for word in ("<image>", "</s>", "<s>")} & set(ids)


def test_guarded_text_keeps_its_meaning() -> None:
    ours = OURS["byte_level"]
    ids = ours.encode(ours.guard("see <image> here"), adds_special=False)
    assert b"".join(map(ours.token_bytes, ids)) == b"see <image> here"


@BY_KIND
@given(ids=st.lists(st.integers(0, 255)))
def test_bytes_decode_as_the_library_does(kind: str, ids: list[int]) -> None:
    text = b"".join(map(OURS[kind].token_bytes, ids)).decode(errors="replace")
    if kind == "sentencepiece":
        text = text.removeprefix(" ")
    expected = KINDS[kind].decode(ids, skip_special_tokens=True)
    # The library gives one mark for each byte of a broken run, Python one for the run.
    if "\ufffd" not in expected:
        assert text == expected


def test_byte_level_decodes_broken_characters_as_the_library_does() -> None:
    ids = [id_of(KINDS["byte_level"], token) for token in "âĤ"]
    text = b"".join(map(OURS["byte_level"].token_bytes, ids)).decode(errors="replace")
    assert text == KINDS["byte_level"].decode(ids)


def test_a_token_as_text() -> None:
    ours = OURS["byte_level"]
    the = id_of(KINDS["byte_level"], "Ġthe")
    assert ours.token_text(the) == " the"
    assert ours.token_text(EOS) == "</s>"
    assert ours.token_bytes(EOS) == b""
    assert ours.token_text(10**6) == ""


def test_the_longest_token() -> None:
    assert OURS["byte_level"].longest_token == len("<image>")


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(TokenizerFilesError, match=r"no tokenizer\.json"):
        Tokenizer.from_folder(tmp_path)


def test_a_broken_file() -> None:
    with pytest.raises(TokenizerFilesError, match="cannot be read"):
        Tokenizer("{}")


def test_a_decoder_that_is_not_known() -> None:
    definition = json.loads(make_tokenizer().to_str())
    definition["decoder"] = {"type": "BPEDecoder", "suffix": "</w>"}
    with pytest.raises(TokenizerFilesError, match="BPEDecoder"):
        Tokenizer(json.dumps(definition))


def test_s27_guarding_takes_linear_time() -> None:
    ours = OURS["byte_level"]

    def seconds(count: int) -> float:
        begun = time.perf_counter()
        ours.encode(ours.guard("<image>" * count), adds_special=False)
        return time.perf_counter() - begun

    seconds(1000)
    assert seconds(40_000) < 40 * max(seconds(4_000), 0.01)
