"""`skipserve serve --ray`: the application in a cluster of Ray's, its own or one that runs."""

import asyncio
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
from ray import serve

from skipserve.engine.host_memory import available_bytes
from skipserve.model_folder import StartError
from skipserve.ray.application import QUIET, build
from skipserve.ray.options import Options
from skipserve.settings import Device, Settings
from skipserve.stop_signals import StopSignals

logger = logging.getLogger("skipserve")
_APPLICATION = "skipserve"
_GIB = 2**30
# Of what a machine has, engines on its CPUs take together what one alone would.
_SHARE_OF_MEMORY = 0.25
# What only whoever starts the replicas reads.
_OURS = {"ray", "replicas", "config", "secrets_folder"}


def serve_on_ray(settings: Settings, signals: StopSignals, say: Callable[[str], None]) -> int:
    """Serve in the cluster that RAY_ADDRESS names, or in one of this machine, until told to stop.

    Args:
        settings: how to serve.
        signals: say when to stop.
        say: tells the operator what happens.

    Returns:
        The exit code.

    Raises:
        StartError: the application does not start.
    """
    say("Starting Ray ...")
    with _cluster(settings):
        signals.hear_again()
        options = options_of(settings, has_gpu=_has_gpu())
        http = {"host": settings.host, "port": settings.port}
        serve.start(http_options=http, logging_config=QUIET)
        say(f"Loading {options.engines} engines ...")
        try:
            serve.run(build(options), name=_APPLICATION)
        except RuntimeError as error:
            raise StartError(f"the application does not start: {error}") from error
        try:
            say(f"skipserve serves on http://{settings.host}:{settings.port}")
            asyncio.run(_until_asked(signals))
        finally:
            logger.info("stopping: running requests have %g s", settings.grace_seconds)
            serve.delete(_APPLICATION)
    return 0


def options_of(settings: Settings, has_gpu: bool) -> Options:
    """Return how an application runs on one machine, or on some that are alike.

    Args:
        settings: how to serve; replicas get those that are not the defaults.
        has_gpu: whether there is a GPU for each engine.
    """
    given = settings.model_dump(exclude_unset=True, exclude=_OURS)
    # Ray's processes run elsewhere.
    given |= {name: value.resolve() for name, value in given.items() if isinstance(value, Path)}
    if Path(settings.model).exists():
        given["model"] = str(Path(settings.model).resolve())
    uses_gpu = has_gpu and settings.device is not Device.CPU
    if not uses_gpu and settings.kv_cache_gib is None:
        # What is free when an engine starts hangs on those that have started before.
        share = _SHARE_OF_MEMORY * available_bytes() / settings.replicas
        given["kv_cache_gib"] = max(round(share / _GIB, 2), 0.01)
    return Options(
        settings=given,
        engines=settings.replicas,
        engine_gpus=int(uses_gpu),
        engine_cpus=settings.num_threads or 1,
    )


def _has_gpu() -> bool:
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return bool(resources.get("GPU"))


@contextmanager
def _cluster(settings: Settings) -> Iterator[None]:
    """Connect to the cluster that RAY_ADDRESS names, or start one that ends with the context."""
    is_ours = "RAY_ADDRESS" not in os.environ
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    if is_ours:
        wanted = settings.replicas * (settings.num_threads or 1)
        ray.init(
            "local",
            num_cpus=max(wanted, os.cpu_count() or 1),
            include_dashboard=False,
            logging_level=logging.WARNING,
        )
    else:
        ray.init(log_to_driver=False, logging_level=logging.WARNING)
    try:
        yield
    finally:
        if is_ours:
            serve.shutdown()  # type: ignore[no-untyped-call]
        ray.shutdown()


async def _until_asked(signals: StopSignals) -> None:
    signals.follow()
    await signals.asked.wait()
    signals.end()
