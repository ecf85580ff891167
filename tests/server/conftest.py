"""What the server's tests share: a tiny checkpoint, and one server that runs it."""

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from live_server import THREAD_NAME, LiveServer
from pictures import data_uri, encode, random_picture
from tiny_llava import make_checkpoint

from skipserve.app import Built, build
from skipserve.model.config import ModelConfig
from skipserve.prompt.processor import PromptProcessor
from skipserve.settings import Settings
from skipserve_policies.named import POLICIES_FILE


@pytest.fixture
def caplog(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """What the test itself logs: servers that others share answer beside it, late ones too."""

    def is_own(record: logging.LogRecord) -> bool:
        return record.threadName != THREAD_NAME

    caplog.handler.addFilter(is_own)
    yield caplog
    caplog.handler.removeFilter(is_own)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with 32 layers, so that every policy of the catalog fits."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return make_checkpoint(
        folder, num_layers=32, num_heads=2, num_kv_heads=2, hidden=32, ffn=48, max_positions=256
    )


@pytest.fixture
def half_checkpoint(checkpoint: Path, tmp_path: Path) -> Path:
    """The same with policies of its own, of which one is its default."""
    folder = shutil.copytree(checkpoint, tmp_path / "halved")
    rule = "{action: skip_block, layers: {start: 0, interval: 2}, scope: all}"
    (folder / POLICIES_FILE).write_text(
        f"default: half\npolicies: {{half: {{rules: [{rule}]}}, whole: {{}}}}\n"
    )
    return folder


@pytest.fixture(scope="session")
def slow_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model whose answers take long enough to be interrupted."""
    folder = tmp_path_factory.mktemp("models") / "slow"
    return make_checkpoint(
        folder, num_layers=32, num_heads=4, num_kv_heads=4, hidden=128, ffn=352, max_positions=2000
    )


@pytest.fixture(scope="session")
def settings(checkpoint: Path) -> Settings:
    """Settings with limits that are small enough to be tested."""
    return Settings(
        model=str(checkpoint),
        num_threads=1,
        max_body_bytes=1_000_000,
        max_images=4,
        max_image_bytes=300_000,
        max_image_pixels=1_000_000,
        max_request_pixels=2_000_000,
        max_queued_requests=20,
    )


@pytest.fixture(scope="session")
def prompts(checkpoint: Path) -> PromptProcessor:
    return PromptProcessor.from_folder(checkpoint, ModelConfig.from_folder(checkpoint))


@pytest.fixture(scope="session")
def idle(settings: Settings) -> Built:
    """An application whose engine was never started."""
    return build(settings)


@pytest.fixture(scope="session")
def live(settings: Settings) -> Iterator[LiveServer]:
    with LiveServer(settings) as server:
        yield server


@pytest.fixture
def client(live: LiveServer) -> Iterator[httpx.Client]:
    with live.client() as client:
        yield client


@pytest.fixture(scope="session")
def picture_url() -> str:
    return data_uri(encode(random_picture(40, 30)))
