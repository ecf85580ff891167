"""The command that measures a GPU: how it keeps what it finds, and a rehearsal on the CPU."""

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gpu
import pytest
import torch
import typer
from gpu import SECTIONS, Section, is_sound, main, run_section, run_sections
from on_gpu.bench import Bench
from on_gpu.record import Report, sources_digest
from report import Row

WITHOUT_TRITON = "ceilings,decode,ttft,vqa,profile,policies,mixed,peers"


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


@pytest.mark.fast
def test_a_section_ends_between_rows_when_its_time_is_over(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = count(0.0, 0.4)
    monkeypatch.setattr(gpu, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    engine, steps = bench.engine, []

    def measure(_: Bench) -> Iterator[Row]:
        try:
            for number in count():
                yield Row(str(number), 1.0, "ms")
        finally:
            steps.append("left in order")

    report = run_section(Section("part", 60, measure), bench, seconds_left=1.0)
    assert [row.name for row in report.rows] == ["part/0", "part/1", "part/2"]
    assert report.failure == "stopped: it took longer than 1 s"
    assert steps == ["left in order"]
    assert bench.engine is engine, "nothing was broken off, so nothing is made anew"
    late = run_section(Section("part", 60, measure), bench, seconds_left=0.5)
    assert late.failure is not None
    assert not late.rows


@pytest.mark.fast
def test_what_fails_the_tests_is_not_timed(bench: Bench) -> None:
    wrong = Row("failed", 1.0, "tests", target=0, is_limit=True)
    sections = [
        Section("correctness", 9, lambda _: iter([wrong])),
        Section("vqa", 9, lambda _: pytest.fail("it was timed")),
    ]
    assert [name for name, _ in run_sections(sections, bench, 60)] == ["correctness"]
    assert not bench.is_checked
    sound = [Section("correctness", 9, lambda _: iter([])), *sections[2:]]
    assert [name for name, _ in run_sections(sound, bench, 60)] == ["correctness"]
    assert bench.is_checked


@pytest.mark.fast
def test_all_sections_fit_the_run() -> None:
    assert sum(section.seconds for section in SECTIONS) <= 600


@pytest.mark.fast
def test_a_device_that_is_lost_costs_no_rows(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def clean_up(*, after_failure: bool) -> None:
        raise RuntimeError(f"CUDA error, {after_failure}")

    monkeypatch.setattr(bench, "clean_up", clean_up)
    report = run_section(Section("part", 9, lambda _: iter([Row("a", 1.0, "ms")])), bench, 60.0)
    assert len(report.rows) == 1
    assert bench.notes[0].startswith("the device is lost: RuntimeError: CUDA error, False")


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
    assert all(
        v > 0 for name, v in values.items() if "within" not in name and "between" not in name
    )
    assert result["checked"] is False
    assert not any(row["target"] for row in result["rows"])
    for name in (
        "ceilings/copy, read and written",
        "decode/batch 4/over the floor",
        "policies/skip-block-every-2-from-0/decode at 1, ideal",
        "policies/parallel-blocks-every-3-from-16/requests at 2",
        "mixed/decode at 4/share of the ideal",
        "mixed/requests at 4/mix against the mean of its parts",
        "mixed/parallel blocks, decode at 4/own norm",
        "ttft/picture/vision and projector",
        "ttft/prompt of 24/over the floor",
        "vqa/4 at a time/times as fast as static batch",
        "vqa/one picture/second over first",
        "peers/batch 4/times as fast as transformers",
    ):
        assert name in values


@pytest.mark.fast
def test_an_earlier_run_vouches_for_the_same_sources_alone(tmp_path: Path) -> None:
    first = tmp_path / "first.json"
    main(only="ceilings", device="cpu", model="tiny", output=first)
    for checked, sources, fault in (
        (False, sources_digest(), "was not checked"),
        (True, "0", "other sources"),
        (True, sources_digest(), None),
    ):
        first.write_text(json.dumps(read(first) | {"checked": checked, "sources": sources}))
        if fault is not None:
            with pytest.raises(typer.BadParameter, match=fault):
                main(only="ceilings", device="cpu", model="tiny", checked=first)
    second = tmp_path / "second.json"
    main(only="ceilings", device="cpu", model="tiny", checked=first, output=second)
    assert read(second)["checked"] is True
    assert "unchecked" not in second.with_suffix(".md").read_text()
    with pytest.raises(typer.BadParameter, match="no file of such a run"):
        main(only="ceilings", device="cpu", model="tiny", checked=tmp_path / "none.json")


@pytest.mark.fast
def test_a_part_is_written_only_where_it_is_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "RECORD", tmp_path / "gpu.json")
    main(only="ceilings", device="cpu", model="tiny")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.kernels
def test_a_rehearsal_of_what_runs_kernels_and_tests(tmp_path: Path) -> None:
    output = tmp_path / "gpu.json"
    main(only="correctness,kernels,choices", device="cpu", model="tiny", output=output)
    result = read(output)
    assert list(result["sections"]) == ["correctness", "ceilings", "kernels", "choices"]
    assert result["checked"] is True
    assert not any(section["failure"] for section in result["sections"].values())
    names = {row["name"] for row in result["rows"]}
    assert {
        "kernels/all inputs/2 rows/ours",
        "choices/all outputs, 64 rows/64x128x64, 4 warps, 4 stages, 8 splits",
        "choices/4 at a time/steps of 64 rows",
        "choices/picture/as a graph",
    } <= names
