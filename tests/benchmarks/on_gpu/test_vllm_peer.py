"""What vLLM is asked; a stand-in answers."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from on_gpu import vllm_peer
from on_gpu.vllm_peer import Vllm
from random_weights import SHAPES

pytestmark = pytest.mark.fast


class Clock:
    now = 0.0

    def perf_counter(self) -> float:
        return self.now


def test_a_token_is_what_a_longer_answer_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    asked: list[Any] = []

    class Engine:
        def __init__(self, folder: str, **settings: Any) -> None:
            config = json.loads((Path(folder) / "config.json").read_text())
            assert config["architectures"] == ["LlamaForCausalLM"]
            assert config["hidden_size"] == 64
            assert settings["load_format"] == "dummy"

        def generate(self, prompts: Any, sampling: Any, **_: Any) -> None:
            asked.append(prompts)
            clock.now += 10 + 0.5 * sampling.max_tokens

    stand_in = SimpleNamespace(LLM=Engine, SamplingParams=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "vllm", stand_in)
    monkeypatch.setattr(vllm_peer, "time", clock)
    peer = Vllm(SHAPES["tiny"], 40, "bfloat16")
    assert peer.token_seconds([[1, 2], [3, 4]]) == pytest.approx(0.5)
    assert asked[0] == [{"prompt_token_ids": [1, 2]}, {"prompt_token_ids": [3, 4]}]
