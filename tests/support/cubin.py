"""Reads what a compiled kernel needs of a multiprocessor, with the tools that come with Triton."""

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import triton

_TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
_LINE = re.compile(r'//## File "(?P<file>[^"]+)", line (?P<number>\d+)')
_INSTRUCTION = re.compile(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?(?P<name>[A-Z][\w.]*)")
_PRODUCTS = ("HGMMA", "HMMA")
_FLOAT32_PRODUCT = "FFMA"
_SPILLS = ("STL", "LDL")
_LOADS = ("LDG", "LDGSTS")
_WIDTHS = {"128": 128, "64": 64, "U16": 16, "S16": 16, "U8": 8, "S8": 8}


@dataclass(frozen=True, slots=True)
class Cubin:
    """What one binary consists of, as it stands there: a loop's instructions count once.

    Attributes:
        registers: of a thread.
        products: how often each instruction of the tensor cores stands in it, by name.
        num_spills: stores to and loads from the stack.
        num_loop_spills: those between the first and the last product, so in the inner loop; of
            float32 a product of any two numbers counts, as the tensor cores have none.
        loads: how often loads from global memory stand in it, by source line and width in bits.
    """

    registers: int
    products: dict[str, int]
    num_spills: int
    num_loop_spills: int
    loads: dict[str, dict[int, int]] = field(default_factory=dict)


def read_cubin(cubin: bytes) -> Cubin:
    """Disassemble a binary and count what matters in it."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = _run("cuobjdump", "--dump-resource-usage", file.name)
        listing = _run("nvdisasm", "--print-code", "--print-line-info", file.name)
    registers = re.search(r"REG:(\d+)", usage)
    assert registers, f"cuobjdump told no registers: {usage}"
    return read_listing(listing, int(registers[1]))


def read_listing(listing: str, registers: int) -> Cubin:
    """Count what matters in a disassembled binary."""
    instructions = _instructions(listing)
    names = [instruction.name for instruction in instructions]
    multiplying = _PRODUCTS if set(_PRODUCTS) & set(names) else (_FLOAT32_PRODUCT,)
    products = [place for place, name in enumerate(names) if name in multiplying]
    loop = names[products[0] : products[-1]] if products else []
    loads: dict[str, Counter[int]] = {}
    for load in (one for one in instructions if one.name in _LOADS):
        width = next((_WIDTHS[word] for word in load.modifiers if word in _WIDTHS), 32)
        loads.setdefault(load.line, Counter())[width] += 1
    return Cubin(
        registers=registers,
        products=Counter(name for name in names if name in _PRODUCTS),
        num_spills=sum(names.count(name) for name in _SPILLS),
        num_loop_spills=sum(loop.count(name) for name in _SPILLS),
        loads={line: dict(widths) for line, widths in loads.items()},
    )


def _run(tool: str, *arguments: str) -> str:
    done = subprocess.run([_TOOLS / tool, *arguments], capture_output=True, text=True, check=True)
    return done.stdout


@dataclass(frozen=True, slots=True)
class _Instruction:
    name: str
    modifiers: tuple[str, ...]
    line: str


def _instructions(listing: str) -> list[_Instruction]:
    """Return the instructions of a listing, each with the text of the line that it comes from."""
    found, line = [], ""
    for text in listing.splitlines():
        if place := _LINE.search(text):
            line = _source_line(place["file"], int(place["number"]))
        elif instruction := _INSTRUCTION.search(text):
            name, *modifiers = instruction["name"].split(".")
            found.append(_Instruction(name, tuple(modifiers), line))
    assert found, f"nvdisasm gave no instruction: {listing[:200]}"
    return found


@cache
def _source_line(file: str, number: int) -> str:
    path = Path(file)
    return f"{path.name}:{number}: {path.read_text().splitlines()[number - 1].strip()}"
