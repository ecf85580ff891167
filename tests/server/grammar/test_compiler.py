"""Tests of the processes that compile grammars: real ones, killed and replaced."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from server_process import is_running

from skipserve.errors import InvalidRequestError, SkipserveError, UnavailableError
from skipserve.grammar.compiler import CompilersSpec, GrammarCompiler
from skipserve.grammar.messages import (
    Compile,
    Compiled,
    CompilerSpec,
    Refused,
    Reply,
    from_compiler,
    pack,
    spec_from_json,
    spec_to_json,
    to_compiler,
)
from skipserve.grammar.outcome import GrammarOutcome
from skipserve.grammar.structure import (
    CallForm,
    Calls,
    Choice,
    ContextFree,
    FunctionSchema,
    Json,
    Regex,
    Shape,
    Structure,
)

Run = Callable[[GrammarCompiler], Awaitable[None]]
CALLS = Calls((FunctionSchema("f", "{}", "p"),), CallForm.LIST, is_forced=True, is_parallel=False)
# Thousands of rules, each of which may begin with any other: tens of milliseconds, of which the
# clock that limits them misses the first few.
_NUM_RULES = 9000
ENDLESS = ContextFree(
    "start: r0\n"
    + "".join(
        f"r{at}: r{(at * 7 + 1) % _NUM_RULES} r{(at * 11) % _NUM_RULES} |\n"
        for at in range(_NUM_RULES)
    )
)


@pytest.fixture
def spec(checkpoint: Path) -> CompilersSpec:
    worker = CompilerSpec(checkpoint, cpu_seconds=20, memory_bytes=2**28)
    return CompilersSpec(worker, num_workers=1, max_kept=8, max_kept_bytes=2**16)


def run(act: Run, spec: CompilersSpec) -> list[str]:
    """Do something with a compiler; return what became of it. No process may be left."""
    outcomes: list[str] = []

    async def live() -> None:
        compiler = GrammarCompiler(spec, outcomes.append)
        process_ids: set[int] = set()
        try:
            await act(compiler)
        finally:
            process_ids |= set(compiler.process_ids)
            await compiler.close()
        assert not any(map(is_running, process_ids))

    asyncio.run(live())
    return outcomes


def test_grammars_are_compiled_refused_and_remembered(spec: CompilersSpec) -> None:
    good, bad = Structure(Choice(("a", "b")), "field"), Structure(Regex("("), "field")

    async def act(compiler: GrammarCompiler) -> None:
        first = await compiler.compile(good, b"one")
        assert await compiler.compile(replace(good, param="other"), b"two") == first
        for _ in range(2):
            with pytest.raises(InvalidRequestError, match="field cannot be followed") as caught:
                await compiler.compile(bad, b"one")
            assert caught.value.param == "field"
        assert len(compiler.process_ids) == 1

    expected = [GrammarOutcome.COMPILED, GrammarOutcome.CACHED]
    assert run(act, spec) == [*expected, GrammarOutcome.REFUSED, GrammarOutcome.CACHED]


def test_what_takes_too_much_is_killed_and_remembered(spec: CompilersSpec) -> None:
    """No CPU time at all is too little for anything: which grammar it is does not matter."""
    worker = CompilerSpec(spec.worker.model, 1e-6, 2**28)
    spec = replace(spec, worker=worker, max_kept_bytes=2**18)
    costly = Structure(ENDLESS, "field")

    async def act(compiler: GrammarCompiler) -> None:
        for _ in range(2):
            with pytest.raises(InvalidRequestError, match="more time or memory"):
                await compiler.compile(costly, b"one")
        assert not compiler.process_ids

    assert run(act, spec) == [GrammarOutcome.KILLED, GrammarOutcome.CACHED]


def test_memory_is_limited(spec: CompilersSpec) -> None:
    spec = replace(spec, worker=CompilerSpec(spec.worker.model, 20, 0))
    texts = tuple("x" * 60 + str(number) for number in range(900))

    async def act(compiler: GrammarCompiler) -> None:
        with pytest.raises(InvalidRequestError, match="memory"):
            await compiler.compile(Structure(Choice(texts), "field"), b"one")

    assert run(act, spec) in ([GrammarOutcome.KILLED], [GrammarOutcome.REFUSED])


def test_a_process_that_was_killed_is_replaced(spec: CompilersSpec) -> None:
    async def act(compiler: GrammarCompiler) -> None:
        await compiler.compile(Structure(Choice(("a",)), "field"), b"one")
        [process_id] = compiler.process_ids
        os.kill(process_id, signal.SIGKILL)
        while is_running(process_id):
            await asyncio.sleep(0.01)
        await compiler.compile(Structure(Choice(("b",)), "field"), b"one")
        assert compiler.process_ids != [process_id]

    assert run(act, spec) == [GrammarOutcome.COMPILED] * 2


def test_a_process_that_someone_kills_says_nothing_of_its_grammar(spec: CompilersSpec) -> None:
    async def act(compiler: GrammarCompiler) -> None:
        structure = Structure(Choice(("a",)), "field")
        task = asyncio.create_task(compiler.compile(structure, b"one"))
        while not compiler.process_ids:
            await asyncio.sleep(0.01)
        os.kill(compiler.process_ids[0], signal.SIGKILL)
        with pytest.raises(SkipserveError, match="crashed"):
            await task
        await compiler.compile(structure, b"one")

    assert run(act, spec) == [GrammarOutcome.COMPILED]


def test_what_nobody_waits_for_ends(spec: CompilersSpec) -> None:
    async def act(compiler: GrammarCompiler) -> None:
        task = asyncio.create_task(compiler.compile(Structure(ENDLESS, "field"), b"one"))
        while not compiler.process_ids:
            await asyncio.sleep(0.01)
        [process_id] = compiler.process_ids
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert not is_running(process_id)

    assert run(act, spec) == []


def test_none_is_compiled_after_the_end(spec: CompilersSpec) -> None:
    async def act(compiler: GrammarCompiler) -> None:
        await compiler.close()
        with pytest.raises(UnavailableError):
            await compiler.compile(Structure(Choice(("a",)), "field"), b"one")

    assert run(act, spec) == []


@pytest.mark.fast
@pytest.mark.parametrize(
    "shape", [Json("{}"), Regex("a"), Choice(("a", "\u20ac")), ContextFree("a"), CALLS]
)
def test_what_goes_to_a_process(shape: Shape) -> None:
    assert to_compiler(pack(Compile(shape))) == Compile(shape)


@pytest.mark.fast
@pytest.mark.parametrize("reply", [Compiled("start:"), Refused("no"), Refused("no", "tools[1]")])
def test_what_comes_from_a_process(reply: Reply) -> None:
    assert from_compiler(pack(reply)) == reply


@pytest.mark.fast
def test_a_spec_survives_a_command_line() -> None:
    spec = CompilerSpec(Path("/models/a b"), 0.5, 9, logs_json=True)
    assert spec_from_json(spec_to_json(spec)) == spec
