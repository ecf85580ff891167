"""Decode steps on frozen inputs: the same answers, and the right graph for each mix of plans.

On the CPU, which has no graphs, a replay runs the same forward on the same memory again.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path

import pytest
import torch
from tiny_llava import make_checkpoint

from skipserve.engine.engine import Engine
from skipserve.engine.graphs import _Capturer
from skipserve.engine.limits import EngineLimits
from skipserve.engine.reports import StepMode
from skipserve.engine.request import Request, SamplingParams
from skipserve.model.llava import Llava
from skipserve.model.work import Every, GatedWork
from skipserve_policies.flops import prompt_classes
from skipserve_policies.plan import Plan, TokenClass, trim
from skipserve_policies.resolve import resolve
from skipserve_policies.schema import Rule, SkipPolicy

pytestmark = pytest.mark.kernels

NUM_LAYERS = 3
MAX_RUNNING = 3


def _plan(*rules: Rule) -> Plan:
    return resolve("test", SkipPolicy(rules=rules), NUM_LAYERS).plan


FULL = trim(Plan.full(NUM_LAYERS))
HOT = _plan(Rule(action="skip_block", layers=[1], scope="generated"))
PLANS = {
    "full": FULL,
    "hot": HOT,
    "ffn": _plan(Rule(action="skip_ffn", layers=[0], scope="generated")),
    "attention": _plan(Rule(action="skip_attention", layers=[1], scope="all", shared_norm=True)),
    "parallel": _plan(
        Rule(action="parallel_ffn_attention", layers=[1], scope="generated", shared_norm=False)
    ),
    "shared": _plan(
        Rule(action="parallel_ffn_attention", layers=[0, 1], scope="all", shared_norm=True)
    ),
    "pair": _plan(Rule(action="parallel_blocks", layers=[0], scope="generated")),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(
        tmp_path_factory.mktemp("graphs"),
        num_layers=NUM_LAYERS,
        num_kv_heads=2,
        ffn=48,
        max_positions=32,
    )


@pytest.fixture(scope="module")
def fused(folder: Path, device: torch.device) -> Llava:
    return Llava.load(folder, device, torch.float32, uses_triton=True)


@pytest.fixture(scope="module")
def plain(folder: Path) -> Llava:
    return Llava.load(folder, torch.device("cpu"), torch.float32)


def _request(name: str, *, num_prompt: int = 3, max_tokens: int = 4) -> Request:
    seed = sum(map(ord, name))
    return Request(
        id=name,
        prompt_ids=tuple((seed + 37 * place) % 250 + 5 for place in range(num_prompt)),
        token_classes=prompt_classes([(TokenClass.TEXT, num_prompt)]),
        images=(),
        sampling=SamplingParams(max_tokens, temperature=0.0, ends_at_eos=False),
        policy_name=name,
        plan=PLANS[name],
    )


def _answers(engine: Engine, names: list[str]) -> dict[str, list[int]]:
    answers: dict[str, list[int]] = {name: [] for name in names}
    for number, name in enumerate(names):
        engine.add(_request(name, num_prompt=3 + number))
    while engine.has_work:
        for output in engine.step().outputs:
            if output.token_id is not None:
                answers[output.request_id].append(output.token_id)
    assert engine.check() == []
    return answers


def _limits(*, uses_graphs: bool, looks_ahead: bool = False) -> EngineLimits:
    return EngineLimits(
        max_running=MAX_RUNNING,
        page_size=4,
        kv_cache_bytes=2**20,
        uses_graphs=uses_graphs,
        looks_ahead=looks_ahead,
        hot_plans=(HOT,),
    )


@pytest.fixture(scope="module")
def engine(fused: Llava) -> Engine:
    return Engine(fused, _limits(uses_graphs=True))


@pytest.fixture(scope="module")
def ahead(fused: Llava) -> Engine:
    return Engine(fused, _limits(uses_graphs=True, looks_ahead=True))


def _solo(plain: Llava, names: list[str]) -> dict[str, list[int | None]]:
    """Return the answer that each gets alone, of the plain model."""
    solo = {}
    for place, name in enumerate(names):
        engine = Engine(plain, _limits(uses_graphs=False))
        engine.add(_request(name, num_prompt=3 + place))
        solo[name] = [output.token_id for _ in range(4) for output in engine.step().outputs]
    return solo


@pytest.mark.parametrize(
    "names",
    [["full"], ["hot"], ["full", "ffn", "parallel"], ["shared", "attention"], ["pair", "full"]],
    ids="-".join,
)
def test_answers_are_those_of_the_plain_model(
    engine: Engine, ahead: Engine, plain: Llava, names: list[str]
) -> None:
    solo = _solo(plain, names)
    assert _answers(engine, names) == solo
    assert _answers(ahead, names) == solo


def test_each_mix_of_plans_gets_its_graph(engine: Engine) -> None:
    graphs = engine._runner._graphs
    assert graphs is not None
    replayed: list[tuple[bool, int]] = []
    for key, graph in graphs._graphs.items():
        note = partial(replayed.append, (key[0] == b"", key[1]))
        graphs._graphs[key] = replace(graph, replay=partial(_both, note, graph.replay))
    for names, expected in (
        (["full"], [(False, 1)] * 3),
        (["hot"], [(False, 1)] * 3),
        (["ffn"], [(True, 1)] * 3),
        (["full", "hot"], [(True, 2)] * 3),
        (["pair"], []),
    ):
        replayed.clear()
        _answers(engine, names)
        # The prompt is a chunk; what follows is not.
        assert replayed == expected


def test_each_step_says_how_it_ran(engine: Engine) -> None:
    for name, mode in (
        ("full", StepMode.UNIFORM),
        ("ffn", StepMode.GATED),
        ("pair", StepMode.EAGER),
    ):
        engine.add(_request(name))
        reports = [engine.step().report for _ in range(4)]
        assert [it.mode for it in reports if it] == [StepMode.EAGER, mode, mode, mode]


def _both(first: Callable[[], object], second: Callable[[], object]) -> None:
    first()
    second()


def test_a_graph_reads_nothing_that_could_be_freed(engine: Engine) -> None:
    """A captured graph knows addresses alone: what it reads must lie in what is kept."""
    graphs = engine._runner._graphs
    assert graphs is not None
    for (column, bucket), _ in graphs._graphs.items():
        room = graphs._inputs[bucket]
        batch = graphs._batch(column, room)
        (segment,) = batch.segments
        work = segment.work
        tensors = [batch.token_ids, batch.visual_rows, batch.logit_rows]
        for group in segment.kv_groups:
            tensors += [group.slots, group.places, group.positions, group.tables.device]
        tensors += [work.gates] if isinstance(work, GatedWork) else []
        for tensor in tensors:
            assert tensor.untyped_storage().data_ptr() == room.numbers.untyped_storage().data_ptr()
        assert all(isinstance(rows, Every) for kind in work.kinds for rows in kind)


def test_without_memory_for_more_the_graphs_there_are_are_used(
    fused: Llava, plain: Llava, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest come first: here those of three rows, of which one is left over for any mix."""
    captured = count()

    def capture(self: _Capturer, forward: Callable[[], torch.Tensor]) -> object:
        if next(captured) == 1:
            raise RuntimeError("CUDA error: out of memory")
        return real(self, forward)

    real = _Capturer.capture
    monkeypatch.setattr(_Capturer, "capture", capture)
    engine = Engine(fused, _limits(uses_graphs=True))
    graphs = engine._runner._graphs
    assert graphs is not None
    assert list(graphs._graphs) == [(b"", MAX_RUNNING)]
    assert _answers(engine, ["full"]) == _solo(plain, ["full"])


def test_what_is_wrong_with_a_capture_is_told(
    fused: Llava, monkeypatch: pytest.MonkeyPatch
) -> None:
    def capture(self: _Capturer, forward: Callable[[], torch.Tensor]) -> object:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(_Capturer, "capture", capture)
    with pytest.raises(RuntimeError, match="not permitted"):
        Engine(fused, _limits(uses_graphs=True))
