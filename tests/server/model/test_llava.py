"""The full model against transformers' LlavaForConditionalGeneration, on random checkpoints."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from model_batches import Piece, Rows, forward, poisoned_cache, run_whole, scattered_pages
from safetensors.torch import load_file, save_file
from tiny_llava import DecoderType, Naming, TowerType, make_checkpoint
from tiny_opt import OptShape
from torch import Tensor
from transformers import LlavaForConditionalGeneration
from transformers.generation.utils import GenerateDecoderOnlyOutput

from skipserve.model.config import ModelConfig, ModelFilesError
from skipserve.model.decoder import Decoder
from skipserve.model.llava import Llava
from skipserve.model.weights import Weights
from skipserve_policies.plan import Plan, TokenClass, trim

IMAGE = 4
GREEDY_STEPS = 32

# A shape and a prompt: t is text, i an image.
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "4 layers, image in the middle": ({}, "ttit"),
    "image first, without BOS": ({"seed": 1}, "itt"),
    "image last": ({"seed": 2}, "tti"),
    "two images": ({"num_layers": 6, "num_kv_heads": 2}, "titi"),
    "two images side by side": ({"seed": 3}, "tiit"),
    "no image": ({"num_layers": 8, "num_kv_heads": 1}, "ttttt"),
    "40 layers": ({"num_layers": 40, "hidden": 32, "ffn": 48, "num_kv_heads": 2}, "tit"),
    "grouped queries, wide heads": (
        {"num_layers": 5, "num_heads": 8, "num_kv_heads": 2, "head_dim": 16},
        "tittt",
    ),
    "one row": ({}, "t"),
    "wide enough for reordered weights": (
        {"num_layers": 2, "hidden": 512, "num_heads": 8, "num_kv_heads": 8, "ffn": 1408},
        "tit",
    ),
    "names of transformers 5": ({"naming": Naming.VERSION_5}, "tit"),
    "three files": ({"num_shards": 3}, "tit"),
    "tied head": ({"tie": True}, "tit"),
    "last vision layer": ({"feature_layer": -1}, "tit"),
    "first vision layer, class token kept": (
        {"feature_layer": 1, "select_strategy": "full"},
        "tit",
    ),
    "several vision layers": ({"feature_layer": (-2, 1), "select_strategy": "full"}, "tit"),
    **{
        f"{decoder} and {tower}": (
            {
                "decoder": decoder,
                "tower": tower,
                "select_strategy": "default" if tower is TowerType.CLIP else "full",
                "num_kv_heads": 2,
            },
            "tit",
        )
        for decoder in DecoderType
        for tower in TowerType
        if (decoder, tower) != (DecoderType.LLAMA, TowerType.CLIP)
    },
    "siglip's last layer, names of transformers 5": (
        {
            "tower": TowerType.SIGLIP,
            "select_strategy": "full",
            "feature_layer": -1,
            "naming": Naming.VERSION_5,
        },
        "itt",
    ),
    "several of siglip's layers": (
        {"tower": TowerType.SIGLIP, "select_strategy": "full", "feature_layer": (1, -2)},
        "tit",
    ),
    "siglip's patches do not fill the image": (
        {"tower": TowerType.SIGLIP, "select_strategy": "full", "patch_size": 8},
        "tiit",
    ),
    "siglip without a head": (
        {
            "tower": TowerType.SIGLIP,
            "select_strategy": "full",
            "vision_config": (("vision_use_head", False), ("hidden_act", "gelu")),
        },
        "tit",
    ),
    "projector without bias": ({"projector_bias": False}, "tit"),
    "scaled rotary embedding": (
        {"text_config": (("rope_scaling", {"rope_type": "linear", "factor": 4.0}),)},
        "tit",
    ),
    "rotary embedding of llama 3": (
        {
            "text_config": (
                (
                    "rope_parameters",
                    {
                        "rope_type": "llama3",
                        "rope_theta": 500000.0,
                        "factor": 8.0,
                        "low_freq_factor": 1.0,
                        "high_freq_factor": 4.0,
                        "original_max_position_embeddings": 32,
                    },
                ),
                ("rope_theta", None),
            )
        },
        "tit",
    ),
    "rotary parameters of transformers 5": (
        {
            "text_config": (
                ("rope_parameters", {"rope_type": "default", "rope_theta": 500.0}),
                ("rope_theta", None),
            )
        },
        "tit",
    ),
    "OPT": ({"opt": OptShape()}, "titi"),
    "OPT, names of transformers 5": ({"opt": OptShape(), "naming": Naming.VERSION_5}, "tit"),
    "OPT, post-norm": ({"opt": OptShape(is_post_norm=True)}, "tit"),
    "OPT, no last normalisation": ({"opt": OptShape(removes_last_norm=True)}, "tit"),
    "OPT, no weights but matrices": ({"opt": OptShape(has_biases=False, has_gains=False)}, "tit"),
    "OPT, another activation": ({"opt": OptShape(activation="gelu_new")}, "tit"),
    "OPT, wide enough for reordered weights": (
        {"opt": OptShape(), "num_layers": 2, "hidden": 512, "num_heads": 8, "ffn": 2048},
        "tit",
    ),
}


class Pictured:
    """A prompt with random ids and pictures, as the oracle and as the product take it."""

    def __init__(self, model: Llava, prompt: str) -> None:
        generator = torch.Generator().manual_seed(len(prompt))
        num_visual = model.config.sizes.rows_per_image
        ids: list[int] = []
        for letter in prompt:
            word = torch.randint(5, 300, (3,), generator=generator).tolist()
            ids += [IMAGE] * num_visual if letter == "i" else word
        ids = ids[:1] if prompt == "t" else ids
        size = model.config.sizes.vision.image_size
        shape = (prompt.count("i"), size, size, 3)
        self.pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
        self.ids = torch.tensor(ids)
        self.is_visual = self.ids == IMAGE

    def rows(self, model: Llava, generated: tuple[int, ...] = ()) -> Rows:
        classes = [TokenClass.VISUAL if v else TokenClass.TEXT for v in self.is_visual]
        classes[-1] = TokenClass.LAST
        ids = torch.cat((self.ids, torch.tensor(generated, dtype=torch.int64)))
        features = torch.zeros(0, model.config.sizes.decoder.embedding_size)
        if len(self.pixels):
            features = model.encode_images(self.pixels.to(model.device)).flatten(0, 1).cpu()
        is_visual = torch.zeros(len(ids), dtype=torch.bool)
        is_visual[: len(self.ids)] = self.is_visual
        return Rows(ids, (*classes, *[TokenClass.GENERATED] * len(generated)), features, is_visual)

    def inputs(self, model: Llava) -> dict[str, Any]:
        """Return the oracle's arguments."""
        ids = self.ids.unsqueeze(0)
        arguments = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if len(self.pixels):
            mean = torch.tensor(model.config.image_processor.mean)
            std = torch.tensor(model.config.image_processor.std)
            normalised = (self.pixels / 255 - mean) / std
            arguments["pixel_values"] = normalised.permute(0, 3, 1, 2)
        return arguments


