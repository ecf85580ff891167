"""What is written beside the language model, joined with it: does it load, and what refuses it."""

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from decoder_subject import assert_close
from jinja2.sandbox import ImmutableSandboxedEnvironment
from media_models import video_file
from PIL import Image
from recorded_engine import RecordedEngine
from safetensors.torch import load_file
from scipy.io import wavfile
from tiny_encoders import ENCODERS, save_encoder
from tiny_language import make_llama, make_opt, save_llama
from tiny_tokenizers import TOKENIZERS
from transformers import (
    AutoConfig,
    AutoProcessor,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaForConditionalGeneration,
)

from skipserve.media.data_uri import EncodedImage
from skipserve.media.preprocess import Preprocessor
from skipserve.model.config import ModelConfig
from skipserve.model.weights import weight_files
from skipserve.model_folder import model_folder
from skipserve.pretrained.joining import TRAINED_WEIGHTS, join
from skipserve.prompt.processor import PromptProcessor
from skipserve.prompt.template import ImagePart, Message, TextPart
from skipserve_client.evaluate.easy_vqa import EasySplit
from skipserve_policies.plan import Plan, trim
from skipserve_policies.sizes import MappingSizes
from skipserve_training.mapping import export
from skipserve_training.mapping.encoders import TransformersEncoder
from skipserve_training.mapping.export import CHAT_TEMPLATE, export_trained, export_whole
from skipserve_training.mapping.language import load_language_model, load_tokenizer
from skipserve_training.mapping.lessons import Exchange, PromptForm
from skipserve_training.mapping.media import load_media
from skipserve_training.mapping.packing import PICTURE, Example, pack
from skipserve_training.mapping.parts import Parts
from skipserve_training.mapping.projectors import ProjectorType, make_projector
from skipserve_training.mapping.served import open_model
from skipserve_training.mapping.tower import LabelledTower, TowerSizes
from skipserve_training.mapping.tower_export import FEATURE_LAYER, export_tower
from skipserve_training.mapping.training import answer, embed

