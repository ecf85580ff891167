"""How large the page pool and a step may be on a device."""

import math
from dataclasses import dataclass

import torch

from skipserve.engine.graphs import BUCKETS
from skipserve.engine.host_memory import available_bytes
from skipserve.engine.limits import EngineLimits
from skipserve.errors import EngineError
from skipserve.model.model import Model
from skipserve.model.scoring import PIECE_ROWS
from skipserve_policies.sizes import MappingSizes

# A step's largest number of rows. On a CPU more rows gain nothing and hold up those that decode.
_BATCH_TOKENS_CPU = 512
_BATCH_TOKENS_ELSEWHERE = 2048

# Shares of the memory that is available once the weights are loaded: no engine takes more than the
# first, pool, steps and all. A CPU is shared with others. There the pool takes the second, and less
# where it and the rest would be more than half: so two engines fit that start together.
_SHARE_ELSEWHERE = 0.9
_SHARE_CPU = 0.25
_SHARE_OF_TWO = 0.5

# A pool that is worth starting with holds a picture, and so many positions of text.
_TEXT_POSITIONS = 256

# Of one logit, through all that sampling makes of it: changed, copied, sorted, weights, sums.
_SAMPLER_NUMBER_BYTES = 84

# Of one logit of a row that is scored: as it comes, in float32, its log-probability, its key to be
# sorted by with what that is made from, and comparisons.
_SCORED_NUMBER_BYTES = 56

# Of one captured graph; vLLM reports 24 to 28 MiB of larger ones.
_GRAPH_BYTES = 24 * 2**20

_KIB, _MIB, _GIB = 2**10, 2**20, 2**30


def default_batch_tokens(device: torch.device) -> int:
    """Return how many rows a step may have if nobody says so."""
    return _BATCH_TOKENS_CPU if device.type == "cpu" else _BATCH_TOKENS_ELSEWHERE


def runs_graphs(model: Model, limits: EngineLimits) -> bool:
    """Return whether decode steps are captured."""
    if limits.uses_graphs is not None:
        return limits.uses_graphs and model.uses_triton
    return model.uses_triton and model.device.type == "cuda"