def load_both(
    folder: Path, shape: dict[str, Any], device: torch.device
) -> tuple[Llava, LlavaForConditionalGeneration]:
    """Return the model on the device, and the oracle on the CPU."""
    make_checkpoint(folder, **shape)
    oracle = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    return Llava.load(folder, device, torch.float32), oracle.eval()


def check_logits(model: Llava, oracle: LlavaForConditionalGeneration, pictured: Pictured) -> None:
    """Compare the logits of every row, untrimmed, and of the last one, trimmed."""
    with torch.inference_mode():
        expected = oracle(**pictured.inputs(model)).logits[0]
    rows = pictured.rows(model)
    full = Plan.full(model.config.sizes.decoder.num_layers)
    scale = expected.abs().max()
    actual = run_whole(model, rows, full, range(len(rows)))
    assert (actual - expected).abs().max() <= 1e-4 * scale
    last = run_whole(model, rows, trim(full), [len(rows) - 1])
    assert (last[0] - expected[-1]).abs().max() <= 1e-4 * scale


def check_greedy(model: Llava, oracle: LlavaForConditionalGeneration, pictured: Pictured) -> int:
    """Compare greedy tokens until the oracle's best two are too near; return how many."""
    oracle.generation_config.eos_token_id = None
    generate: Any = oracle.generate  # what it asks of self is typed in some versions only
    generated = generate(
        **pictured.inputs(model),
        max_new_tokens=GREEDY_STEPS,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
    )
    assert isinstance(generated, GenerateDecoderOnlyOutput)
    assert generated.logits is not None
    tokens = generated.sequences[0, -GREEDY_STEPS:].tolist()
    plan = trim(Plan.full(model.config.sizes.decoder.num_layers))
    num_positions = len(pictured.ids) + GREEDY_STEPS
    cache = poisoned_cache(model, num_positions)
    (pages,) = scattered_pages(num_positions)
    rows = pictured.rows(model, tuple(tokens))
    start, stop = 0, len(pictured.ids)
    for step, (token, oracle_logits) in enumerate(zip(tokens, generated.logits, strict=True)):
        piece = Piece(rows, plan, start, stop, pages)
        logits = forward(model, [piece], [stop - start - 1], cache)
        expected = oracle_logits[0]
        tolerance = 1e-4 * expected.abs().max()
        assert (logits[0] - expected).abs().max() <= tolerance
        best, second = expected.topk(2).values
        if best - second < tolerance:
            return step
        assert logits[0].argmax() == token
        start, stop = stop, stop + 1
    return GREEDY_STEPS


