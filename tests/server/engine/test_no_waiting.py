"""The host never waits for the device while it launches a step's sampling and inputs."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_parts import EngineParts
from fake_decoder import IMAGE_SIZE, NUM_LAYERS, make_request
from gpu_waiting import no_waiting_for_gpu
from grammar_parts import matcher_of, vocabulary_of
from meta_device import META, HostWaits, MetaWeights, NoWaiting
from tiny_llava import make_checkpoint
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from triton.runtime.interpreter import InterpretedFunction

from skipserve.engine.inputs import StepRows, build_batch
from skipserve.engine.limits import EngineLimits
from skipserve.engine.reports import StepMode
from skipserve.engine.request import Adjustments, SamplingParams
from skipserve.engine.runner import Runner
from skipserve.engine.sampler import Sampler, Samples
from skipserve.engine.scheduler import Step
from skipserve.engine.tables import UNREAD
from skipserve.grammar.structure import Regex
from skipserve.model.config import ModelConfig
from skipserve.model.llava import Llava
from skipserve_policies.narrowing import Narrowing, Stage
from skipserve_policies.plan import Plan, trim
from skipserve_policies.resolve import resolve
from skipserve_policies.schema import Dropper, Rule, SkipPolicy

pytestmark = pytest.mark.fast

VOCAB = 700

FASTV = Narrowing(Dropper.FASTV, (Stage(1, 2),))
DART = Narrowing(Dropper.DART, (Stage(2, 2),))
VTW = Narrowing(Dropper.VTW, (Stage(3, 0),))
PYRAMID = Narrowing(Dropper.PYRAMIDDROP, (Stage(1, 2), Stage(3, 1)), renumbers=True)
SPARSE = Narrowing(Dropper.SPARSEVLM, (Stage(1, 2), Stage(3, 1)), renumbers=True)
DROPS = {"fastv": FASTV, "vtw": VTW, "dart": DART, "pyramid": PYRAMID, "sparse": SPARSE}

ROWS: tuple[dict[str, Any], ...] = (
    {"temperature": 0.0},
    {"temperature": 1.0},
    {"temperature": 1.5, "top_k": 5},
    {"temperature": 1.0, "top_k": 600},
    {"temperature": 0.7, "top_p": 0.8, "num_top_logprobs": 2},
    {"temperature": 1.0, "min_p": 0.2},
    {"temperature": 0.0, "num_top_logprobs": 20},
    {"temperature": 0.0, "adjustments": Adjustments(logit_bias=((5, 1.0),), min_tokens=20)},
    {"temperature": 0.7, "adjustments": Adjustments(bad_words=((6,), (7,)), presence_penalty=1)},
)


SAMPLINGS = [list(ROWS), *([row, row] for row in ROWS)]


def _sample(logits: Tensor, samplings: list[dict[str, Any]]) -> Samples:
    sampler = Sampler(len(samplings))
    for seat, sampling in enumerate(samplings):
        sampler.place(seat, SamplingParams(max_tokens=1, seed=seat, **sampling))
    seats = np.arange(len(samplings))
    return sampler.sample(logits, seats, seats + 9)


@pytest.mark.parametrize("samplings", SAMPLINGS)
def test_sampling(samplings: list[dict[str, Any]]) -> None:
    logits = torch.empty(len(samplings), VOCAB, device=META)
    with NoWaiting():
        samples = _sample(logits, samplings)
    assert samples.token_ids.shape == (len(samplings),)
    assert samples.token_ids.dtype == torch.int64
    on_cpu = _sample(torch.zeros(len(samplings), VOCAB), samplings).copies.wait()
    for copy, wanted in zip(samples.copies.wait(), on_cpu, strict=True):
        assert (copy.shape, copy.dtype) == (wanted.shape, wanted.dtype)


def test_inputs() -> None:
    """Of prompts with images, and then of answers whose last token is not read yet."""
    parts = EngineParts()
    last_tokens = torch.empty(parts.tables.num_seats, dtype=torch.int64, device=META)
    for i in range(3):
        parts.add(make_request(str(i), num_text=i + 1, num_images=i % 2))
    for _ in range(2):
        step = parts.scheduler.schedule()
        rows = StepRows.of(step, parts.tables)
        with NoWaiting():
            inputs = build_batch(step, rows, parts.tables, parts.plans, None, last_tokens)
        assert inputs.batch.token_ids.device == META
        assert len(inputs.batch.token_ids) == step.num_rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(
        tmp_path_factory.mktemp("meta"), num_layers=NUM_LAYERS, image_size=IMAGE_SIZE, patch_size=2
    )


@pytest.fixture(scope="module")
def model(folder: Path) -> Llava:
    return Llava.assemble(ModelConfig.from_folder(folder), MetaWeights(), uses_triton=True)


@pytest.mark.kernels
@pytest.mark.parametrize("uses_graphs", [False, True])
def test_whole_steps(model: Llava, uses_graphs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of chunks, images, mixed plans and answers, with kernels that are launched and do nothing."""
    launched: list[str] = []
    monkeypatch.setattr(
        InterpretedFunction, "run", lambda kernel, *_, **__: launched.append(kernel.__name__)
    )
    parts = EngineParts(max_rows=9)
    runner = _runner(model, parts, uses_graphs=uses_graphs)
    assert set(launched) >= {"_norm_row", "_project", "_add_rows", "_decode", "_prefill"}
    for step in _steps(parts):
        launched.clear()
        with NoWaiting():
            runner.launch(step)
        assert launched


