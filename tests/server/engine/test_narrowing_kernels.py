"""Requests of whose prompts visual rows leave, in the kernels: known answers."""

from dataclasses import replace

import pytest
import torch
from golden_dropping import Loaded, load_golden, note_kept
from golden_engine import answers

from skipserve.engine.reports import StepMode


@pytest.fixture(scope="module")
def fused(tmp_path_factory: pytest.TempPathFactory, device: torch.device) -> Loaded:
    return load_golden("plain", tmp_path_factory.mktemp("fused"), device, uses_triton=True)


@pytest.mark.kernels
@pytest.mark.parametrize("uses_graphs", [False, True])
def test_the_known_answers_in_the_kernels(
    fused: Loaded, monkeypatch: pytest.MonkeyPatch, uses_graphs: bool
) -> None:
    kept = note_kept(monkeypatch)
    golden = [it for it in fused.golden if it.prompt == "text-first"]
    requests = [
        replace(it, sampling=replace(it.sampling, max_tokens=3))
        for it in map(fused.request, golden)
    ]
    engine = fused.engine(uses_graphs=uses_graphs, max_running=len(golden), page_size=4)
    modes: list[StepMode] = []
    found = answers(engine, *requests, modes=modes)
    assert found == {it.name: list(it.tokens[:3]) for it in golden}
    assert set(map(tuple, kept)) == {it.kept for it in golden if it.narrowing}
    # Several of them together, in the graph of the full model.
    assert modes[-2:] == 2 * [StepMode.UNIFORM if uses_graphs else StepMode.EAGER]