@pytest.mark.parametrize("case", CASES)
def test_the_full_model_equals_transformers(
    tmp_path: Path, case: str, device: torch.device
) -> None:
    shape, prompt = CASES[case]
    model, oracle = load_both(tmp_path, shape, device)
    pictured = Pictured(model, prompt)
    check_logits(model, oracle, pictured)
    assert check_greedy(model, oracle, pictured) >= 8


@pytest.mark.fast
def test_one_small_model_equals_transformers(tmp_path: Path, device: torch.device) -> None:
    model, oracle = load_both(tmp_path, {}, device)
    check_logits(model, oracle, Pictured(model, "tit"))


WINDOWS: dict[str, dict[str, Any]] = {
    "mistral": {"decoder": DecoderType.MISTRAL},
    "qwen2": {
        "decoder": DecoderType.QWEN2,
        "text_config": (("use_sliding_window", True), ("max_window_layers", 1)),
    },
}


@pytest.mark.fast
@pytest.mark.parametrize("kind", WINDOWS)
def test_a_context_as_long_as_the_window_is_exact_and_a_longer_one_is_not(
    tmp_path: Path, device: torch.device, kind: str
) -> None:
    shape = {"num_layers": 2, **WINDOWS[kind]}
    whole, _ = load_both(tmp_path / "whole", shape, device)
    pictured = Pictured(whole, "tit")
    num_rows, plan = len(pictured.ids), trim(Plan.full(2))
    ours = run_whole(whole, pictured.rows(whole), plan, [num_rows - 1])[0]
    is_exact = []
    for window in (num_rows, num_rows - 1):
        text = (*shape.get("text_config", ()), ("sliding_window", window))
        model, oracle = load_both(tmp_path / str(window), shape | {"text_config": text}, device)
        assert (model.config.max_positions, model.config.declared_positions) == (window, 512)
        with torch.inference_mode():
            theirs = oracle(**pictured.inputs(model)).logits[0, -1]
        is_exact.append(bool((ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()))
    assert is_exact == [True, False]


def test_biases_of_the_decoder_are_used(tmp_path: Path, device: torch.device) -> None:
    oracle_folder = tmp_path / "biased"
    make_checkpoint(
        tmp_path, text_config=(("attention_bias", True), ("mlp_bias", True)), num_layers=2
    )
    with pytest.raises(ModelFilesError, match=r"q_proj\.bias"):
        Llava.load(tmp_path, device, torch.float32)
    # transformers makes up the missing biases; as zeros, so they are set here.
    oracle = LlavaForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32)
    for name, parameter in oracle.named_parameters():
        if name.endswith("bias") and "language_model" in name:
            torch.nn.init.normal_(parameter)
    oracle.save_pretrained(oracle_folder)
    model = Llava.load(oracle_folder, device, torch.float32)
    check_logits(model, oracle.eval(), Pictured(model, "tit"))


