"""Tests of the tokenizer, against the library that it wraps."""

import json
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tiny_llava import make_tokenizer
from tokenizer_forms import BOS, EOS, SPECIAL, all_forms, id_of, llama_like
from tokenizers import AddedToken, models, normalizers
from tokenizers import Tokenizer as FastTokenizer

from skipserve.prompt.tokenizer import Tokenizer
from skipserve.prompt.tokenizer_files import TokenizerFilesError

pytestmark = pytest.mark.fast

KINDS = all_forms()
OURS = {kind: Tokenizer(theirs.to_str()) for kind, theirs in KINDS.items()}
BY_KIND = pytest.mark.parametrize("kind", KINDS)
# What is near to special tokens, and what tokenizers treat in ways of their own.
PIECES = st.sampled_from(
    [
        "<",
        ">",
        "s>",
        "</",
        "<s",
        "image>",
        "<ima",
        "ge>",
        "a",
        "ab",
        " ",
        "  ",
        "\n",
        "\u2581",
        "é",
        "😀",
    ]
)
TEXTS = st.one_of(st.text(), st.lists(PIECES).map("".join))


@BY_KIND
@given(text=TEXTS, adds_special=st.booleans())
def test_encodes_as_the_library_does(kind: str, text: str, adds_special: bool) -> None:
    expected = KINDS[kind].encode(text, add_special_tokens=adds_special).ids
    assert OURS[kind].encode(text, adds_special=adds_special) == expected


@BY_KIND
@given(texts=st.lists(TEXTS, min_size=1, max_size=3))
@example(texts=["> is this"])
@example(texts=["is this <"])
@example(texts=["</"])
@example(texts=["<ima", "ge>"])
def test_guarded_texts_encode_as_the_whole_does(kind: str, texts: list[str]) -> None:
    """Where texts spell no special token, guarding them changes nothing."""
    texts = [text.encode(errors="replace").decode() for text in texts]
    ours = OURS[kind]

    def prompt(texts: list[str]) -> str:
        return "USER: <image>\n" + " <image>".join(texts) + " ASSISTANT: a</s>b"

    if any(word in text for text in texts for word in SPECIAL):
        return
    expected = KINDS[kind].encode(prompt(texts)).ids
    assert ours.encode(prompt([ours.guard(text) for text in texts]), adds_special=True) == expected


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "unigram"])
@given(text=st.lists(st.sampled_from(["<s>", "</s>", "<image>", "<", " ", "a", "b"])).map("".join))
def test_special_tokens_in_guarded_text_encode_as_any_other_words(kind: str, text: str) -> None:
    theirs = FastTokenizer.from_str(KINDS[kind].to_str())
    theirs.encode_special_tokens = True
    ids = OURS[kind].encode(OURS[kind].guard(text), adds_special=False)
    assert ids == theirs.encode(text, add_special_tokens=False).ids


@BY_KIND
@given(
    before=st.sampled_from(["", " ", "\n "]),
    text=st.sampled_from(["<s>", "</s> a", "<ima", "ge>"]),
    after=st.sampled_from(["", " "]),
)
def test_guarded_texts_may_be_stripped(kind: str, before: str, text: str, after: str) -> None:
    """Many templates strip what a message says."""
    ours = OURS[kind]
    prompt = "<ima" + ours.guard(before + text + after).strip() + ours.guard(before + "ge>").strip()
    ids = ours.encode(prompt, adds_special=False)
    assert not {id_of(KINDS[kind], word) for word in SPECIAL[1:]} & set(ids)


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


# The library shows special tokens that it finds in normalised text.
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "prepend_normalized"])
@given(ids=st.lists(st.integers(0, 255)))
def test_bytes_decode_as_the_library_does(kind: str, ids: list[int]) -> None:
    text = b"".join(map(OURS[kind].token_bytes, ids)).decode(errors="replace")
    if kind not in {"byte_level", "single_words"}:
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


def test_a_broken_file() -> None:
    with pytest.raises(TokenizerFilesError, match="cannot be read"):
        Tokenizer("{}")


def test_a_decoder_that_is_not_known() -> None:
    definition = json.loads(make_tokenizer().to_str())
    definition["decoder"] = {"type": "BPEDecoder", "suffix": "</w>"}
    with pytest.raises(TokenizerFilesError, match="BPEDecoder"):
        Tokenizer(json.dumps(definition))


SPACES = {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}
METASPACE = {
    "type": "Metaspace",
    "replacement": "\u2581",
    "prepend_scheme": "always",
    "split": True,
}


