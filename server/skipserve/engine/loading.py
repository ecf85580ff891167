"""A spec to an engine: finds the device and the dtype, and loads the model there."""

import logging
from collections.abc import Callable
from functools import partial

import torch

from skipserve.engine.engine import Engine
from skipserve.engine.limits import EngineSpec
from skipserve.engine.memory import describe_pool, describe_shortage
from skipserve.engine.reports import Ready
from skipserve.errors import EngineError
from skipserve.grammar.matcher import Grammars
from skipserve.grammar.vocabulary import Vocabulary
from skipserve.model.arithmetic import makes_products_in_8_bits
from skipserve.model.config import ModelConfig
from skipserve.model.families import load_model
from skipserve.model.fused.support import has_compiler, runs_triton
from skipserve.model.model import Model
from skipserve.model.weights import stored_dtype

logger = logging.getLogger(__name__)


def load(
    spec: EngineSpec,
    in_words: Callable[[str], str] = str,
    wrap: Callable[[Model], Model] = lambda model: model,
) -> tuple[Engine, Ready]:
    """Load the model that a spec names.

    Args:
        spec: how to run it.
        in_words: says again, for whoever reads the log, what speaks of the command line.
        wrap: makes of the model what the engine runs.

    Raises:
        ModelFilesError: the folder does not hold a model that can be run.
        EngineError: there is no such device, or its memory is too small.
    """
    if spec.num_threads is not None:
        torch.set_num_threads(spec.num_threads)
    device = resolve_device(spec.device)
    # Else the convolution of a float32 vision tower would round its inputs to 10 bits on a GPU.
    torch.backends.cudnn.allow_tf32 = False
    declared = ModelConfig.from_folder(spec.model).dtype or stored_dtype(spec.model)
    dtype = resolve_dtype(spec.dtype, device, declared)
    in_8_bits = _is_in_8_bits(spec.quantization, device)
    model = load_model(spec.model, device, dtype, in_8_bits=in_8_bits)
    grammars = Grammars(partial(Vocabulary.from_folder, spec.model))
    engine = Engine(wrap(model), spec.limits, grammars)
    logger.info(describe_pool(model, engine.num_cache_tokens))
    if shortage := describe_shortage(model, engine.num_cache_tokens):
        logger.warning(in_words(shortage))
    ready = Ready(
        device=str(device),
        dtype=str(dtype).removeprefix("torch.") + ("+int8" if in_8_bits else ""),
        weights_digest=model.weights_digest,
        num_cache_tokens=engine.num_cache_tokens,
    )
    return engine, ready


def resolve_device(name: str) -> torch.device:
    """Return the device of a name; "auto" takes a GPU where there is one.

    Raises:
        EngineError: a GPU is asked for and there is none, or nothing to build its kernels with.
    """
    has_gpu = torch.cuda.is_available()
    device = torch.device(("cuda" if has_gpu else "cpu") if name == "auto" else name)
    if device.type == "cuda" and not has_gpu:
        raise EngineError(f"the device is {name}, but this machine has no CUDA device; cpu works")
    if runs_triton(device) and not has_compiler():
        raise EngineError(
            "Triton needs a C compiler and Python's headers to start its kernels: install gcc and "
            "python3-dev, or name a compiler in CC"
        )
    return device


def _is_in_8_bits(quantization: str, device: torch.device) -> bool:
    """Return whether products are to be made in 8 bits.

    Raises:
        EngineError: they cannot be, on that device or on this CPU.
    """
    if quantization == "none":
        return False
    if device.type != "cpu":
        raise EngineError(f"quantization {quantization} runs on a CPU; the device is {device}")
    if not makes_products_in_8_bits():
        raise EngineError(
            f"quantization {quantization} needs a CPU that adds products of 8 bits without loss "
            "(VNNI); this one does not"
        )
    return True


def resolve_dtype(name: str, device: torch.device, declared: str | None) -> torch.dtype:
    """Return the dtype of a name; "auto" takes the one that the checkpoint declares.

    A CPU runs float16 checkpoints in bfloat16: few CPUs compute float16, and it overflows earlier.
    Nothing runs in float64: what declares it gets float32.
    """
    if name == "auto":
        name = declared or "float32"
        if name == "float16" and device.type == "cpu":
            name = "bfloat16"
    wide = {"float32": torch.float32, "float64": torch.float32}
    return (wide | {"bfloat16": torch.bfloat16, "float16": torch.float16})[name]