EMBEDDING, HEAD = "language_model.model.embed_tokens.weight", "language_model.lm_head.weight"


def write_ends(folder: Path, stored: str, **shape: Any) -> None:
    """Write a checkpoint that holds a head of its own, the embedding twice, or one of the two."""
    make_checkpoint(folder, num_layers=2, **shape)
    tensors = load_file(folder / "model.safetensors")
    match stored:
        case "equal":
            tensors[HEAD] = tensors[EMBEDDING].clone()
        case "embedding":
            del tensors[HEAD]
        case "head":
            del tensors[EMBEDDING]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.fast
@pytest.mark.parametrize("stored", ["differing", "equal", "embedding", "head"])
@pytest.mark.parametrize(
    ("top", "text"), [(True, True), (True, False), (False, True), (None, True), (True, None)]
)
def test_embedding_and_head_are_tied_as_in_transformers(
    tmp_path: Path, stored: str, top: bool | None, text: bool | None, device: torch.device
) -> None:
    tying = {"top_config": top, "text_config": text}
    shape = {part: (("tie_word_embeddings", value),) for part, value in tying.items()}
    write_ends(tmp_path, stored, **shape)
    oracle = LlavaForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32)
    model = Llava.load(tmp_path, device, torch.float32)
    check_logits(model, oracle.eval(), Pictured(model, "tit"))


class NotingWeights(Weights):
    """Notes what is kept in memory."""

    def take(self, name: str, *shape: int) -> Tensor:
        """Read one tensor."""
        self.taken: list[str] = [*getattr(self, "taken", []), name]
        return super().take(name, *shape)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("stored", "taken"),
    [
        ("differing", ["head.weight", "decoder.embed_tokens.weight"]),
        ("equal", ["decoder.embed_tokens.weight"]),
        ("embedding", ["decoder.embed_tokens.weight"]),
        ("head", ["head.weight"]),
    ],
)
def test_tied_ends_are_in_memory_once(
    tmp_path: Path, stored: str, taken: list[str], device: torch.device
) -> None:
    write_ends(tmp_path, stored, top_config=(("tie_word_embeddings", True),))
    config = ModelConfig.from_folder(tmp_path)
    with NotingWeights(tmp_path, device, torch.float32, torch.float32) as weights:
        Decoder.load(config, weights, uses_triton=False)
    assert [name for name in weights.taken if "embed" in name or "head" in name] == taken


@pytest.mark.fast
@pytest.mark.parametrize("stored", ["differing", "equal"])
def test_a_head_that_is_not_tied_is_its_own(
    tmp_path: Path, stored: str, device: torch.device
) -> None:
    write_ends(tmp_path, stored)
    oracle = LlavaForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.float32)
    model = Llava.load(tmp_path, device, torch.float32)
    check_logits(model, oracle.eval(), Pictured(model, "tit"))


@pytest.mark.fast
@pytest.mark.parametrize(
    ("stored", "message"),
    [("embedding", r"no head \(lm_head\.weight\).*tie_word_embeddings"), ("head", "embed_tokens")],
)
def test_an_end_that_is_neither_stored_nor_tied_is_refused(
    tmp_path: Path, stored: str, message: str, device: torch.device
) -> None:
    write_ends(tmp_path, stored)
    with pytest.raises(ModelFilesError, match=message):
        Llava.load(tmp_path, device, torch.float32)


