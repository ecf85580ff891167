"""The arguments of `LLaVA`, checked and named as whoever writes Python knows them."""

import math
import re
from pathlib import Path
from typing import Any

import torch

from skipserve.engine.limits import EngineLimits
from skipserve.model_folder import StartError
from skipserve.settings import MAX_THREADS, Dtype

# What the command line calls them, what they are here, fields of `EngineLimits`, and how many of
# these make one of those.
_LIMITS = {
    "kv-cache-gib": ("kv_cache_bytes", 2**30),
    "encoder-cache-mib": ("encoder_cache_bytes", 2**20),
    "max-running-requests": ("max_running", 1),
    "no-cuda-graphs": ("uses_graphs=False", 1),
}
_COUNTS = ("max_batch_tokens", "max_running", "page_size", "kv_cache_bytes")
_SWITCHES = {
    "reuses_prefixes": (True, False),
    "looks_ahead": (True, False, None),
    "uses_graphs": (True, False, None),
}
_FLAG = re.compile(r"--([a-z]+(?:-[a-z]+)*)(?: (\d+(?:\.\d+)?))?")


def checked_path(name: str, value: object) -> Path:
    """Return an argument that names a file or folder.

    Raises:
        StartError: it is no path.
    """
    try:
        return Path(value)  # type: ignore[arg-type]
    except TypeError as error:
        raise _wrong(name, value, "a path") from error


def checked_dtype(dtype: object) -> str:
    """Return the name of a number type.

    Raises:
        StartError: there is none of that name.
    """
    try:
        return Dtype(str(dtype).removeprefix("torch.")).value
    except ValueError as error:
        raise _wrong("dtype", dtype, f"one of {', '.join(Dtype)}") from error


def checked_device(device: object) -> str:
    """Return the name of a device; whether the machine has it is found out at load.

    Raises:
        StartError: it is none that the model can run on.
    """
    if device == "auto":
        return "auto"
    try:
        found = torch.device(device)  # type: ignore[call-overload]
    except (RuntimeError, TypeError):
        found = None
    if found is None or found.type not in {"cpu", "cuda"}:
        raise _wrong("device", device, "auto, cpu, cuda, or one of several such as cuda:1")
    return str(found)


def checked_count(name: str, value: object, least: int = 1, most: float = math.inf) -> int:
    """Return a whole number from `least` on.

    Raises:
        StartError: it is none, or more than `most`.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        reach = f"from {least} on" if most == math.inf else f"from {least} to {most}"
        raise _wrong(name, value, f"a whole number {reach}")
    return value


def checked_threads(num_threads: object) -> int | None:
    """Return a number of threads that a process can have; None leaves it to torch.

    Raises:
        StartError: it is none.
    """
    if num_threads is None:
        return None
    return checked_count("num_threads", num_threads, most=MAX_THREADS)


def checked_limits(limits: object) -> EngineLimits:
    """Return limits that an engine can keep; None takes the usual ones.

    Raises:
        StartError: one of them is out of range.
    """
    if limits is None:
        return EngineLimits()
    if not isinstance(limits, EngineLimits):
        raise _wrong("limits", limits, "EngineLimits(...)")
    for name in _COUNTS:
        value = getattr(limits, name)
        if value is not None or name in {"max_running", "page_size"}:
            checked_count(name, value)
    checked_count("encoder_cache_bytes", limits.encoder_cache_bytes, least=0)
    for name, choices in _SWITCHES.items():
        if not any(getattr(limits, name) is choice for choice in choices):
            told = " or ".join(map(str, choices))
            raise _wrong(name, getattr(limits, name), told)
    if limits.page_size & (limits.page_size - 1):
        raise _wrong("page_size", limits.page_size, "a power of two")
    return limits


def name_arguments(message: str) -> str:
    """Return what an engine says of flags of the command line in the words of `EngineLimits`."""
    return _FLAG.sub(lambda found: _argument(*found.groups()), message)


def _argument(flag: str, number: str | None) -> str:
    name, factor = _LIMITS.get(flag, (flag.replace("-", "_"), 1))
    return name if number is None else f"{name}={math.ceil(float(number) * factor)}"


def _wrong(name: str, value: Any, right: str) -> StartError:
    return StartError(f"{name} is {value!r}; it must be {right}")
