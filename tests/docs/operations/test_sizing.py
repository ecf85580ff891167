"""Every figure in the tables of the sizing page is worked out again."""

import json
import math
from pathlib import Path

import pytest
from roofline import Ceilings, Roofline

from skipserve.engine import memory
from skipserve.settings import Settings
from skipserve_policies.catalog import load_catalog
from skipserve_policies.cost import make_request, saving, standard_request
from skipserve_policies.flops import request_flops
from skipserve_policies.plan import TokenClass
from skipserve_policies.resolve import resolve
from skipserve_policies.sizes import KNOWN_MODELS, ModelSizes

_ROOT = Path(__file__).parents[3]
_PAGE = (_ROOT / "docs/operations/sizing.md").read_text("utf-8")
_RESULTS = json.loads((_ROOT / "benchmarks/results/policies.json").read_text("utf-8"))

_POLICIES = (
    *("full", "skip-block-every-3-from-16", "skip-block-every-3-from-16-all"),
    *("visual-freeze-from-16", "shortv-7b", "exit-after-24"),
)
# As the page says: a device by its data sheet, 32 requests under way.
_DEVICE = Ceilings(flops=989e12, bandwidth=3.35e12)
_BATCH = 32
_CARDS_GIB = (24, 40, 78)
_GIB = 2**30


@pytest.mark.parametrize("name", _POLICIES)
def test_what_a_policy_costs_by_hand(name: str) -> None:
    sizes = KNOWN_MODELS["llava-1.5-7b"]
    plan = resolve(name, load_catalog()[name], sizes.decoder.num_layers).plan
    request = standard_request(sizes)
    floor = Roofline(sizes, _DEVICE)
    num_prompt, num_new = len(request.prompt), request.num_generated
    first = floor.vision_seconds() + floor.prefill_seconds(plan, request.prompt)
    step = floor.decode_seconds([plan] * _BATCH, num_prompt + num_new // 2)
    whole = floor.request_seconds(plan, request.prompt, num_new, _BATCH)
    cells = (
        name,
        f"{request_flops(sizes, plan, request).total / 1e12:.2f}",
        f"{100 * saving(sizes, plan, request).saved_ratio:.1f} %",
        f"{1e3 * first:.1f} ms",
        f"{1e3 * step:.1f} ms",
        f"{1 / whole:.0f}",
    )

    assert f"| {' | '.join(cells)} |" in _PAGE


@pytest.mark.parametrize("model", KNOWN_MODELS)
def test_what_a_model_takes(model: str) -> None:
    sizes = KNOWN_MODELS[model]
    page_bytes = _key_bytes(sizes) * Settings().page_size
    pools = [_pool_bytes(sizes, gib) // page_bytes for gib in _CARDS_GIB]
    # 35 + 576 + 25 of the prompt, 10 of the answer.
    num_pages = math.ceil(646 / Settings().page_size)
    cells = (
        model,
        f"{_weight_bytes(sizes) / 1e9:.1f} GB",
        f"{_key_bytes(sizes) / 1024:.0f} KiB",
        f"{page_bytes / 2**20:g} MiB",
        *(f"{pool // num_pages:.0f}" if pool > 0 else "none" for pool in pools),
    )

    assert f"| {' | '.join(cells)} |" in _PAGE


@pytest.mark.parametrize("name", [*_POLICIES, "skip-block-every-2-from-0-all"])
def test_what_was_measured(name: str) -> None:
    measured = {row["name"]: row["value"] for row in _RESULTS["rows"]}
    columns = ("planned FLOPs", "at 1", "at 4", "at 16", "at 64")
    cells = (name, *(f"{measured[f'{name}/{column}']:.2f}" for column in columns))

    assert f"| {' | '.join(cells)} |" in _PAGE


def test_what_the_demo_reaches() -> None:
    sizes = ModelSizes.from_config(
        json.loads((_ROOT / "server/skipserve/demo/config.json").read_text("utf-8"))
    )
    segments = [(TokenClass.TEXT, 9), (TokenClass.VISUAL, 36), (TokenClass.TEXT, 9)]
    plan = resolve("full", load_catalog()["full"], sizes.decoder.num_layers).plan
    flops = request_flops(sizes, plan, make_request(segments, 10)).total
    (rate,) = (
        row["value"]
        for row in _RESULTS["rows"]
        if row["name"] == "requests per second of full/at 64"
    )

    assert f"{flops / 1e9:.2f} GFLOPs" in _PAGE
    assert f"{rate:.1f} requests a second" in _PAGE
    assert f"{flops * rate / 1e9:.0f} GFLOP/s" in _PAGE


def _weight_bytes(sizes: ModelSizes) -> int:
    """Return what the weights take in 16 bits, those of norms left out."""
    decoder, vision = sizes.decoder, sizes.vision
    hidden = decoder.hidden_size
    heads = 2 * decoder.num_heads + 2 * decoder.num_kv_heads
    block = hidden * decoder.head_dim * heads + 3 * hidden * decoder.ffn_size
    tower = vision.num_layers * (
        4 * vision.hidden_size**2 + 2 * vision.hidden_size * vision.ffn_size
    )
    patches = 3 * vision.patch_size**2 * vision.hidden_size
    places = vision.num_features * vision.hidden_size
    projector = vision.hidden_size * hidden + hidden**2
    tables = 2 * hidden * decoder.vocab_size
    return 2 * (decoder.num_layers * block + tables + tower + patches + places + projector)


def _key_bytes(sizes: ModelSizes) -> int:
    """Return what keys and values of one position take in 16 bits."""
    decoder = sizes.decoder
    return 2 * decoder.num_layers * decoder.num_kv_heads * decoder.head_dim * 2


def _pool_bytes(sizes: ModelSizes, gib: int) -> float:
    """Return what is left for pages: as the server works it out, with its own largest step."""
    decoder, vision = sizes.decoder, sizes.vision
    rows = memory._BATCH_TOKENS_ELSEWHERE
    num_images = rows // vision.num_features + 2
    states = (vision.num_layers_used + 1) * vision.hidden_size
    working = 6 * vision.hidden_size + 2 * vision.ffn_size
    pixels = 3 * vision.num_channels * vision.image_size**2
    tower = 4 * num_images * ((vision.num_patches + 1) * (states + working) + pixels)
    wide = 8 * decoder.hidden_size + 3 * decoder.ffn_size + 2 * decoder.vocab_size
    free = gib * _GIB - _weight_bytes(sizes)
    return memory._SHARE_ELSEWHERE * free - tower - 4 * rows * wide
