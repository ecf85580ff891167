"""A kernel that is wrong on the device is found."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from on_gpu import kernel_checks
from on_gpu.bench import Bench
from on_gpu.kernel_checks import CHECKS, Setting, count_changes, error_share, split_trials
from on_gpu.kernels import RACES, check_kernel, measure_kernels
from random_weights import SHAPES, model_config
from roofline import Ceilings

from skipserve_kernels.input_projection.triton import input_projection

pytestmark = pytest.mark.kernels

CPU = torch.device("cpu")
SETTING = Setting(
    model_config(SHAPES["tiny"]).sizes.decoder, CPU, torch.bfloat16, (1, 3), (70,), context=20
)

# What each check launches, by the name under which it does, and which argument gets the result.
LAUNCHERS: dict[str, tuple[str, Any]] = {
    "input projection": ("input_projection", "activation"),
    "output projection": ("output_projection", 3),
    "decode attention": ("paged_decode", 7),
    "prefill attention": ("paged_prefill", 8),
    "normalisation": ("norm_rows", None),
}


@pytest.mark.fast
def test_the_error_is_measured_by_the_librarys() -> None:
    exact = torch.tensor([1.0, 0.0])
    plain = torch.tensor([1.0, 0.0625]).bfloat16()
    allowed = 2 * 0.0625 + 2 * torch.finfo(torch.bfloat16).eps
    found = torch.tensor([0.75, 0.0]).bfloat16()
    assert error_share(found, plain, exact) == pytest.approx(0.25 / allowed)
    assert error_share(found * torch.nan, plain, exact) == float("inf")


@pytest.mark.parametrize("kernel", CHECKS)
def test_a_sound_kernel_passes(kernel: str) -> None:
    assert all(share <= 1 for _, share in CHECKS[kernel](SETTING))


@pytest.mark.parametrize("kernel", LAUNCHERS)
def test_a_wrong_result_is_found(kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, place = LAUNCHERS[kernel]
    launch: Callable[..., None] = getattr(kernel_checks, name)

    def wrong(*args: Any, **kwargs: Any) -> None:
        launch(*args, **kwargs)
        if place is None:
            out = args[1][0].out
        else:
            out = kwargs[place] if isinstance(place, str) else args[place]
        out[-1, -1] += 0.5 * out.abs().max()

    monkeypatch.setattr(kernel_checks, name, wrong)
    assert max(share for _, share in CHECKS[kernel](SETTING)) > 1


@pytest.mark.fast
def test_a_row_that_takes_no_part_must_not_be_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    launch = input_projection

    def touch(*args: Any, **kwargs: Any) -> None:
        launch(*args, **kwargs)
        kwargs["activation"][0] = 0

    monkeypatch.setattr(kernel_checks, "input_projection", touch)
    gated = [s for s in CHECKS["input projection"](SETTING) if s.case.startswith("gated")]
    assert [each.share for each in gated] == [float("inf")] * 2


def test_results_that_change_are_counted() -> None:
    results = iter([0.0, 0.0, 1.0, 0.0, 2.0])
    assert count_changes(lambda: torch.tensor([next(results)]), 4) == 2
    for *_, launch in split_trials(SETTING):
        assert count_changes(launch, 1) == 0


def test_only_exact_kernels_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(CPU, "tiny")
    bench.ceilings = Ceilings(1e12, 1e11)
    exact = {"normalisation": kernel_checks.check_norm, "broken": lambda _: iter([("case", 2.0)])}
    for name in list(CHECKS):
        monkeypatch.delitem(CHECKS, name)
    for name in list(RACES):
        if name != "normalisation":
            monkeypatch.delitem(RACES, name)
    for name, check in exact.items():
        monkeypatch.setitem(CHECKS, name, check)
    monkeypatch.setitem(RACES, "broken", lambda _: pytest.fail("it was timed"))
    rows = {row.name: row for row in measure_kernels(bench)}
    assert rows["broken/case"].is_met is False
    assert bench.notes == ["broken: not timed, for it is not exact"]
    assert rows["normalisation/2 rows/ours"].value > 0
    assert rows["normalisation/2 rows/ours, of the floor"].unit == "%"


@pytest.mark.fast
def test_a_check_that_raises_leaves_the_kernel_untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(CPU, "tiny")
    monkeypatch.setattr(kernel_checks, "norm_rows", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        list(check_kernel(bench, "normalisation"))
    assert bench.exactness == {"normalisation": False}
