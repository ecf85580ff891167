"""What the compiler makes of the kernels, for GPUs that need not be there."""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from compiled_kernels import Binary, compile_launches
from cubin import Cubin, read_listing

import skipserve_kernels
from skipserve_kernels.fused.tiles import TILES, Kernel

pytestmark = pytest.mark.kernels

# Shared memory that one program may have, in bytes.
SHARED_MEMORY = {80: 163 * 1024, 90: 227 * 1024}

# What each kernel reads most of, as its loads name it; by whether it has a tile of the table.
READ_IN_BULK = {
    ("_project", True): {"x", "weight"},
    ("_project", False): {"places"},
    ("_decode", True): {"KEYS", "VALUES"},
    ("_prefill", True): {"KEYS", "VALUES"},
    ("_score", True): {"KEYS"},
    # Scores of a sequence begin anywhere: four bytes a thread, side by side.
    ("_mean", False): set(),
    ("_norm_row", False): {"X", "GAIN"},
    ("_add_rows", False): {"ADDED", "places"},
}
FULL_WIDTH = 128
# Launches of float32 begin with these words.
FLOAT32 = ("demo", "wide")
# Ids of pages and rows, slots, positions, gates: a few numbers for each row, not for each channel.
MOST_NARROW_LOADS = 48


def faults_of(binary: Binary) -> list[str]:
    """Tell what is wrong with a binary."""
    checks = (find_spills, find_slow_products, find_large_memory, find_narrow_loads)
    return [f"{binary}: {fault}" for check in checks for fault in check(binary)]


def find_spills(binary: Binary) -> Iterator[str]:
    """Only prefill attention may keep numbers on the stack, and not in its inner loop."""
    cubin = binary.cubin
    may_spill = binary.kernel == "_prefill"
    if count := cubin.num_loop_spills if may_spill else cubin.num_spills:
        yield f"{count} spills, with {cubin.registers} registers"


def find_slow_products(binary: Binary) -> Iterator[str]:
    """Products run on the tensor cores, by Hopper's own instruction where it has its 64 rows."""
    if binary.place is None:
        return
    expected = {"HGMMA" if binary.arch >= 90 and TILES[binary.place].rows >= 64 else "HMMA"}
    if binary.launch.startswith(FLOAT32):
        expected = set()  # They have no exact product of it.
    if binary.cubin.products.keys() != expected:
        yield f"multiplies by {sorted(binary.cubin.products)}, not {sorted(expected)}"


def find_large_memory(binary: Binary) -> Iterator[str]:
    """Shared memory must do for one program at least."""
    if binary.shared_memory > SHARED_MEMORY[binary.arch]:
        yield f"{binary.shared_memory} bytes of shared memory"


def find_narrow_loads(binary: Binary) -> Iterator[str]:
    """What is read in bulk is read in full width, and of the rest there is not much."""
    bulk = READ_IN_BULK[_form(binary)]
    # The small tiles of float32 prefill attention leave a thread few numbers.
    is_small = binary.kernel == "_prefill" and binary.launch.startswith(FLOAT32)
    full_width = FULL_WIDTH // 2 if is_small else FULL_WIDTH
    found = {loaded_name(line) for line in binary.cubin.loads}
    if not bulk <= found:
        yield f"no loads of {sorted(bulk - found)}, only of {sorted(found)}"
    num_narrow = 0
    for line, numbers in binary.cubin.loads.items():
        narrow = {width: number for width, number in numbers.items() if width < full_width}
        num_narrow += sum(narrow.values())
        if narrow and loaded_name(line) in bulk:
            yield f"loads of so many bits, so often, {narrow} by {line}"
    if num_narrow > MOST_NARROW_LOADS:
        yield f"{num_narrow} narrow loads, by {binary.cubin.loads}"


def _form(binary: Binary) -> tuple[str, bool]:
    return binary.kernel, binary.place is not None


def loaded_name(line: str) -> str:
    """Return what a line loads from, up to an underscore: x of `tl.load(x_rows + inner, ...`."""
    found = re.search(r"tl\.load\(([A-Za-z]+)|:\d+: ([A-Za-z]+) [+*]", line)
    return (found[1] or found[2]) if found else ""


@pytest.fixture
def cache(request: pytest.FixtureRequest) -> Path:
    """A folder for binaries, kept for the next run; another one where the sources lie elsewhere.

    Binaries say which line of which file an instruction comes from, and Triton finds them by what
    the file says, wherever it is.
    """
    assert request.config.cache is not None
    sources = sorted(map(str, Path(skipserve_kernels.__file__).parent.rglob("*.py")))
    digest = hashlib.sha256("\n".join(sources).encode()).hexdigest()[:16]
    return request.config.cache.mkdir(f"triton-{digest}")


