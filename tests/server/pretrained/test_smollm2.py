"""SmolLM2 out of a GGUF file, on a small file of the same kind."""

from pathlib import Path

import pytest
import torch
from tiny_gguf import CONFIG, make_llama, write_gguf
from transformers import AutoTokenizer, LlamaForCausalLM

from skipserve.pretrained.smollm2 import END_ID, IMAGE_ID, read_smollm2, write_language_model


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LlamaForCausalLM]:
    model = make_llama()
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(path, model)
    return path, model


def test_the_converted_model_is_the_one_in_the_file(
    written: tuple[Path, LlamaForCausalLM], tmp_path: Path
) -> None:
    path, original = written
    write_language_model(read_smollm2(path), tmp_path)
    loaded = LlamaForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert loaded.config.rms_norm_eps == CONFIG.rms_norm_eps
    assert loaded.config.max_position_embeddings == 128
    ids = torch.arange(20)[None]
    with torch.inference_mode():
        torch.testing.assert_close(loaded(ids).logits, original(ids).logits)


def test_the_tokenizer_merges_cuts_digits_and_knows_the_image(
    written: tuple[Path, LlamaForCausalLM], tmp_path: Path
) -> None:
    write_language_model(read_smollm2(written[0]), tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer("<image>ab ab 12<|im_end|>").input_ids
    assert [tokenizer.convert_ids_to_tokens(one) for one in ids] == [
        "<image>",
        "ab",
        "Ġab",
        "Ġ",
        "1",
        "2",
        "<|im_end|>",
    ]
    assert (ids[0], ids[-1]) == (IMAGE_ID, END_ID)
    assert tokenizer.decode(ids, skip_special_tokens=True) == "ab ab 12"


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "note.gguf"
    path.write_text("no model at all, but long enough to hold a header")
    with pytest.raises(ValueError, match=r"note\.gguf is no GGUF file"):
        read_smollm2(path)
    write_gguf(tmp_path / "other.gguf", make_llama(), "gemma")
    with pytest.raises(ValueError, match="type 'gemma': expected 'llama'"):
        read_smollm2(tmp_path / "other.gguf")
