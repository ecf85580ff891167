"""Triton's interpreter, mended for bf16 and made strict; import it before anything imports triton.

Kernels run on CPU tensors, program by program. What a GPU leaves undefined or does wrong in silence
is made loud here: every access must lie within a tensor of the launch, masked-out elements of a
load without `other` are garbage, and a float32 product must not round to tf32.

It replaces private parts of triton 3.6.0; each replacement says why. `tests/kernels/
test_interpreter.py` holds what it promises.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

if "triton" in sys.modules:
    raise ImportError("triton_interpreter must be imported before triton")

# Triton looks once, while its own functions are decorated. Processes that tests start shall not
# inherit it, so it goes again and the knob keeps it for kernels that are decorated later.
_inherited = os.environ.get("TRITON_INTERPRET")
os.environ.setdefault("TRITON_INTERPRET", "1")
import triton  # noqa: E402
import triton.language as tl  # noqa: E402
from triton._C.libtriton import ir  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.backends.nvidia.compiler import min_dot_size  # noqa: E402
from triton.runtime import interpreter  # noqa: E402
from triton.runtime.errors import InterpreterError  # noqa: E402

triton.knobs.runtime.interpret = os.environ["TRITON_INTERPRET"] == "1"
if _inherited is None:
    del os.environ["TRITON_INTERPRET"]

_Builder = interpreter.InterpreterBuilder
_Handle = interpreter.TensorHandle
_Array = NDArray[Any]

SECTOR_BYTES = 32
_COMPARISONS = {
    np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal
}  # fmt: skip


# bf16: the interpreter keeps its bits as uint16, and computes with them as if they were integers.


def _is_bfloat16(handle: Any) -> bool:
    return bool(handle.dtype.scalar == tl.bfloat16)


def _to_bits(x: _Array) -> NDArray[np.uint16]:
    """Round float32 to bf16, to nearest and ties to even."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    rounded = ((bits + (((bits >> 16) & 1) + np.uint32(0x7FFF))) >> 16).astype(np.uint16)
    return np.where(np.isnan(x), np.uint16(0x7FC0), rounded)


def _from_bits(bits: _Array) -> NDArray[np.float32]:
    return (np.ascontiguousarray(bits).astype(np.uint32) << 16).view(np.float32)


def _widened(handle: Any) -> Any:
    """Return a bf16 handle as float32, others as they are."""
    return _Handle(_from_bits(handle.data), tl.float32) if _is_bfloat16(handle) else handle


def _narrowed(handle: Any) -> Any:
    return _Handle(_to_bits(handle.data), tl.bfloat16)


def _get_bf16(_builder: Any, value: float) -> Any:
    """Make a constant, which the builder lacks for bf16."""
    return _Handle(_to_bits(np.array([value], np.float32)), tl.bfloat16)


def _in_float32(operation: Callable[..., Any]) -> Callable[..., Any]:
    """Compute an operation on bf16 in float32 and round its result once."""

    def computed(builder: Any, *arguments: Any) -> Any:
        if not any(isinstance(each, _Handle) and _is_bfloat16(each) for each in arguments):
            return operation(builder, *arguments)
        wide = [_widened(each) if isinstance(each, _Handle) else each for each in arguments]
        result = operation(builder, *wide)
        if isinstance(arguments[-1], np.ufunc) and arguments[-1] in _COMPARISONS:
            return _Handle(result.data, tl.int1)
        return _narrowed(result)

    return computed


def _cast(original: Callable[..., Any]) -> Callable[..., Any]:
    """Cast from and to bf16 by value and with rounding; the original casts its bits, or cuts."""

    def cast_impl(builder: Any, source: Any, target_type: Any) -> Any:
        target = target_type.scalar
        if _is_bfloat16(source) == (target == tl.bfloat16):
            return original(builder, source, target_type)
        if target == tl.bfloat16:
            return _narrowed(_Handle(source.data.astype(np.float32), tl.float32))
        wide = _widened(source)
        return wide if target == tl.float32 else original(builder, wide, target_type)

    return cast_impl


