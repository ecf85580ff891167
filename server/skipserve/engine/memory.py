"""How large the page pool and a step may be on a device."""

import contextlib
import os
from pathlib import Path

import torch

from skipserve.engine.graphs import BUCKETS
from skipserve.engine.types import EngineLimits
from skipserve.errors import EngineError
from skipserve.model.llava import Llava

# A step's largest number of rows. On a CPU more rows gain nothing and hold up those that decode.
_BATCH_TOKENS_CPU = 512
_BATCH_TOKENS_ELSEWHERE = 2048

# Shares of the memory that is free once the weights are loaded. A CPU is shared with others.
_SHARE_CPU = 0.25
_SHARE_ELSEWHERE = 0.9

# Of one logit, through all that sampling makes of it: copies, sorted, weights, whole numbers, sums.
_SAMPLER_NUMBER_BYTES = 80

# Of one captured graph; vLLM reports 24 to 28 MiB of larger ones.
_GRAPH_BYTES = 24 * 2**20

# Of a control group: its limit and its use, by version 2 and by version 1.
_CGROUP = Path("/sys/fs/cgroup")
_CGROUP_FILES = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)


def default_batch_tokens(device: torch.device) -> int:
    """Return how many rows a step may have if nobody says so."""
    return _BATCH_TOKENS_CPU if device.type == "cpu" else _BATCH_TOKENS_ELSEWHERE


def runs_graphs(model: Llava, limits: EngineLimits) -> bool:
    """Return whether decode steps are captured."""
    if limits.uses_graphs is not None:
        return limits.uses_graphs and model.uses_triton
    return model.uses_triton and model.device.type == "cuda"


def num_pool_pages(model: Llava, limits: EngineLimits, max_rows: int) -> int:
    """Return how many pages the pool gets: never more than all running requests could fill.

    Args:
        model: loaded, so that what is free now is free for the pool and the forward.
        limits: may say how many bytes the pool gets.
        max_rows: rows of the largest step.

    Raises:
        EngineError: not one page fits.
    """
    page_bytes = model.cache_bytes_per_token() * limits.page_size
    num_bytes = limits.kv_cache_bytes
    if num_bytes is None:
        num_bytes = _pool_bytes(model, limits, max_rows)
    num_fitting = num_bytes // page_bytes
    if num_fitting < 1:
        raise EngineError(
            f"{num_bytes} bytes are left for keys and values, a page takes {page_bytes}"
        )
    pages_per_sequence = -(-model.config.max_positions // limits.page_size)
    return int(min(num_fitting, limits.max_running * pages_per_sequence))


def _pool_bytes(model: Llava, limits: EngineLimits, max_rows: int) -> int:
    """Return a share of what is free, less what steps and the rest of the engine need."""
    reserved = vision_bytes(model, max_rows) + _decoder_bytes(model, max_rows)
    reserved += limits.encoder_cache_bytes + _sampler_bytes(model, limits, max_rows)
    reserved += _graph_bytes(limits) if runs_graphs(model, limits) else 0
    if model.device.type == "cpu":
        return int(_SHARE_CPU * (_free_host_bytes() - reserved))
    free, _ = torch.cuda.mem_get_info(model.device)
    return int(_SHARE_ELSEWHERE * free) - reserved


def max_images_at_once(model: Llava, max_rows: int) -> int:
    """Return how many images a step reaches at most, unless it enters some far behind their start.

    Those are rare: their first rows were found in pages, but the images themselves were given up.
    """
    return max_rows // model.config.sizes.vision.num_tokens + 2


def vision_bytes(model: Llava, max_rows: int) -> int:
    """Return what the vision tower may need at once for so many images.

    An upper estimate: the states of all layers, which transformers hands out, and the working set
    of one layer, in float32.
    """
    sizes = model.config.sizes.vision
    num_images = max_images_at_once(model, max_rows)
    num_tokens = sizes.num_patches + 1
    states = (sizes.num_layers_used + 1) * sizes.hidden_size
    working = 6 * sizes.hidden_size + 2 * sizes.ffn_size
    pixels = 3 * sizes.num_channels * sizes.image_size**2
    return 4 * num_images * (num_tokens * (states + working) + pixels)


def _decoder_bytes(model: Llava, max_rows: int) -> int:
    """Return what the rows of a forward may need at once, logits included; an upper estimate."""
    sizes = model.config.sizes.decoder
    working = 8 * sizes.hidden_size + 3 * sizes.ffn_size + 2 * sizes.vocab_size
    return 4 * max_rows * working


def _sampler_bytes(model: Llava, limits: EngineLimits, max_rows: int) -> int:
    """Return what drawing a token for each request may need; an upper estimate."""
    num_drawn = min(limits.max_running, max_rows)
    return _SAMPLER_NUMBER_BYTES * num_drawn * model.config.sizes.decoder.vocab_size


def _graph_bytes(limits: EngineLimits) -> int:
    """Return what the captured graphs take besides what steps need; an estimate."""
    num_columns = len({plan.columns for plan in limits.hot_plans}) + 2
    return _GRAPH_BYTES * num_columns * len(BUCKETS)


def _free_host_bytes() -> int:
    """Return what this process may still use, within its control group."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit, used in _CGROUP_FILES:
        # They fail where no limit is set, or the files are of another system.
        with contextlib.suppress(OSError, ValueError):
            left = int((_CGROUP / limit).read_text()) - int((_CGROUP / used).read_text())
            free = min(free, left)
    return max(free, 0)
