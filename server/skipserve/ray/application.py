"""The application as Ray Serve deploys it: `import_path: skipserve.ray.application:build`."""

from typing import Any

from ray import serve
from ray.serve import Application, Deployment
from ray.serve.config import AutoscalingConfig, RequestRouterConfig
from ray.serve.schema import LoggingConfig

from skipserve.ray.deployments import Engine, Ingress, Ledger
from skipserve.ray.options import Options

# Our own log tells of requests, and the ledger is called every second.
QUIET = LoggingConfig(log_level="WARNING", enable_access_log=False)
# Serve asks each replica so often whether it lives, and gives it so long to say so.
_ASKED_SECONDS, _TOLD_SECONDS = 2.0, 10.0
# One that ends gets no requests any more, and waits for those that it has.
_ENDING_SECONDS = 2.0
_ROUTER: dict[str, Any] = {"request_router_class": "skipserve.ray.router.EngineRouter"}


def build(args: Options) -> Application:
    """Return the application: ingresses, engines, and one ledger."""
    ledger = _deployed(Ledger, num_cpus=0, max_ongoing_requests=4096).bind()
    engines = _engines(args).bind(args, ledger)
    return _ingresses(args).bind(args, engines, ledger)


def _engines(options: Options) -> Deployment:
    settings = options.read_settings()
    return _deployed(
        Engine,
        num_cpus=options.engine_cpus,
        num_gpus=options.engine_gpus,
        # The engine itself has requests wait, and knows whose turn it is.
        max_ongoing_requests=settings.max_running_requests + settings.max_queued_requests,
        max_queued_requests=settings.max_queued_requests,
        request_router_config=RequestRouterConfig(**_ROUTER),
        graceful_shutdown_timeout_s=settings.grace_seconds,
        **_number(options),
    )


def _ingresses(options: Options) -> Deployment:
    settings = options.read_settings()
    return _deployed(
        serve.ingress()(Ingress),
        num_cpus=0,
        num_replicas=options.ingresses,
        # Turned away there are those for whom there is no place, with a reason.
        max_ongoing_requests=4 * settings.max_connections,
        graceful_shutdown_timeout_s=settings.grace_seconds,
    )


def _deployed(of: type, num_cpus: float, num_gpus: float = 0, **options: Any) -> Deployment:
    made: Deployment = serve.deployment(
        ray_actor_options={"num_cpus": num_cpus, "num_gpus": num_gpus},
        health_check_period_s=_ASKED_SECONDS,
        health_check_timeout_s=_TOLD_SECONDS,
        graceful_shutdown_wait_loop_s=_ENDING_SECONDS,
        logging_config=QUIET,
        **options,
    )(of)
    return made


def _number(options: Options) -> dict[str, Any]:
    """Return how many engines there are."""
    if options.max_engines is None:
        return {"num_replicas": options.engines}
    scaling = AutoscalingConfig(
        min_replicas=options.min_engines,
        initial_replicas=options.engines,
        max_replicas=options.max_engines,
        target_ongoing_requests=options.requests_per_engine,
        downscale_delay_s=options.idle_seconds,
    )
    return {"autoscaling_config": scaling}
