"""What the sections share: the device, the model, how much to measure, what was found so far."""

import gc
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
import triton
from checkpoints import Shape
from on_gpu.lineup import PAGE_SIZE, Lineup, Steps
from plans import fitting_policies, plan_of
from questions import Question, QuestionSource
from random_weights import SHAPES, RandomWeights, model_config, transformers_model
from report import Row
from roofline import Ceilings, Roofline
from torch import Tensor

from skipserve.engine.engine import Engine
from skipserve.engine.limits import EngineLimits
from skipserve.engine.runner import Runner
from skipserve.model.config import ModelConfig
from skipserve.model.llava import Llava
from skipserve_policies.plan import Plan, TokenClass
from skipserve_policies.resolve import resolve
from skipserve_policies.schema import SkipPolicy

Rows = Iterator[Row]


@dataclass(frozen=True)
class Amount:
    """How much is measured.

    Attributes:
        row_counts: of kernels that decode.
        prefill_counts: rows of kernels that prefill.
        batches: requests at a time; the largest counts as many.
        static_batch: of transformers.
        context: keys of a decoded row.
        num_text: text tokens of a question.
        num_new_tokens: of its answer.
        num_copies: of what a kernel reads, so that no launch finds it in the device's cache.
        repeats: timed turns.
        turns: of whole sets of requests.
        num_launches: of one step in a row, in one turn.
        policy_batch: requests at a time, of policies that take turns.
        row_budgets: of steps, that are compared.
        sustained_seconds: of work after which the device may be slower.
        copy_numbers: of the copy that measures the bandwidth.
        product_side: of the matrix product that measures the arithmetic.
        tests: that a device must pass.
    """

    row_counts: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    prefill_counts: tuple[int, ...] = (640, 2048)
    batches: tuple[int, ...] = (1, 8, 32, 64)
    static_batch: int = 32
    context: int = 648
    num_text: int = 64
    num_new_tokens: int = 8
    num_copies: int = 8
    repeats: int = 9
    turns: int = 5
    num_launches: int = 5
    policy_batch: int = 32
    row_budgets: tuple[int, ...] = (2048, 4096, 8192)
    sustained_seconds: float = 3.0
    copy_numbers: int = 2**30
    product_side: int = 8192
    tests: tuple[str, ...] = ("tests/kernels", "tests/server/model", "tests/server/engine")


TINY = Amount(
    row_counts=(2,),
    prefill_counts=(70,),
    batches=(1, 4),
    static_batch=4,
    context=20,
    num_text=8,
    num_new_tokens=3,
    num_copies=1,
    repeats=1,
    turns=1,
    num_launches=1,
    policy_batch=2,
    row_budgets=(32, 64),
    sustained_seconds=0.01,
    tests=("tests/kernels/fused/test_tiles.py",),
    copy_numbers=2**16,
    product_side=64,
)
AMOUNTS = {"7b": Amount(), "tiny": TINY}