@pytest.mark.parametrize(
    "decoders",
    [
        [SPACES, {"type": "ByteFallback"}, {"type": "Fuse"}],
        [{"type": "Sequence", "decoders": [{"type": "ByteFallback"}, METASPACE]}],
        [SPACES, {"type": "Fuse"}],
        [METASPACE],
    ],
)
def test_forms_of_decoders(decoders: list[dict[str, object]]) -> None:
    definition = json.loads(llama_like().to_str())
    definition["decoder"] = {"type": "Sequence", "decoders": decoders}
    theirs = FastTokenizer.from_str(json.dumps(definition))
    ours = Tokenizer(json.dumps(definition))
    for text in ("ab b", "é a", "😀"):
        ids = theirs.encode(text, add_special_tokens=False).ids
        decoded = b"".join(map(ours.token_bytes, ids)).decode().removeprefix(" ")
        assert decoded == theirs.decode(ids).removeprefix(" ")


@pytest.mark.parametrize(
    "step",
    [
        {"type": "Replace", "pattern": {"String": "a"}, "content": "b"},
        {"type": "Strip", "content": " ", "start": 0, "stop": 1},
        METASPACE | {"replacement": "_"},
        {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    ],
)
def test_decoders_that_do_more_than_is_followed_are_refused(step: dict[str, object]) -> None:
    definition = json.loads(llama_like().to_str())
    definition["decoder"]["decoders"].append(step)
    with pytest.raises(TokenizerFilesError, match=f"not supported .*{step['type']}"):
        Tokenizer(json.dumps(definition))


@pytest.mark.parametrize(
    "normalizer",
    [
        normalizers.Lowercase(),
        normalizers.NFKC(),
        normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]),
        normalizers.BertNormalizer(),
    ],
)
def test_reserved_words_that_others_are_normalised_to_are_refused(
    normalizer: normalizers.Normalizer,
) -> None:
    """What spells them could not be told from any other text."""
    definition = make_tokenizer()
    definition.normalizer = normalizer
    Tokenizer(definition.to_str())
    fields = json.loads(definition.to_str())
    fields["added_tokens"][4]["normalized"] = True
    with pytest.raises(TokenizerFilesError, match="'<image>' is found in text that is normalised"):
        Tokenizer(json.dumps(fields))


def test_s27_guarding_takes_linear_time() -> None:
    ours = OURS["byte_level"]

    def seconds(count: int) -> float:
        begun = time.thread_time()
        ours.encode(ours.guard("<image>" * count), adds_special=False)
        return time.thread_time() - begun

    seconds(1000)
    assert seconds(40_000) < 40 * max(seconds(4_000), 0.01)


def trained(definition: FastTokenizer) -> FastTokenizer:
    """Return a tokenizer as training leaves it."""
    definition.enable_padding(length=40, pad_token="</s>", pad_id=EOS)
    definition.enable_truncation(3)
    return definition


@BY_KIND
def test_what_training_leaves_is_off(kind: str) -> None:
    definition = trained(FastTokenizer.from_str(KINDS[kind].to_str()))
    ours = Tokenizer(definition.to_str())
    for text in ("a b a b a b", ours.guard("<s> a b a b")):
        assert ours.encode(text, adds_special=True) == OURS[kind].encode(
            text.replace(ours.guard("<s>"), OURS[kind].guard("<s>")), adds_special=True
        )


def test_words_are_not_split_at_random() -> None:
    definition = json.loads(llama_like().to_str())
    definition["model"]["dropout"] = 0.9
    ours = Tokenizer(json.dumps(definition))
    expected = OURS["prepend"].encode("ab ab ab", adds_special=False)
    assert all(ours.encode("ab ab ab", adds_special=False) == expected for _ in range(20))


def test_added_words_are_tokens_in_texts_too_unless_reserved() -> None:
    definition = make_tokenizer()
    definition.add_tokens([AddedToken("    ", normalized=False), AddedToken("<|user|>")])
    spaces, user = id_of(definition, "    "), id_of(definition, "<|user|>")
    text = "a    b<|user|>"
    plain = Tokenizer(definition.to_str())
    assert {spaces, user} <= set(plain.encode(plain.guard(text), adds_special=False))
    ours = Tokenizer(definition.to_str(), reserves={"<|user|>"})
    ids = ours.encode("<|user|>" + ours.guard(text), adds_special=False)
    assert ids.count(user) == 1
    assert ids.count(spaces) == 1
    assert b"".join(map(ours.token_bytes, ids[1:])) == text.encode()


def test_a_reserved_word_that_merges_could_build() -> None:
    words = ["<unk>", "a", "b", "ab"]
    definition = FastTokenizer(
        models.BPE({w: i for i, w in enumerate(words)}, [("a", "b")], unk_token="<unk>")
    )
    definition.decoder = make_tokenizer().decoder
    definition.add_special_tokens(["ab"])
    ours = Tokenizer(definition.to_str())
    assert ours.encode("ab" + ours.guard("ab"), adds_special=False) == [3, 1, 2]


def test_hidden_tokens() -> None:
    assert OURS["byte_level"].hidden_tokens == {
        "<unk>": 0,
        "<s>": 1,
        "</s>": 2,
        "<pad>": 3,
        "<image>": 4,
    }