@pytest.mark.kernels
def test_a_graph_is_one_for_rows_of_whatever_prompts(
    model: Llava, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an answer's step launches and copies is the same, whatever rows have left its prompt."""
    launched: list[tuple[object, ...]] = []

    def note(kernel: InterpretedFunction, *arguments: object, grid: object, **_: object) -> None:
        shapes = [it.shape if isinstance(it, Tensor) else it for it in arguments]
        launched.append((kernel.__name__, grid, *shapes))

    monkeypatch.setattr(InterpretedFunction, "run", note)
    parts = EngineParts(reuses_prefixes=False)
    runner = _runner(model, parts, uses_graphs=True)
    seen, seen_of = [], set()
    for mix in (
        (None, None, None),
        (FASTV, FASTV, FASTV),
        (None, FASTV, SPARSE),
        (VTW, DART, PYRAMID),
    ):
        for number, narrowing in enumerate(mix):
            request = make_request(
                str(number), num_text=5, num_images=1, max_tokens=6, narrowing=narrowing
            )
            parts.add(request)
        while parts.scheduler.num_running or parts.scheduler.num_waiting:
            step = parts.scheduler.schedule()
            launched.clear()
            with NoWaiting() as watched:
                done = runner.launch(step)
            if done.mode is StepMode.UNIFORM and step.num_rows == 3:
                seen.append((watched.num_copies, watched.num_bytes, *launched))
                seen_of.add(mix)
            parts.finish(step, UNREAD)
    assert len(seen_of) == 4
    assert len(set(seen)) == 1
    num_copies, num_bytes, *launches = seen[0]
    # Of each of four rows: token and seat, three numbers a layer, and the page table.
    table = parts.tables.pages.shape[1]
    assert (num_copies, num_bytes) == (1, 8 * 4 * (2 + 3 * NUM_LAYERS + table))
    # Seven a layer, and the last normalisation.
    assert len(launches) == 7 * NUM_LAYERS + 1


class Operations(TorchDispatchMode):
    """While it is entered, notes which operations run on the device, and on what types."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[tuple[str, ...]] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given = [it for it in tree_leaves((args, kwargs)) if isinstance(it, Tensor)]
        if any(it.is_meta for it in given):
            self.seen.add((str(func), *(str(it.dtype) for it in given)))
        return func(*args, **kwargs or {})


@pytest.mark.kernels
def test_what_a_grammar_forbids_is_loaded_when_an_engine_starts(
    model: Llava, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU loads an operation when it first runs: not in the first answer that has a grammar."""
    monkeypatch.setattr(InterpretedFunction, "run", lambda *_, **__: None)
    with Operations() as start:
        _runner(model, EngineParts(), uses_graphs=False)
    sampler = Sampler(2)
    held = SamplingParams(1, temperature=0.0, adjustments=Adjustments())
    tokens = np.zeros(9, dtype=np.int64)
    sampler.place(0, held, tokens, 5, matcher_of(Regex("[a-f]+")))
    sampler.place(1, SamplingParams(1, temperature=0.0))
    with Operations() as answering:
        logits = torch.empty(2, vocabulary_of()[1].size, device=META)
        sampler.sample(logits, np.arange(2), np.array([5, 5]))
    assert ("aten.__rshift__.Tensor", "torch.int64", "torch.int64") in answering.seen
    assert answering.seen <= start.seen


@pytest.mark.parametrize("uses_graphs", [False, True])
def test_whole_steps_on_a_gpu(folder: Path, uses_graphs: bool, gpu: torch.device) -> None:
    model = Llava.load(folder, gpu, torch.float32)
    parts = EngineParts(max_rows=9)
    runner = _runner(model, parts, uses_graphs=uses_graphs)
    for step in _steps(parts):
        with no_waiting_for_gpu():
            runner.launch(step)


def _runner(model: Llava, parts: EngineParts, *, uses_graphs: bool) -> Runner:
    limits = EngineLimits(uses_graphs=uses_graphs)
    return Runner(model, parts.tables, parts.plans, parts.pool.num_pages, 9, limits)


def _steps(parts: EngineParts) -> Iterator[Step]:
    """Yield steps of chunks, images, mixed plans and answers, each to be launched."""
    for name, plan in (
        ("serial", Plan.full(NUM_LAYERS)),
        ("pair", _plan(Rule(action="parallel_blocks", layers=[1], scope="prompt"))),
        ("frozen", _plan(Rule(action="skip_attention", layers=[2], scope="visual"))),
        ("parallel", _plan(Rule(**PARALLEL, layers=[0, 1], scope="answer"))),
    ):
        parts.add(make_request(name, num_text=4, num_images=1, plan=trim(plan), temperature=0.5))
    scoring = make_request("scoring", num_text=4, plan=Plan.full(NUM_LAYERS))
    parts.add(replace(scoring, num_prompt_logprobs=3))
    for name, narrowing in DROPS.items():
        parts.add(make_request(name, num_text=5, num_images=1, narrowing=narrowing))
    while parts.scheduler.num_running or parts.scheduler.num_waiting:
        step = parts.scheduler.schedule()
        yield step
        parts.finish(step, UNREAD)


PARALLEL: dict[str, Any] = {"action": "parallel_ffn_attention", "shared_norm": False}


def _plan(*rules: Rule) -> Plan:
    return resolve("test", SkipPolicy(rules=rules), NUM_LAYERS).plan


@pytest.mark.parametrize(
    "waits",
    [
        lambda x: x[torch.tensor([0])],
        lambda x: x.index_select(0, torch.tensor([0])),
        lambda x: x.index_put_((torch.tensor([0]),), torch.zeros((), device=META)),
        lambda x: x[x > 0],
        lambda x: x.index_put_((x > 0,), torch.zeros((), device=META)),
        lambda x: x.nonzero(),
        lambda x: x.sum().item(),
        lambda x: x.copy_(torch.zeros(3)),
        lambda x: x + torch.zeros(3).to(META),
        lambda x: bool(x.equal(x)),
    ],
)
def test_what_waits_is_seen(waits: Callable[[Tensor], object]) -> None:
    with NoWaiting(), pytest.raises(HostWaits):
        waits(torch.empty(3, device=META))


def test_what_does_not_wait_is_let_through() -> None:
    x = torch.empty(3, device=META)
    with NoWaiting():
        x.copy_(torch.zeros(3), non_blocking=True)
        x[:2].add_(1).mul_(torch.tensor(2.0))
        (x > 0)[torch.arange(2, device=META)] = False
        assert x.to(torch.int64)[torch.arange(2, device=META)].shape == (2,)


@pytest.mark.parametrize("samplings", SAMPLINGS)
def test_sampling_on_a_gpu(samplings: list[dict[str, Any]], gpu: torch.device) -> None:
    logits = torch.randn(len(samplings), VOCAB, device=gpu)
    wanted = _sample(logits.cpu(), samplings).read()
    with no_waiting_for_gpu():
        samples = _sample(logits, samplings)
    found = samples.read()
    assert found.logprobs.keys() == wanted.logprobs.keys()
    for row, sampling in enumerate(samplings):
        if sampling["temperature"] == 0:
            assert found.token_ids[row] == wanted.token_ids[row]