def num_pool_pages(model: Model, limits: EngineLimits, max_rows: int) -> int:
    """Return how many pages the pool gets: never more than all running requests could fill.

    Args:
        model: loaded, so that what is available now is so for the pool and the forward.
        limits: may say how many bytes the pool gets.
        max_rows: rows of the largest step.

    Raises:
        EngineError: too little memory is left, or what `limits` says is too little or too much.
    """
    page_bytes = model.cache_bytes_per_token() * limits.page_size
    most = limits.max_running * _pages_of(model.config.max_positions, limits)
    if limits.kv_cache_bytes is not None:
        return _asked_pages(model, limits, page_bytes, most)
    least = min(_pages_of(_least_positions(model), limits), most)
    room = _pool_bytes(model, limits, max_rows, least * page_bytes)
    return min(room // page_bytes, most)


def describe_pool(model: Model, num_positions: int) -> str:
    """Say how large the pool is, in words for an operator."""
    size = human_size(num_positions * model.cache_bytes_per_token())
    return f"room for {num_positions:,} positions of keys and values, in {size}"


def describe_shortage(model: Model, num_positions: int) -> str | None:
    """Say what the pool is too small for, and how large it would have to be; None if nothing."""
    longest, needed = model.config.max_positions, _least_positions(model)
    if num_positions >= longest:
        return None
    gib = _gib_argument(longest * model.cache_bytes_per_token())
    picture = model.config.sizes.rows_per_image
    few = f", and a picture takes {picture:,} of them" if num_positions < needed else ""
    return (
        f"a prompt and its answer get at most {num_positions:,} positions{few}; "
        f"the model can use {longest:,}, for which it needs --kv-cache-gib {gib}"
    )


def human_size(num_bytes: float) -> str:
    """Return a number of bytes as people say it."""
    unit, name = next(
        ((unit, name) for unit, name in ((_GIB, "GiB"), (_MIB, "MiB")) if num_bytes >= unit),
        (_KIB, "KiB"),
    )
    number = num_bytes / unit
    return f"{number:,.0f} {name}" if number >= 99.95 else f"{number:.3g} {name}"


def _gib_argument(num_bytes: int) -> str:
    """Return what `--kv-cache-gib` takes for so many bytes, rounded up at the third digit."""
    gib = num_bytes / _GIB
    step = 10.0 ** (math.floor(math.log10(gib)) - 2)
    return f"{math.ceil(gib / step - 1e-9) * step:.12g}"


def _pages_of(num_positions: int, limits: EngineLimits) -> int:
    return -(-num_positions // limits.page_size)


def _least_positions(model: Model) -> int:
    """Return what a useful request takes."""
    config = model.config
    return min(config.sizes.rows_per_image + _TEXT_POSITIONS, config.max_positions)


def _asked_pages(model: Model, limits: EngineLimits, page_bytes: int, most: int) -> int:
    """Return how many pages the operator asks for.

    Raises:
        EngineError: it is not even one, or more than there is memory for.
    """
    asked = limits.kv_cache_bytes or 0
    if asked < page_bytes:
        raise EngineError(
            f"--kv-cache-gib asks for {human_size(asked)}, but a page of {limits.page_size} "
            f"positions takes {human_size(page_bytes)}: set at least --kv-cache-gib "
            f"{_gib_argument(page_bytes * _pages_of(_least_positions(model), limits))}, which "
            "holds a picture and a text"
        )
    num_pages = min(asked // page_bytes, most)
    available = _available_bytes(model.device)
    if num_pages * page_bytes > available:
        raise EngineError(
            f"--kv-cache-gib asks for {human_size(num_pages * page_bytes)}, but "
            f"{human_size(available)} of memory are available on the {_device_name(model.device)}: "
            "set less, or leave it out"
        )
    return num_pages


@dataclass(frozen=True)
class _Need:
    """What a part of the engine takes besides the pool: an upper estimate, and what sets it."""

    num_bytes: int
    part: str
    setting: str

    def __str__(self) -> str:
        return f"{self.part} {human_size(self.num_bytes)} ({self.setting})"


def _needs(model: Model, limits: EngineLimits, max_rows: int) -> list[_Need]:
    """Return what the engine needs besides the pool, the largest part first."""
    steps = vision_bytes(model, max_rows) + _decoder_bytes(model, max_rows)
    needs = [
        _Need(steps, "steps", f"--max-batch-tokens {max_rows}"),
        _Need(
            _ranking_bytes(model, max_rows),
            "prompts whose rows are ranked",
            f"--max-batch-tokens {max_rows}",
        ),
        _Need(
            max(_sampler_bytes(model, limits, max_rows), _scoring_bytes(model, max_rows)),
            "sampling",
            f"--max-running-requests {limits.max_running}",
        ),
        _Need(
            limits.encoder_cache_bytes,
            "projected images",
            f"--encoder-cache-mib {limits.encoder_cache_bytes // _MIB}",
        ),
    ]
    if runs_graphs(model, limits):
        needs.append(_Need(_graph_bytes(limits), "graphs", "--no-cuda-graphs"))
    needs.sort(key=lambda need: need.num_bytes, reverse=True)
    return [need for need in needs if need.num_bytes]


def _pool_bytes(model: Model, limits: EngineLimits, max_rows: int, least: int) -> int:
    """Return a share of what is available, at least `least` bytes.

    Raises:
        EngineError: these, with what else the engine needs, would be more than it may take.
    """
    available = _available_bytes(model.device)
    needs = _needs(model, limits, max_rows)
    needed = sum(need.num_bytes for need in needs)
    room = int(_SHARE_ELSEWHERE * available) - needed
    if room < least:
        raise EngineError(
            f"{human_size(least - room)} of memory are missing: {human_size(available)} are "
            f"available on the {_device_name(model.device)}, a tenth of which stays free; needed "
            f"are {', '.join(map(str, needs))} and, for keys and values, {human_size(least)} at "
            "least. Free memory, lower what is named, or set --kv-cache-gib: these are upper "
            "estimates, and what it says is taken without them"
        )
    if model.device.type != "cpu":
        return room
    share = min(int(_SHARE_CPU * available), int(_SHARE_OF_TWO * available) - needed)
    return max(share, least)


def _available_bytes(device: torch.device) -> int:
    """Return what can still be had on a device."""
    if device.type == "cpu":
        return available_bytes()
    # Loading leaves memory behind that torch keeps for itself.
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    return free


def _device_name(device: torch.device) -> str:
    return "machine, or in its control group" if device.type == "cpu" else "GPU"


def max_images_at_once(model: Model, max_rows: int) -> int:
    """Return how many images a step reaches at most, unless it enters some far behind their start.

    Those are rare: their first rows were found in pages, but the images themselves were given up.
    """
    return max_rows // model.config.sizes.rows_per_image + 2


def vision_bytes(model: Model, max_rows: int) -> int:
    """Return what the vision tower may need at once for so many images.

    An upper estimate: the states of all layers, which transformers hands out, and the working set
    of one layer, in float32. A projector with layers of its own comes when the tower is done, but
    its working set is added.
    """
    sizes, projector = model.config.sizes.vision, model.config.sizes.projector
    num_images = max_images_at_once(model, max_rows)
    states = (sizes.num_layers_used + 1) * sizes.hidden_size
    working = 6 * sizes.hidden_size + 2 * sizes.ffn_size
    pixels = 3 * math.prod(sizes.input_shape)
    numbers = sizes.num_rows * (states + working) + pixels
    if isinstance(projector, MappingSizes):
        width = 8 * projector.hidden_size + 2 * projector.ffn_size
        numbers += (sizes.num_rows + projector.num_queries) * width
    return 4 * num_images * numbers


def _decoder_bytes(model: Model, max_rows: int) -> int:
    """Return what the rows of a forward may need at once, logits included; an upper estimate."""
    sizes = model.config.sizes.decoder
    width = max(sizes.hidden_size, sizes.embedding_size)
    working = 8 * width + 3 * sizes.ffn_size + 2 * sizes.vocab_size
    return 4 * max_rows * working


def _ranking_bytes(model: Model, max_rows: int) -> int:
    """Return what the rows of a prompt may need besides that are ranked together.

    Those of one prompt wait at a time, with what entered the first block and the one before, and go
    on in one step, however many are left; an upper estimate.
    """
    sizes, num_positions = model.config.sizes.decoder, model.config.max_positions
    working = 8 * sizes.hidden_size + 3 * sizes.ffn_size
    more = max(num_positions - max_rows, 0) * working
    return 4 * (more + 3 * num_positions * sizes.hidden_size)


def _sampler_bytes(model: Model, limits: EngineLimits, max_rows: int) -> int:
    """Return what drawing a token for each request may need; an upper estimate."""
    num_drawn = min(limits.max_running, max_rows)
    return _SAMPLER_NUMBER_BYTES * num_drawn * model.config.sizes.decoder.vocab_size


def _scoring_bytes(model: Model, max_rows: int) -> int:
    """Return what scoring a few rows of prompts may need, logits included; an upper estimate.

    That is over before tokens are drawn: only the larger of the two counts.
    """
    num_rows = min(PIECE_ROWS, max_rows)
    return _SCORED_NUMBER_BYTES * num_rows * model.config.sizes.decoder.vocab_size


def _graph_bytes(limits: EngineLimits) -> int:
    """Return what the captured graphs take besides what steps need; an estimate."""
    num_columns = len({plan.columns for plan in limits.hot_plans}) + 2
    return _GRAPH_BYTES * num_columns * len(BUCKETS)
