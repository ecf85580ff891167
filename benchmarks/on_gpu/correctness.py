"""Whether the device computes what it should: kernels, blocks, graphs, and that nothing waits."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from on_gpu.bench import Bench, Rows, rule_plan
from on_gpu.kernel_checks import CHECKS, count_changes, error_share, split_trials
from on_gpu.kernels import check_kernel, setting_of
from on_gpu.lineup import PAGE_SIZE, Lineup
from on_gpu.record import SHARE_UNIT
from random_weights import RandomWeights, model_config, with_layers
from report import Row
from torch import Tensor

from skipserve.engine.graphs import DecodeGraphs
from skipserve.engine.inputs import StepRows, build_batch
from skipserve.engine.runner import Runner
from skipserve.engine.scheduler import Step
from skipserve.engine.types import EngineLimits
from skipserve.model.layers import KVCache
from skipserve.model.llava import Llava
from skipserve_policies.plan import Plan, trim

# Few layers show all that blocks do with each other.
_NUM_LAYERS = 3
_CONTEXT = 9


@torch.inference_mode()
def check_all(bench: Bench) -> Rows:
    """Check kernels on their own, results that programs share, blocks, graphs, and launches."""
    for kernel in CHECKS:
        yield from check_kernel(bench, kernel)
    num_trials = bench.amount.num_trials
    for kernel, num_rows, launch in split_trials(setting_of(bench)):
        changes = count_changes(launch, num_trials)
        bench.exactness[kernel] &= changes == 0
        name = f"{kernel}/{num_rows} rows, other bits in {num_trials} launches"
        yield Row(name, changes, "times", target=0, is_limit=True)
    subject = Subject.make(bench)
    yield from subject.check_blocks()
    yield from subject.check_graphs()
    yield from subject.check_launches(bench.notes)


@dataclass(frozen=True)
class Subject:
    """A model of few layers: in Triton kernels, in plain operations, and in float32.

    Attributes:
        fused: in Triton kernels.
        plain: in torch's operations, in the same type: how exact that type can be.
        exact: the same weights in float32.
        lineup: sequences.
        plans: one for each; all that a block can do, side by side.
    """

    fused: Llava
    plain: Llava
    exact: Llava
    lineup: Lineup
    plans: tuple[Plan, ...]

    @classmethod
    def make(cls, bench: Bench) -> "Subject":
        """Build all three."""
        config = model_config(with_layers(bench.shape, _NUM_LAYERS))
        rounded = RandomWeights(bench.device, bench.dtype)
        wide = RandomWeights(bench.device, torch.float32, rounding=bench.dtype)
        plans = tuple(different_plans(_NUM_LAYERS))
        return cls(
            fused=Llava.assemble(config, rounded, uses_triton=True),
            plain=Llava.assemble(config, rounded, uses_triton=False),
            exact=Llava.assemble(config, wide, uses_triton=False),
            lineup=Lineup(config, len(plans), _CONTEXT),
            plans=plans,
        )

    def check_blocks(self) -> Rows:
        """Compare the logits of prompts and of decoded rows, alone and mixed."""
        for name, plans in self._mixes():
            with self.lineup.steps(plans, _CONTEXT) as steps:
                ours, plain, exact = (
                    list(self._eager(model, [steps.prefill, steps.decode]))
                    for model in (self.fused, self.plain, self.exact)
                )
            results = zip(("prefill", "decode"), ours, plain, exact, strict=True)
            for stage, *logits in results:
                yield self._share_row(f"blocks against float32/{name}, {stage}", *logits)

    def check_graphs(self) -> Rows:
        """Compare the logits of decoded rows that a graph computes with those of float32."""
        cache = self._new_cache(self.fused)
        last_tokens = self._last_tokens()
        graphs = DecodeGraphs(
            self.fused, cache, self.lineup.tables, self.lineup.plans, last_tokens, [self.plans[0]]
        )
        for name, plans in self._mixes():
            with self.lineup.steps(plans, _CONTEXT) as steps:
                _, eager = self._eager(self.fused, [steps.prefill, steps.decode], cache)
                replayed = graphs.run(steps.decode, StepRows.of(steps.decode, self.lineup.tables))
                assert replayed is not None
                logits = replayed[0].clone()
                _, plain = self._eager(self.plain, [steps.prefill, steps.decode])
                _, exact = self._eager(self.exact, [steps.prefill, steps.decode])
            yield self._share_row(f"graphs against float32/{name}", logits, plain, exact)
            difference = (logits - eager).abs().max() / exact.abs().max()
            yield Row(f"graphs against eager/{name}", 100 * difference.item(), "% of the scale")

    def check_launches(self, notes: list[str]) -> Rows:
        """Launch decode steps, of graphs and not, that must not make the host wait."""
        lineup = self.lineup
        kinds = {"eager": False}
        if self.fused.device.type == "cuda":
            kinds["graphs"] = True
        for name, uses_graphs in kinds.items():
            limits = EngineLimits(max_running=len(self.plans), uses_graphs=uses_graphs)
            runner = Runner(self.fused, lineup.tables, lineup.plans, lineup.num_pages, 1, limits)
            with lineup.steps(self.plans, _CONTEXT) as steps:
                for step in (steps.prefill, steps.decode):
                    runner.launch(step)
                wait = _find_wait(runner, steps.decode, self.fused.device)
            if wait is not None:
                notes.append(f"the launch of a step ({name}) waits: {wait}")
            found = float(wait is not None)
            yield Row(f"launch of a step/waits, {name}", found, "times", 0, is_limit=True)

    def _mixes(self) -> Iterator[tuple[str, list[Plan]]]:
        yield "full", [self.plans[0]] * 2
        yield "all kinds of work", list(self.plans)

    def _eager(
        self, model: Llava, steps: Sequence[Step], cache: KVCache | None = None
    ) -> Iterator[Tensor]:
        """Yield the logits of steps that follow each other."""
        cache = cache or self._new_cache(model)
        last_tokens = self._last_tokens()
        for step in steps:
            rows = StepRows.of(step, self.lineup.tables)
            inputs = build_batch(step, rows, self.lineup.plans, None, last_tokens)
            yield model.forward(inputs.batch, cache)

    def _new_cache(self, model: Llava) -> KVCache:
        """Return room that shows what was not written."""
        cache = model.new_cache(self.lineup.num_pages, PAGE_SIZE)
        for layer in cache.layers:
            layer.keys.fill_(torch.nan)
            layer.values.fill_(torch.nan)
        return cache

    def _share_row(self, name: str, actual: Tensor, plain: Tensor, exact: Tensor) -> Row:
        """Judge logits; those of 16-bit models hold no more than 16 bits."""
        dtype = self.fused.dtype
        share = error_share(actual.to(dtype), plain.to(dtype), exact)
        return Row(name, share, SHARE_UNIT, target=1.0, is_limit=True)

    def _last_tokens(self) -> Tensor:
        num_slots = self.lineup.tables.num_slots
        return torch.zeros(num_slots, dtype=torch.int64, device=self.fused.device)


def different_plans(num_layers: int) -> Iterator[Plan]:
    """Yield the full plan first, then plans that treat the middle layer in every other way."""
    yield trim(Plan.full(num_layers))
    middle = {"layers": [num_layers // 2]}
    for action in ("skip_block", "skip_ffn", "skip_attention"):
        yield rule_plan(num_layers, action, **middle)
    for shared_norm in (True, False):
        yield rule_plan(num_layers, "parallel_ffn_attention", shared_norm=shared_norm, **middle)


def _find_wait(runner: Runner, step: Step, device: torch.device) -> str | None:
    """Launch a step; return what made the host wait for the device, None if nothing did."""
    if device.type != "cuda":
        runner.launch(step)
        return None
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        runner.launch(step)
    except RuntimeError as error:
        return str(error)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return None
