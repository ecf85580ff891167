"""Decode steps on frozen inputs: the same answers, and the right graph for each mix of plans.

On the CPU, which has no graphs, a replay runs the same forward on the same memory again.
"""

from pathlib import Path

import pytest
import torch
from tiny_llava import make_checkpoint

from skipserve.engine.engine import Engine
from skipserve.engine.inputs import StepRows
from skipserve.engine.scheduler import Step
from skipserve.engine.types import EngineLimits, Request, SamplingParams
from skipserve.model.llava import Llava
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
def fused(folder: Path) -> Llava:
    return Llava.load(folder, torch.device("cpu"), torch.float32, uses_triton=True)


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
        uses_graphs=uses_graphs,
        looks_ahead=looks_ahead,
        hot_plans=(HOT,),
    )


@pytest.mark.parametrize("looks_ahead", [False, True])
@pytest.mark.parametrize(
    "names",
    [["full"], ["hot"], ["full", "ffn", "parallel"], ["shared", "attention"], ["pair", "full"]],
    ids="-".join,
)
def test_answers_are_those_of_the_plain_model(
    fused: Llava, plain: Llava, names: list[str], looks_ahead: bool
) -> None:
    limits = _limits(uses_graphs=True, looks_ahead=looks_ahead)
    solo = {}
    for place, name in enumerate(names):
        engine = Engine(plain, _limits(uses_graphs=False))
        engine.add(_request(name, num_prompt=3 + place))
        solo[name] = [o.token_id for _ in range(4) for o in engine.step().outputs]
    assert _answers(Engine(fused, limits), names) == solo


def test_each_mix_of_plans_gets_its_graph(fused: Llava, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(fused, _limits(uses_graphs=True))
    graphs = engine._runner._graphs
    assert graphs is not None
    seen: list[tuple[bool, int] | None] = []
    run = graphs.run

    def watch(step: Step, rows: StepRows) -> tuple[torch.Tensor, torch.Tensor] | None:
        replayed = run(step, rows)
        key = graphs.choose(step, rows)
        seen.append(key and (key[0] == b"", key[1]))
        assert (replayed is None) == (key is None)
        return replayed

    monkeypatch.setattr(graphs, "run", watch)
    for names, expected in (
        (["full"], (False, 1)),
        (["hot"], (False, 1)),
        (["ffn"], (True, 1)),
        (["full", "hot"], (True, 2)),
        (["pair"], None),
    ):
        seen.clear()
        _answers(engine, names)
        # The prompt is a chunk; what follows is not.
        assert seen == [None, *[expected] * 3]
