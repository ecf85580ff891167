"""How an engine is run, and how much it takes on at once."""

from dataclasses import dataclass
from pathlib import Path

from skipserve_policies.plan import Plan


@dataclass(frozen=True)
class EngineLimits:
    """How much an engine takes on at once.

    Attributes:
        max_batch_tokens: rows of one step; None takes what suits the device.
        max_running: requests that run at the same time.
        page_size: positions whose keys and values share a page.
        kv_cache_bytes: size of the page pool; None takes what suits the device's memory.
        encoder_cache_bytes: projected images that are kept.
        reuses_prefixes: whether pages outlive the request that computed them.
        looks_ahead: whether a step is launched before the tokens of the last one are read; None
            where the device works on its own.
        uses_graphs: whether decode steps run as captured graphs; None where the device can.
        hot_plans: plans whose decode steps get graphs of their own, beside the full model's.
    """

    max_batch_tokens: int | None = None
    max_running: int = 256
    page_size: int = 16
    kv_cache_bytes: int | None = None
    encoder_cache_bytes: int = 256 * 2**20
    reuses_prefixes: bool = True
    looks_ahead: bool | None = None
    uses_graphs: bool | None = None
    hot_plans: tuple[Plan, ...] = ()


@dataclass(frozen=True)
class EngineSpec:
    """How to run an engine.

    Attributes:
        model: the folder of the checkpoint.
        device: "auto", or a device as torch names it.
        dtype: "auto", or a dtype as torch names it, without "torch.".
        quantization: "none", or "int8" for products in 8 bits on a CPU.
        num_threads: CPU threads of the engine; None leaves the choice to torch.
        limits: how much it takes on at once.
        stall_seconds: without a sign of life for so long, the engine counts as hung.
        load_seconds: loading may take so long.
        logs_json: whether the process writes log lines as JSON.
    """

    model: Path
    device: str = "auto"
    dtype: str = "auto"
    num_threads: int | None = None
    limits: EngineLimits = EngineLimits()
    stall_seconds: float = 30.0
    load_seconds: float = 1200.0
    logs_json: bool = False
    quantization: str = "none"
