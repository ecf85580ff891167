"""What is checked on the device: ways to treat a block, and launches that must not wait."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from on_gpu import correctness
from on_gpu.bench import Bench
from on_gpu.correctness import Subject, _find_wait, check_all, different_plans
from report import Row

from skipserve.engine.inputs import build_batch
from skipserve_policies.plan import TokenClass

pytestmark = pytest.mark.kernels

CPU = torch.device("cpu")


@pytest.mark.fast
def test_plans_treat_generated_rows_in_six_ways() -> None:
    plans = list(different_plans(3))
    assert len({plan.column_digest(TokenClass.GENERATED) for plan in plans}) == len(plans) == 6


def test_blocks_are_as_exact_as_plain_ones() -> None:
    with torch.inference_mode():
        rows = list(Subject.make(Bench(CPU, "tiny")).check_blocks())
    assert len(rows) == 4
    assert all(row.is_met for row in rows)


@pytest.mark.fast
def test_a_kernel_whose_bits_change_is_not_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(CPU, "tiny")
    draws = iter(range(99))
    trials = [("even", 1, lambda: torch.zeros(1)), ("odd", 1, lambda: torch.tensor([next(draws)]))]

    def pass_check(_: Bench, kernel: str) -> Iterator[Row]:
        bench.exactness[kernel] = True
        return iter(())

    monkeypatch.setattr(correctness, "CHECKS", {"even": None, "odd": None})
    monkeypatch.setattr(correctness, "check_kernel", pass_check)
    monkeypatch.setattr(correctness, "split_trials", lambda _: iter(trials))
    rows = check_all(bench)
    found = [next(rows), next(rows)]
    assert [row.is_met for row in found] == [True, False]
    assert bench.exactness == {"even": True, "odd": False}


@pytest.mark.fast
def test_wrong_blocks_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject.make(Bench(CPU, "tiny"))
    subject = Subject(
        fused=subject.plain,  # stands in for kernels, and is quicker
        plain=subject.plain,
        exact=subject.exact,
        lineup=subject.lineup,
        plans=subject.plans,
    )
    # The first model is fed other tokens, in the prompt and behind it, than the other two.
    shifts = iter([1, 1, 0, 0, 0, 0])

    def build_wrong(*args: Any) -> Any:
        inputs = build_batch(*args)
        inputs.batch.token_ids.add_(next(shifts))
        return inputs

    monkeypatch.setattr(correctness, "build_batch", build_wrong)
    with torch.inference_mode():
        checks = subject.check_blocks()
        rows = [next(checks), next(checks)]
    assert [row.is_met for row in rows] == [False, False]


class Runner:
    def __init__(self, error: RuntimeError | None = None) -> None:
        self.error = error
        self.modes: list[str] = []

    def launch(self, _: Any) -> None:
        if self.error is not None:
            raise self.error


@pytest.mark.fast
@pytest.mark.parametrize("error", [None, RuntimeError("called a synchronizing operation")])
def test_a_wait_is_found_and_the_mode_put_back(
    error: RuntimeError | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    runner: Any = Runner(error)
    step: Any = None
    found = _find_wait(runner, step, torch.device("cuda"))
    assert found == (None if error is None else str(error))
    assert modes == ["error", "default"]