def test_one_tile_compiles_as_it_should(cache: Path) -> None:
    binaries = compile_launches(["7b input FFN rows=64 gates"], [90], cache)
    assert [binary.place for binary in binaries] == [(90, Kernel.INPUT_PROJECTION, 64)]
    assert faults_of(binaries[0]) == []


@pytest.mark.slow
def test_everything_compiles_as_it_should(cache: Path) -> None:
    binaries = compile_launches(["7b", "13b", "grouped", "wide", "demo"], [80, 90], cache)
    assert "\n".join(fault for binary in binaries for fault in faults_of(binary)) == ""
    assert {binary.place for binary in binaries if binary.place} == TILES.keys()
    assert {_form(binary) for binary in binaries} == READ_IN_BULK.keys()
    decode = [binary.launch for binary in binaries if binary.kernel == "_decode"]
    splits = [launch for launch in decode if launch.startswith("7b") and "gates" not in launch]
    assert len(splits) == 2 * 4, "1, 2, 4 and 8 splits are to be compiled"


FINE = Binary(
    launch="7b decode rows=1",
    kernel="_decode",
    arch=90,
    place=(90, Kernel.PAGED_DECODE, 64),
    shared_memory=38000,
    cubin=Cubin(
        registers=92,
        products={"HMMA": 32},
        num_spills=0,
        num_loop_spills=0,
        loads={
            "triton.py:7: page = tl.load(TABLE + start)": {64: 12},
            "triton.py:8: keys = tl.load(KEYS + numbers)": {128: 16},
            "triton.py:9: VALUES + numbers,": {128: 16},
        },
    ),
)


def changed(**changes: Any) -> Binary:
    return replace(FINE, cubin=replace(FINE.cubin, **changes))


PREFILL = replace(FINE, kernel="_prefill", place=(90, Kernel.PAGED_PREFILL, 64))


@pytest.mark.fast
@pytest.mark.parametrize(
    ("binary", "fault"),
    [
        (changed(num_spills=2), "2 spills, with 92 registers"),
        (changed(products={}), "multiplies by [], not ['HMMA']"),
        (PREFILL, "multiplies by ['HMMA'], not ['HGMMA']"),
        (replace(FINE, shared_memory=233_000), "233000 bytes of shared memory"),
        (
            changed(loads={**FINE.cubin.loads, "a.py:8: k = tl.load(KEYS)": {128: 1, 32: 4}}),
            "{32: 4}",
        ),
        (changed(loads={"a.py:8: k = tl.load(KEYS)": {128: 1}}), "no loads of ['VALUES']"),
        (
            changed(loads={**FINE.cubin.loads, "a.py:7: tl.load(TABLE)": {64: 49}}),
            "61 narrow loads",
        ),
    ],
)
def test_gate_finds(binary: Binary, fault: str) -> None:
    [found] = faults_of(binary)
    assert fault in found
    assert found.startswith(f"sm_90 {binary.kernel} for '7b decode rows=1', TILES[90, paged_")


@pytest.mark.fast
def test_gate_lets_pass_what_is_fine() -> None:
    assert faults_of(FINE) == []
    prefill = replace(PREFILL, cubin=replace(FINE.cubin, products={"HGMMA": 1}, num_spills=3))
    assert faults_of(prefill) == []


@pytest.mark.fast
def test_listing_is_counted() -> None:
    cubin = read_listing(LISTING.format(file=__file__), registers=40)
    assert cubin.products == {"HMMA": 2}
    assert cubin.num_spills == 3
    assert cubin.num_loop_spills == 1
    float32 = read_listing(LISTING.format(file=__file__).replace("HMMA", "FFMA"), registers=40)
    assert float32.products == {}
    assert float32.num_loop_spills == 1
    [first, second] = cubin.loads
    assert first.startswith("test_compiled.py:1: ")
    assert second.startswith("test_compiled.py:3: ")
    assert cubin.loads == {first: {128: 1, 64: 1}, second: {128: 1, 32: 1, 16: 1}}


LISTING = """
        //## File "{file}", line 1
        /*0000*/                   STL.64 [R1+0x8], R2 ;
        /*0010*/              @!P0 LDGSTS.E.BYPASS.LTC128B.128 [R33], desc[UR10][R26.64] ;
        /*0020*/                   LDG.E.64 R2, desc[UR4][R6.64] ;
        /*0030*/                   HMMA.16816.F32.BF16 R4, R8, R2, R4 ;
        //## File "{file}", line 3
        /*0040*/                   LDL R9, [R1+0x8] ;
        /*0050*/             @UP1  LDG.E.EF.128 R4, desc[UR4][R6.64] ;
        /*0060*/                   LDG.E R4, desc[UR4][R6.64] ;
        /*0070*/                   LDGDEPBAR ;
        /*0080*/                   LDG.E.U16 R4, desc[UR4][R6.64] ;
        /*0090*/                   HMMA.16816.F32.BF16 R4, R8, R2, R4 ;
        /*00a0*/                   LDL.64 R2, [R1] ;
"""