@dataclass
class Bench:
    """One run.

    Attributes:
        device: what is measured.
        model: the name of a shape.
        notes: what was left out, and why.
        is_checked: whether the device has passed the tests of these sources.
    """

    device: torch.device
    model: str
    notes: list[str] = field(default_factory=list)
    is_checked: bool = False
    _ceilings: Ceilings | None = None
    _num_pictures: int = 0

    @property
    def shape(self) -> Shape:
        """What the model looks like."""
        return SHAPES[self.model]

    @property
    def amount(self) -> Amount:
        """How much is measured."""
        return AMOUNTS[self.model]

    @property
    def has_targets(self) -> bool:
        """Whether the targets are meant for what is measured."""
        return self.device.type == "cuda" and self.model == "7b"

    @property
    def runs_kernels(self) -> bool:
        """Whether the device runs Triton kernels; if not, it is noted what is left out."""
        runs = self.device.type == "cuda" or bool(triton.knobs.runtime.interpret)
        if (
            not runs
            and (note := "kernels are left out: this device does not run them") not in self.notes
        ):
            self.notes.append(note)
        return runs

    @property
    def dtype(self) -> torch.dtype:
        """The type of all weights whose speed is measured."""
        return torch.bfloat16

    @cached_property
    def config(self) -> ModelConfig:
        """The configuration of the model."""
        return model_config(self.shape)

    @property
    def ceilings(self) -> Ceilings:
        """What the device can do; the section that measures it comes first."""
        assert self._ceilings is not None, "the ceilings are not measured: add them to --only"
        return self._ceilings

    @ceilings.setter
    def ceilings(self, found: Ceilings) -> None:
        self._ceilings = found

    @property
    def roofline(self) -> Roofline:
        """What forwards take at least."""
        return Roofline(self.config.sizes, self.ceilings, self.dtype.itemsize)

    @cached_property
    def llava(self) -> Llava:
        """Our model, in Triton kernels on a GPU."""
        return Llava.assemble(self.config, RandomWeights(self.device, self.dtype))

    @cached_property
    def transformers(self) -> Any:
        """Transformers' model with the same weights; there is no room for the runner beside it."""
        self.drop("runner")
        return transformers_model(self.shape, RandomWeights(self.device, self.dtype))

    @property
    def most(self) -> int:
        """The most requests at a time."""
        return max(self.amount.batches)

    @cached_property
    def lineup(self) -> Lineup:
        """Sequences for the runner."""
        return Lineup(self.config, self.most, self.amount.context)

    @cached_property
    def runner(self) -> Runner:
        """What launches single steps, with a graph for each way to decode in the catalog.

        Its pages hold keys and values of some prompts.
        """
        self.drop("transformers")
        lineup = self.lineup
        limits = EngineLimits(max_running=self.most, hot_plans=self.hot_plans)
        runner = Runner(self.llava, lineup.tables, lineup.plans, lineup.num_pages, 1, limits)
        with lineup.steps([self.plan("full")] * self.most, self.amount.context) as steps:
            runner.launch(steps.prefill)
        return runner

    def steps(self, plans: Sequence[Plan], context: int) -> AbstractContextManager[Steps]:
        """Return the steps of one sequence a plan, for the runner."""
        _ = self.runner  # which, when it is made, needs all sequences for itself
        return self.lineup.steps(plans, context)

    @cached_property
    def engine(self) -> Engine:
        """The whole engine, with room for the most requests at a time."""
        return self.new_engine(self.hot_plans)

    def new_engine(self, hot_plans: tuple[Plan, ...], max_rows: int | None = None) -> Engine:
        """Return an engine whose steps have up to so many rows; None is its own choice."""
        amount = self.amount
        num_prompt = self.config.sizes.rows_per_image + amount.num_text
        longest = num_prompt + amount.num_new_tokens + self.most
        # The scheduler leaves a page for each running request.
        num_pages = self.most * (1 + -(-longest // PAGE_SIZE))
        page_bytes = PAGE_SIZE * self.llava.cache_bytes_per_token()
        limits = EngineLimits(
            max_running=self.most,
            page_size=PAGE_SIZE,
            kv_cache_bytes=num_pages * page_bytes,
            max_batch_tokens=max_rows,
            hot_plans=hot_plans,
        )
        return Engine(self.llava, limits)

    @property
    def policies(self) -> list[str]:
        """The policies of the catalog that the model is deep enough for, "full" first."""
        return list(dict.fromkeys(["full", *fitting_policies(self.num_layers)]))

    @property
    def hot_plans(self) -> tuple[Plan, ...]:
        """Plans that decode in different ways: those of the catalog, and all blocks parallel."""
        plans = [self.plan(policy) for policy in self.policies] + list(self.parallel_plans.values())
        return tuple({plan.column_digest(TokenClass.GENERATED): plan for plan in plans}.values())

    @cached_property
    def parallel_plans(self) -> dict[str, Plan]:
        """Plans with attention and FFN of every block in parallel, by what the FFN reads."""
        return {
            "shared norm": self.inline_plan("parallel_ffn_attention", shared_norm=True),
            "own norm": self.inline_plan("parallel_ffn_attention", shared_norm=False),
        }

    @property
    def num_layers(self) -> int:
        """Of the decoder."""
        return self.config.sizes.decoder.num_layers

    def plan(self, policy: str) -> Plan:
        """Return the plan of a policy of the catalog."""
        return plan_of(policy, self.num_layers)

    def inline_plan(self, action: str, **more: Any) -> Plan:
        """Return the plan that does one thing in all layers to all rows."""
        layers = {"from": 0, "to": self.num_layers - 1}
        stanza = {"rules": [{"action": action, "scope": "all", "layers": layers, **more}]}
        return resolve(action, SkipPolicy.model_validate(stanza), self.num_layers).plan

    def questions(self, count: int, source: QuestionSource, policy: str = "full") -> list[Question]:
        """Return questions of the usual length, each on a picture of its own."""
        return [self.question(source, self.amount.num_new_tokens, policy) for _ in range(count)]

    def question(
        self, source: QuestionSource, num_new_tokens: int, policy: str = "full"
    ) -> Question:
        """Return a question of the usual length on a picture that no other one has.

        The pictures differ in a corner only: to draw thousands would take longer than the answers.
        """
        self._num_pictures += 1
        picture = self._picture.clone()
        picture[0, 0] = torch.tensor(list(self._num_pictures.to_bytes(3, "big")), dtype=torch.uint8)
        return source.question(self.amount.num_text, num_new_tokens, picture=picture, policy=policy)

    @cached_property
    def _picture(self) -> Tensor:
        return QuestionSource(self.config, seed=0).picture()

    def clean_up(self, *, after_failure: bool) -> None:
        """Give unused memory back after a section; after a failure also what may be unfinished."""
        if after_failure:
            for name in ("engine", "runner", "lineup"):
                vars(self).pop(name, None)
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def drop(self, name: str) -> None:
        """Give the memory of a cached property back; it is made anew when it is asked for."""
        vars(self).pop(name, None)
        self.clean_up(after_failure=False)
