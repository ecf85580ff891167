"""The command that measures a GPU: how it keeps what it finds, and a rehearsal on the CPU."""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gpu
import pytest
import torch
import typer
from gpu import Section, is_sound, main, run_section, time_limit
from on_gpu.bench import Bench
from on_gpu.record import Report
from report import Row

WITHOUT_TRITON = "ceilings,decode,policies,mixed,ttft,vqa,peers,static"


@pytest.fixture
def bench() -> Bench:
    return Bench(torch.device("cpu"), "tiny")


def read(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text()))


@pytest.mark.fast
def test_a_failure_keeps_the_rows_before_it(bench: Bench) -> None:
    def measure(_: Bench) -> Iterator[Row]:
        yield Row("first", 1.0, "ms", target=2.0)
        raise RuntimeError("an illegal access\nand a long explanation")

    report = run_section(Section("part", 9, measure), bench, 60.0)
    assert report.rows == [Row("part/first", 1.0, "ms", target=2.0)]
    assert report.failure is not None
    assert report.failure.startswith("RuntimeError: an illegal access (test_gpu.py:")


def test_a_section_ends_when_its_time_is_over(bench: Bench) -> None:
    def measure(_: Bench) -> Iterator[Row]:
        yield Row("first", 1.0, "ms")
        while True:
            time.sleep(0.01)

    report = run_section(Section("part", 60, measure), bench, seconds_left=1.0)
    assert len(report.rows) == 1
    assert report.failure is not None
    assert "longer than 1 s" in report.failure
    late = run_section(Section("part", 60, measure), bench, seconds_left=0.5)
    assert late.failure is not None
    assert not late.rows


@pytest.mark.fast
def test_a_device_that_is_lost_costs_no_rows(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def clean_up(*, after_failure: bool) -> None:
        raise RuntimeError(f"CUDA error, {after_failure}")

    monkeypatch.setattr(bench, "clean_up", clean_up)
    report = run_section(Section("part", 9, lambda _: iter([Row("a", 1.0, "ms")])), bench, 60.0)
    assert len(report.rows) == 1
    assert bench.notes[0].startswith("the device is lost: RuntimeError: CUDA error, False")


@pytest.mark.fast
def test_an_alarm_that_is_under_way_goes_on() -> None:
    rings: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda number, _: rings.append(number))
    left = signal.setitimer(signal.ITIMER_REAL, 0.05)
    try:
        with time_limit(9):
            pass
        time.sleep(0.1)
    finally:
        signal.signal(signal.SIGALRM, before)
        signal.setitimer(signal.ITIMER_REAL, *left)
    assert rings == [signal.SIGALRM]


@pytest.mark.fast
def test_an_alarm_that_is_not_needed_does_not_ring() -> None:
    with time_limit(0.05):
        pass
    time.sleep(0.1)


@pytest.mark.fast
def test_only_checks_and_failures_decide_the_status() -> None:
    missed = Report([Row("speed", 1.0, "x", target=2.0)])
    assert is_sound("vqa", missed)
    assert not is_sound("correctness", missed)
    assert not is_sound("vqa", Report(failure="RuntimeError: it broke"))


@pytest.mark.fast
def test_an_unknown_section_is_refused() -> None:
    with pytest.raises(typer.BadParameter, match="no section speed"):
        main(only="speed,vqa", device="cpu", model="tiny")


def test_a_rehearsal_of_all_that_needs_no_kernels(tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    main(only=WITHOUT_TRITON, device="cpu", model="tiny", output=output)
    result = read(output)
    assert list(result["sections"]) == WITHOUT_TRITON.split(",")
    assert not any(section["failure"] for section in result["sections"].values())
    values = {row["name"]: row["value"] for row in result["rows"]}
    assert all(value > 0 for value in values.values())
    assert not any(row["target"] for row in result["rows"])
    for name in (
        "ceilings/copy, read and written",
        "decode/batch 4/over the floor",
        "policies/skip-block-every-2-from-0/decode at 1, ideal",
        "policies/parallel-blocks-every-3-from-16/requests at 4",
        "mixed/decode at 4/share of the ideal",
        "mixed/requests at 4/mix against the mean of its parts",
        "mixed/parallel blocks, decode at 4/own norm",
        "ttft/picture/vision and projector",
        "ttft/prompt of 24/over the floor",
        "vqa/4 at a time/times as fast as static batch",
        "vqa/one picture/second over first",
        "peers/batch 4/times as fast as transformers",
        "static/batch 1/times as fast as transformers, static and compiled",
    ):
        assert name in values


@pytest.mark.fast
def test_a_part_is_written_only_where_it_is_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "RECORD", tmp_path / "gpu.json")
    main(only="ceilings", device="cpu", model="tiny")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.kernels
def test_a_rehearsal_of_everything(tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    main(device="cpu", model="tiny", output=output)
    result = read(output)
    assert list(result["sections"]) == [section.name for section in gpu.sections()]
    assert not any(section["failure"] for section in result["sections"].values())