def _above_16_bits(method: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse sums that a GPU would round after each addition; the original's bf16 ones are junk."""

    def computed(operator: Any, x: Any) -> Any:
        if x.dtype in (tl.bfloat16, tl.float16):
            raise TypeError(f"a sum of {x.dtype}: make it float32 first")
        return method(operator, x)

    return computed


def _dot(original: Callable[..., Any]) -> Callable[..., Any]:
    """Multiply bf16 by value, and refuse what a GPU would round to tf32."""

    def create_dot(builder: Any, a: Any, b: Any, total: Any, precision: Any, *rest: Any) -> Any:
        if a.dtype.scalar == tl.float32 and precision != ir.INPUT_PRECISION.IEEE:
            raise ValueError('a float32 tl.dot without input_precision="ieee" rounds to tf32')
        return original(builder, _widened(a), _widened(b), total, precision, *rest)

    return create_dot


# Memory: what is accessed, and whether it may be.


class _Regions:
    """The storages that a launch may touch."""

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        found: dict[int, tuple[int, str]] = {}
        for name, tensor in tensors.items():
            storage = tensor.untyped_storage()
            if storage.nbytes():
                found.setdefault(storage.data_ptr(), (storage.nbytes(), name))
        starts = sorted(found)
        self.starts = np.array(starts, np.uint64)
        self.sizes = np.array([found[start][0] for start in starts], np.uint64)
        self.names = [found[start][1] for start in starts]

    def find(self, kind: str, addresses: NDArray[np.uint64], size: int) -> NDArray[np.int64]:
        """Return each address's place in `names`.

        Raises:
            IndexError: an address lies in no storage.
        """
        places = np.searchsorted(self.starts, addresses, side="right") - 1
        is_outside = places < 0
        if self.names:
            is_outside |= addresses + np.uint64(size) > self.starts[places] + self.sizes[places]
        if is_outside.any() or not self.names:
            raise IndexError(
                f"{kind} out of bounds: {is_outside.sum()} of {len(addresses)} addresses are in "
                f"none of {self.names}, program {interpreter.interpreter_builder.grid_idx}"
            )
        return places


class Traffic:
    """Bytes that launches moved, for each named tensor and kind of access, as in "x.load".

    The kinds are load, store and atomic. Names that were not given raise KeyError.

    Attributes:
        num_launches: how many kernels were launched.
    """

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        self._regions = _Regions(tensors)
        if len(self._regions.names) != sum(each.numel() > 0 for each in tensors.values()):
            raise ValueError("two of the tensors share a storage: name it once")
        keys = [f"{name}.{kind}" for name in tensors for kind in ("load", "store", "atomic")]
        sizes = {name: tensor.untyped_storage().nbytes() for name, tensor in tensors.items()}
        self._seen = {key: np.zeros(sizes[key.rpartition(".")[0]], np.bool_) for key in keys}
        self.num_launches = 0
        self._requested = dict.fromkeys(keys, 0)
        self._sectors = dict.fromkeys(keys, 0)

    def requested(self, key: str) -> int:
        """Return the bytes that all programs asked for together: what the cache must serve."""
        return self._requested[key]

    def distinct(self, key: str) -> int:
        """Return the bytes that were touched at all: what memory must serve at least."""
        return int(self._seen[key].sum())

    def sectors(self, key: str) -> int:
        """Return the bytes of 32-byte sectors, each instruction's once; bad strides show here."""
        return self._sectors[key]

    def total_distinct(self) -> int:
        """Return the distinct bytes of all tensors and kinds of access."""
        return sum(self.distinct(key) for key in self._seen)

    def total_requested(self) -> int:
        """Return the requested bytes of all tensors and kinds of access."""
        return sum(self._requested.values())

    def record(self, kind: str, addresses: NDArray[np.uint64], size: int) -> None:
        """Count one instruction's accesses of so many bytes each."""
        places = self._regions.find(kind, addresses, size)
        for place in np.unique(places):
            key = f"{self._regions.names[place]}.{kind}"
            chosen = addresses[places == place]
            self._requested[key] += chosen.size * size
            self._sectors[key] += np.unique(chosen // np.uint64(SECTOR_BYTES)).size * SECTOR_BYTES
            offsets = (chosen - self._regions.starts[place]).astype(np.int64)
            self._seen[key][offsets[:, None] + np.arange(size)] = True


_recording: list[Traffic] = []
_launches: list[_Regions] = []
_orders: list[Callable[[int], _Array]] = []


@contextlib.contextmanager
def traffic(**tensors: torch.Tensor) -> Iterator[Traffic]:
    """Count the bytes that launches move; an access outside of these tensors is an IndexError."""
    _recording.append(Traffic(tensors))
    try:
        yield _recording[-1]
    finally:
        _recording.pop()


@contextlib.contextmanager
def shuffled(seed: int) -> Iterator[None]:
    """Run the programs of each launch in a random order, which depends on their number alone."""
    _orders.append(lambda number: np.random.default_rng(seed).permutation(number))
    try:
        yield
    finally:
        _orders.pop()


def _check(kind: str, pointers: Any, mask: Any) -> None:
    """Trap accesses out of bounds and count the others."""
    # A scalar mask, spread out, comes as integers.
    is_used = np.broadcast_to(np.asarray(mask.data, np.bool_), np.shape(pointers.data))
    addresses = np.asarray(pointers.data, np.uint64)[is_used]
    if not addresses.size:
        return
    size = interpreter._get_np_dtype(pointers.get_element_ty()).itemsize
    _launches[-1].find(kind, addresses, size)
    for recorder in _recording:
        recorder.record(kind, addresses, size)


def _load(original: Callable[..., Any]) -> Callable[..., Any]:
    """Check addresses, and leave garbage, not zeros, where a mask has no `other`."""

    def create_masked_load(builder: Any, pointers: Any, mask: Any, other: Any, *rest: Any) -> Any:
        _check("load", pointers, mask)
        if other is None:
            kind = pointers.get_element_ty()
            garbage = np.full(np.shape(pointers.data), 0xFF, np.uint8)
            garbage = np.repeat(garbage[..., None], interpreter._get_np_dtype(kind).itemsize, -1)
            other = _Handle(garbage.view(interpreter._get_np_dtype(kind))[..., 0], kind)
        return original(builder, pointers, mask, other, *rest)

    return create_masked_load


def _store(original: Callable[..., Any]) -> Callable[..., Any]:
    """Check addresses."""

    def create_masked_store(builder: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        _check("store", pointers, mask)
        return original(builder, pointers, value, mask, *rest)

    return create_masked_store


def _atomic(original: Callable[..., Any]) -> Callable[..., Any]:
    """Check addresses, and refuse to add bits."""

    def create_atomic_rmw(
        builder: Any, operation: Any, pointers: Any, value: Any, mask: Any, *rest: Any
    ) -> Any:
        if _is_bfloat16(value):
            raise TypeError("the interpreter has no atomic operations on bf16")
        _check("atomic", pointers, mask)
        return original(builder, operation, pointers, value, mask, *rest)

    return create_atomic_rmw


# Launches.


def _set_grid_idx(original: Callable[..., None]) -> Callable[..., None]:
    """Take programs in the order that `shuffled` asks for."""

    def set_grid_idx(builder: Any, x: int, y: int, z: int) -> None:
        if _orders:
            shape = builder.grid_dim
            order = _orders[-1](int(np.prod(shape)))
            place = order[np.ravel_multi_index((x, y, z), shape)]
            x, y, z = (int(index) for index in np.unravel_index(place, shape))
        original(builder, x, y, z)

    return set_grid_idx


def _patch_lang_tensor(original: Callable[..., None]) -> Callable[..., None]:
    """Let tensors be loop bounds: numpy 2.4 does not take an array of one for an int."""

    def patch(tensor: Any, scope: Any) -> None:
        original(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    return patch


def _find_tensors(named: dict[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors among a kernel's arguments, and those in tuples."""
    for name, argument in named.items():
        if isinstance(argument, torch.Tensor):
            yield name, argument
        elif isinstance(argument, tuple):
            members = {f"{name}[{i}]": member for i, member in enumerate(argument)}
            yield from _find_tensors(members)


def _run(original: Callable[..., None]) -> Callable[..., None]:
    """Launch with the arguments' storages as bounds; raise what went wrong, not its wrapping.

    Infinities and NaN make no noise on a GPU, so they make none here.
    """

    def run(function: Any, *arguments: Any, **keywords: Any) -> None:
        named = dict(zip(function.arg_names, arguments, strict=False)) | keywords
        _launches.append(_Regions(dict(_find_tensors(named))))
        for recorder in _recording:
            recorder.num_launches += 1
        # Triton's own functions, such as tl.zeros, find its builtins in another module.
        scope = interpreter._patch_lang(tl.zeros.fn)
        try:
            with np.errstate(all="ignore"):
                original(function, *arguments, **keywords)
        except InterpreterError as error:
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            raise cause from None
        finally:
            scope.restore()
            _launches.pop()

    return run


def _call(function: Any, *arguments: Any, **keywords: Any) -> Any:
    """Call a device function without patching the language again, as `_run` has: it is slow."""
    return function.rewrite()(*arguments, **keywords)


def _mend() -> None:
    # Triton itself refuses bf16 in roots, exponentials and their like.
    for name in ("binary_op", "create_fma"):
        setattr(_Builder, name, _in_float32(getattr(_Builder, name)))
    _Builder.get_bf16 = _get_bf16
    _Builder.cast_impl = _cast(_Builder.cast_impl)
    _Builder.create_dot = _dot(_Builder.create_dot)
    interpreter.ReduceOps.sum = _above_16_bits(interpreter.ReduceOps.sum)
    interpreter.ScanOps.cumsum = _above_16_bits(interpreter.ScanOps.cumsum)
    interpreter.ScanOps.cumprod = _above_16_bits(interpreter.ScanOps.cumprod)
    _Builder.create_masked_load = _load(_Builder.create_masked_load)
    _Builder.create_masked_store = _store(_Builder.create_masked_store)
    _Builder.create_atomic_rmw = _atomic(_Builder.create_atomic_rmw)
    _Builder.set_grid_idx = _set_grid_idx(_Builder.set_grid_idx)
    interpreter._patch_lang_tensor = _patch_lang_tensor(interpreter._patch_lang_tensor)
    interpreter.InterpretedFunction.run = _run(interpreter.InterpretedFunction.run)
    interpreter.InterpretedFunction.__call__ = _call
    builder = interpreter.interpreter_builder
    # Assertions in kernels hold; sums of integers are not computed twice to look for overflow.
    builder.options = replace(builder.options, debug=True, sanitize_overflow=False)
    # The interpreter multiplies any sizes; a GPU does not.
    builder.codegen_fns["min_dot_size"] = min_dot_size(GPUTarget("cuda", 90, 32))


_mend()
