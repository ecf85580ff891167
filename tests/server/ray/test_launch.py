"""How `serve --ray` runs an application; tests/ray runs one."""

from pathlib import Path

import pytest
import ray_wanted  # noqa: F401 - without Ray there is nothing to test

from skipserve.ray.launch import options_of
from skipserve.settings import Settings


def test_replicas_get_what_is_set(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkpoint.parent)
    monkeypatch.setenv("SKIPSERVE_API_KEY", "secret")
    settings = Settings(
        ray=True, replicas=3, model=checkpoint.name, num_threads=2, policies=Path("p.yaml"), port=9
    )
    options = options_of(settings, has_gpu=False)
    assert (options.engines, options.engine_cpus, options.engine_gpus) == (3, 2, 0)
    monkeypatch.delenv("SKIPSERVE_API_KEY")
    there = options.read_settings()
    assert there.model == str(checkpoint.resolve())
    assert there.policies == checkpoint.parent.resolve() / "p.yaml"
    assert [key.get_secret_value() for key in there.api_key] == ["secret"]
    assert not there.ray


def test_engines_of_a_machine_share_its_memory() -> None:
    alone, shared = (
        options_of(Settings(replicas=number), has_gpu=False).read_settings().kv_cache_gib
        for number in (1, 4)
    )
    assert alone is not None
    assert shared is not None
    assert shared < alone
    given = options_of(Settings(kv_cache_gib=3), has_gpu=False).read_settings()
    assert given.kv_cache_gib == 3


def test_each_engine_has_a_gpu() -> None:
    options = options_of(Settings(), has_gpu=True)
    assert options.engine_gpus == 1
    assert options.read_settings().kv_cache_gib is None
    assert options_of(Settings(device="cpu"), has_gpu=True).engine_gpus == 0