SIZES = TowerSizes(hidden=32, ffn=48, layers=1, heads=1, side=32, patch=8)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The folders of a tower and of a language model."""
    torch.manual_seed(0)
    encoder = tmp_path_factory.mktemp("encoder")
    export_tower(LabelledTower(SIZES), encoder)
    return encoder, save_llama(tmp_path_factory.mktemp("llama"))


def _export(kind: ProjectorType, parts: tuple[Path, Path], folder: Path) -> Any:
    torch.manual_seed(1)
    sizes = MappingSizes(num_queries=3, hidden_size=16, num_layers=1, num_heads=2, ffn_size=16)
    projector = make_projector(kind, 32, 32, sizes).bfloat16().float()
    whole = Parts(
        load_language_model(parts[1], torch.float32, CPU),
        TransformersEncoder(parts[0], CPU, FEATURE_LAYER, keeps_class=False),
        projector,
        load_tokenizer(parts[1]),
    )
    export_trained(whole, projector.rows(16), folder)
    return projector


def test_transformers_answers_as_the_training_does(
    parts: tuple[Path, Path], easy_split: EasySplit, tmp_path: Path
) -> None:
    projector = _export(ProjectorType.MLP, parts, tmp_path / "trained")
    join(tmp_path / "trained", parts[1], tmp_path)
    loaded: Any = LlavaForConditionalGeneration.from_pretrained(
        tmp_path, output_loading_info=True, dtype=torch.float32
    )
    model, report = loaded
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    processor = AutoProcessor.from_pretrained(tmp_path)
    image = easy_split.load(0)
    messages = [
        {
            "role": "user",
            "content": [{"type": "image"}, {"type": "text", "text": "what color is the shape?"}],
        }
    ]
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    inputs = processor(images=image, text=text, return_tensors="pt")
    with torch.inference_mode():
        expected = model(**inputs).logits[0, -1]

    encoder = TransformersEncoder(parts[0], CPU, FEATURE_LAYER, keeps_class=False)
    language = load_language_model(parts[1], torch.float32, CPU)
    prompts = PromptForm(load_tokenizer(parts[1]), projector.rows(16), ["x"])
    example = prompts.example(Exchange("what color is the shape?", "r", "x"))
    seen: list[torch.Tensor] = []
    original = language.logits
    language.logits = lambda hidden: seen.append(original(hidden)) or seen[-1]  # type: ignore[func-returns-value,method-assign]
    answer(language, projector, encoder.encode([image]), pack([[example]]))
    torch.testing.assert_close(seen[0][0], expected, rtol=1e-4, atol=1e-4)


def test_transformers_refuses_the_mapping_modules_type_by_name(
    parts: tuple[Path, Path], tmp_path: Path
) -> None:
    _export(ProjectorType.MAPPING, parts, tmp_path)
    with pytest.raises(ValueError, match="skipserve_llava"):
        AutoConfig.from_pretrained(tmp_path)


@pytest.mark.fast
def test_the_mapping_module_says_what_it_is(parts: tuple[Path, Path], tmp_path: Path) -> None:
    _export(ProjectorType.MAPPING, parts, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["projector_type"] == "mapping"
    assert config["num_query_tokens"] == config["image_seq_length"] == 3
    assert config["projector_hidden_size"] == 16
    assert "projector_hidden_act" not in config
    tensors = load_file(tmp_path / TRAINED_WEIGHTS)
    assert {name.split(".")[0] for name in tensors} == {"vision_tower", "multi_modal_projector"}
    assert {value.dtype for value in tensors.values()} == {torch.bfloat16}
    names = {line.split()[1] for line in (tmp_path / "SHA256SUMS").read_text().splitlines()}
    assert names == {path.name for path in tmp_path.iterdir()} - {"SHA256SUMS"}


@pytest.mark.fast
@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([{"role": "user", "content": "Is it red?"}], "Question: Is it red? Answer:"),
        (
            [
                {"role": "system", "content": "Be short."},
                {
                    "role": "user",
                    "content": [{"type": "text", "text": "What?"}, {"type": "image"}],
                },
                {"role": "assistant", "content": "red"},
                {"role": "user", "content": "And now?"},
            ],
            "Be short.\n<image>Question: What? Answer: red</s>\nQuestion: And now? Answer:",
        ),
    ],
)
def test_the_chat_template(messages: list[dict[str, object]], expected: str) -> None:
    template = ImmutableSandboxedEnvironment().from_string(CHAT_TEMPLATE)
    given = template.render(messages=messages, add_generation_prompt=True, eos_token="</s>")
    assert given == expected


LANGUAGES: dict[str, Any] = {"llama": make_llama, "opt": make_opt}


def _save_language(kind: str, folder: Path, tokenizer: str = "with an image's token") -> Path:
    LANGUAGES[kind]().save_pretrained(folder)
    TOKENIZERS[tokenizer]().save_pretrained(folder)
    return folder


def _parts(language: Path, encoder: Path, layer: int = -1, *, keeps_class: bool = True) -> Parts:
    torch.manual_seed(1)
    sizes = MappingSizes(num_queries=3, hidden_size=16, num_layers=1, num_heads=2, ffn_size=16)
    return Parts(
        load_language_model(language, torch.bfloat16, CPU),
        TransformersEncoder(encoder, CPU, layer, keeps_class),
        make_projector(ProjectorType.MAPPING, 32, 32, sizes).bfloat16().float(),
        load_tokenizer(language),
    )


def _export_whole(parts: Parts, folder: Path) -> Path:
    export_trained(parts, 3, folder / "trained")
    export_whole(folder / "trained", parts, folder / "checkpoint")
    return folder / "checkpoint"


def _read(kind: str, folder: Path) -> Any:
    ENCODERS[kind].write_media(folder / "media-1", 1)
    (path,) = folder.glob("media-1*")
    return load_media(path)


def _logits(parts: Parts, media: Any) -> torch.Tensor:
    prompts = PromptForm(parts.tokenizer, 3, ["x"])
    batch = pack([[prompts.example(Exchange("is it?", "yes", "x"))]])
    rows = embed(parts.language, parts.projector, parts.encoder.encode([media]), batch)
    return parts.language.logits(parts.language.hidden(rows, batch).flatten(0, 1)[batch.rows])


@pytest.mark.fast
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", ENCODERS)
def test_every_pair_of_parts_comes_back_whole(language: str, kind: str, tmp_path: Path) -> None:
    parts = _parts(
        _save_language(language, tmp_path / "language"), save_encoder(kind, tmp_path / "encoder")
    )
    opened = open_model(_export_whole(parts, tmp_path), torch.bfloat16, CPU)
    media = _read(kind, tmp_path)
    assert opened.encoder.digest == parts.encoder.digest
    assert torch.equal(_logits(opened, media), _logits(parts, media))


@pytest.mark.fast
@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_prompt_is_the_servers(tokenizer: str, language: str, tmp_path: Path) -> None:
    """Whatever begins a text, the ids are those that a conversation becomes in the server."""
    folder = _save_language(language, tmp_path / "language", tokenizer)
    encoder = save_encoder("clip_vision_model", tmp_path / "encoder")
    parts = _parts(folder, encoder, -2, keeps_class=False)
    checkpoint = _export_whole(parts, tmp_path)
    config = ModelConfig.from_folder(checkpoint)
    text = "what is it?"
    messages = [Message("user", (ImagePart(), TextPart(text)))]
    served = PromptProcessor.from_folder(checkpoint, config).encode_chat(messages, [3])
    for each in (parts.tokenizer, open_model(checkpoint, torch.float32, CPU).tokenizer):
        example = PromptForm(each, 3, ["x"]).example(Exchange(text, "yes", "x"))
        ids = [config.image_token_id if it == PICTURE else it for it in example.prompt]
        assert ids == [*served.prompt_ids]


def _shown(kind: str, media: Any, config: ModelConfig) -> bytes:
    """Return what the server makes of the file of a medium, without loss."""
    if isinstance(media, Image.Image):
        file = video_file([media], "PNG")
    elif isinstance(media, list):
        file = video_file(media)
    else:
        buffer = BytesIO()
        wavfile.write(buffer, media.rate, media.samples)
        file = buffer.getvalue()
    preprocessor = Preprocessor.from_config(config, 10**6)
    return preprocessor.read(EncodedImage(file, kind), 10**6).pixels


@pytest.mark.fast
@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize(
    ("language", "tokenizer", "layer", "keeps_class"),
    [("opt", "OPT's", -1, True), ("llama", "LLaMA's", -2, False), ("llama", "OPT's", 1, True)],
)
def test_the_server_answers_as_the_training_does(
    language: str, tokenizer: str, layer: int, keeps_class: bool, kind: str, tmp_path: Path
) -> None:
    folder = _save_language(language, tmp_path / "language", tokenizer)
    encoder = save_encoder(kind, tmp_path / "encoder")
    parts = _parts(folder, encoder, layer, keeps_class=keeps_class)
    checkpoint = _export_whole(parts, tmp_path)
    assert model_folder(str(checkpoint)) == checkpoint
    engine, opened = RecordedEngine(checkpoint), open_model(checkpoint, torch.float32, CPU)
    media = _read(kind, tmp_path)
    plan = trim(Plan.full(2))
    answer, expected = engine.answer(_shown(kind, media, engine.config), (7, 8, 9), plan, 4)
    batch = pack([[Example((*[PICTURE] * 3, 7, 8, 9), tuple(answer), 0)]])
    rows = embed(opened.language, opened.projector, opened.encoder.encode([media]), batch)
    hidden = opened.language.hidden(rows, batch).flatten(0, 1)[batch.rows]
    assert_close(opened.language.logits(hidden).detach(), expected)
    assert opened.encoder.digest == parts.encoder.digest


@pytest.mark.fast
def test_a_vocabulary_without_room_grows(tmp_path: Path) -> None:
    """The token of an image gets a row; where nothing is likelier, it is not what is said."""
    folder = tmp_path / "language"
    config = LlamaConfig(
        vocab_size=len(TOKENIZERS["LLaMA's"]()), hidden_size=32, intermediate_size=48,
        num_hidden_layers=2, num_attention_heads=4, tie_word_embeddings=False, eos_token_id=1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    TOKENIZERS["LLaMA's"]().save_pretrained(folder)
    encoder = save_encoder("clip_vision_model", tmp_path / "encoder")
    parts = _parts(folder, encoder, -2, keeps_class=False)
    checkpoint = _export_whole(parts, tmp_path)
    opened = open_model(checkpoint, torch.float32, CPU)
    assert opened.language.config.vocab_size == 128
    assert opened.tokenizer.convert_tokens_to_ids("<image>") == config.vocab_size
    logits = opened.language.logits(torch.randn(5, 32))
    assert torch.equal(logits[:, config.vocab_size :], logits[:, :1].expand(-1, 128 - 98))
    RecordedEngine(checkpoint)


@pytest.mark.fast
def test_large_language_models_are_written_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_SHARD", 20_000)
    encoder = save_encoder("vit", tmp_path / "encoder")
    parts = _parts(_save_language("llama", tmp_path / "language"), encoder)
    checkpoint = _export_whole(parts, tmp_path)
    pieces = [path for path in weight_files(checkpoint) if path.name.startswith("language")]
    assert len(pieces) > 1
    assert all(path.stat().st_size < 30_000 for path in pieces)
    media = _read("vit", tmp_path)
    opened = open_model(checkpoint, torch.bfloat16, CPU)
    assert torch.equal(_logits(opened, media), _logits(parts, media))