@pytest.mark.fast
def test_a_tied_head_of_another_size_is_refused(tmp_path: Path, device: torch.device) -> None:
    write_ends(tmp_path, "differing", top_config=(("tie_word_embeddings", True),))
    tensors = load_file(tmp_path / "model.safetensors")
    save_file(tensors | {HEAD: torch.ones(321, 64)}, tmp_path / "model.safetensors")
    with pytest.raises(ModelFilesError, match=r"lm_head.*\[321, 64\].*\[320, 64\]"):
        Llava.load(tmp_path, device, torch.float32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    "shape",
    [{"hidden": 64}, {"hidden": 320}, {"hidden": 320, "opt": OptShape(is_post_norm=True)}],
    ids=str,
)
def test_16_bit_models_are_near_the_float32_one(
    tmp_path: Path, dtype: torch.dtype, shape: dict[str, Any], device: torch.device
) -> None:
    make_checkpoint(tmp_path, num_heads=4, dtype=dtype, **shape)
    exact, rounded = (Llava.load(tmp_path, device, d) for d in (torch.float32, dtype))
    assert rounded.dtype is dtype
    plan = trim(Plan.full(4))
    pictured = Pictured(exact, "titt")
    last = len(pictured.ids) - 1
    expected = run_whole(exact, pictured.rows(exact), plan, [last])
    actual = run_whole(rounded, pictured.rows(rounded), plan, [last])
    assert actual.dtype is torch.float32
    assert (actual - expected).abs().max() <= 0.05 * expected.abs().max()


def test_weights_are_rounded_to_the_type_that_is_asked_for(
    tmp_path: Path, device: torch.device
) -> None:
    make_checkpoint(tmp_path / "wide", dtype=torch.float32)
    make_checkpoint(tmp_path / "narrow", dtype=torch.bfloat16)
    wide, narrow = (
        Llava.load(tmp_path / name, device, torch.bfloat16) for name in ("wide", "narrow")
    )
    pictured = Pictured(wide, "tit")
    plan = Plan.full(4)
    assert torch.equal(
        run_whole(wide, pictured.rows(wide), plan, [5]),
        run_whole(narrow, pictured.rows(narrow), plan, [5]),
    )


@pytest.mark.fast
def test_an_id_at_a_visual_row_is_not_looked_up(tmp_path: Path, device: torch.device) -> None:
    make_checkpoint(tmp_path)
    model = Llava.load(tmp_path, device, torch.float32)
    rows = Pictured(model, "tit").rows(model)
    outside = torch.where(rows.is_visual, 10**6, rows.ids)
    plan = Plan.full(4)
    expected = run_whole(model, rows, plan, [len(rows) - 1])
    assert torch.equal(
        run_whole(model, replace(rows, ids=outside), plan, [len(rows) - 1]), expected
    )


@pytest.mark.fast
def test_what_transformers_refuses_is_refused(tmp_path: Path, device: torch.device) -> None:
    make_checkpoint(tmp_path, text_config=(("attention_dropout", "none"),))
    with pytest.raises(ModelFilesError, match="attention_dropout") as refused:
        Llava.load(tmp_path, device, torch.float32)
    assert "\n" not in str(refused.value)


@pytest.mark.fast
@pytest.mark.parametrize("part", ["text_config", "vision_config"])
@pytest.mark.parametrize("dtype", ["torch.float16", "auto", "float"])
def test_parts_may_declare_a_type_in_any_way(
    tmp_path: Path, device: torch.device, part: str, dtype: str
) -> None:
    make_checkpoint(tmp_path, num_layers=1)
    config = json.loads((tmp_path / "config.json").read_text())
    config[part] |= {"torch_dtype": dtype}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert Llava.load(tmp_path, device, torch.float32).dtype == torch.float32


@pytest.mark.fast
def test_loading_notes_the_device_and_a_digest(tmp_path: Path, device: torch.device) -> None:
    make_checkpoint(tmp_path)
    model = Llava.load(tmp_path, device, torch.float32)
    assert len(model.weights_digest) == 64
    assert model.device == device


def test_learned_positions_are_read_whole_where_a_window_cuts_the_context(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, opt=OptShape(), text_config=(("sliding_window", 64),))
    model = Llava.load(tmp_path, torch.device("cpu"), torch.float32)
    assert model.config.max_positions == 64
