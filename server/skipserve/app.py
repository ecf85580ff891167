"""Builds the web application from the settings: the one place where the rooms meet."""

import asyncio
import shlex
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from prometheus_client import CollectorRegistry
from starlette.exceptions import HTTPException
from starlette.routing import Route

from skipserve.api.access_log import AccessLog
from skipserve.api.admission import Admission
from skipserve.api.asking_routes import router as asking_router
from skipserve.api.auth import PUBLIC_PATHS, RequireKey
from skipserve.api.body import BodyLimits, ReadBody
from skipserve.api.connections import ConnectionLimits, Connections, room_for_connections
from skipserve.api.door import Door
from skipserve.api.errors import handle_error
from skipserve.api.guard import Guard, Tracer
from skipserve.api.hosts import CheckHost
from skipserve.api.pace import Pace
from skipserve.api.paths import OPERATIONS, POLICIES, WITH_BODY
from skipserve.api.policy_routes import router as policy_router
from skipserve.api.routes import router
from skipserve.api.serving import Serving, arrive
from skipserve.asking.auto.choice import PressureBand
from skipserve.asking.auto.terms import AutoTerms, Unmet
from skipserve.asking.policies import PolicyRegistry
from skipserve.asking.policy_changes import PolicyChanges
from skipserve.asking.policy_file import PolicyFile
from skipserve.asking.preparation import Preparation
from skipserve.asking.processor import QuestionProcessor
from skipserve.asking.terms import ImageLimits, Terms, TimeLimits
from skipserve.budgets.clients import Clients
from skipserve.budgets.keys import KeysFileError, read_keys
from skipserve.budgets.usage_log import UsageLog
from skipserve.engine.limits import EngineLimits, EngineSpec
from skipserve.grammar.compiler import CompilersSpec, GrammarCompiler
from skipserve.grammar.messages import CompilerSpec
from skipserve.media.decode import PixelLimits
from skipserve.media.hosts import MediaHosts
from skipserve.media.kinds import MediaKind
from skipserve.media.messages import WorkerSpec
from skipserve.media.pool import PicturePool, PoolSpec
from skipserve.media.remote import FetchLimits, ImageFetcher
from skipserve.metrics.registry import ServerMetrics
from skipserve.model.config import ModelFilesError
from skipserve.model_folder import DEMO, StartError, model_folder
from skipserve.playground.files import read_files
from skipserve.prompt.tokenizer_files import TokenizerFilesError
from skipserve.service.local import EngineService
from skipserve.service.observer import Observer
from skipserve.service.service import Service
from skipserve.settings import (
    IMAGE_BYTES_PER_PIXEL,
    LogFormat,
    MetricAliases,
    Settings,
    UnknownFields,
    misspelt_variables,
)
from skipserve_policies.catalog import AUTO_NAME, nearest_names
from skipserve_policies.plan import Plan
from skipserve_policies.quality import load_measured
from skipserve_policies.resolve import PolicyError, PolicyMisfitError, ResolvedPolicy
from skipserve_policies.sizes import Modality

_MIB, _GIB = 2**20, 2**30
_KEY_SCHEME = "ApiKey"

# What a picture of 1.6 million pixels takes: only larger ones ask for memory.
_GRANTED_BYTES = 32 * _MIB
# What all may take that the engine has no part in, of one core: whoever floods costs others little.
_SHARE_OF_REPLIES = 0.05
# What a picture's file may cost before its size is known, and any picture however small.
_IMAGE_CPU_SECONDS = 1.0
# What a grammar may take to be compiled; those of real schemas take milliseconds, and 1 MiB.
_GRAMMAR_CPU_SECONDS = 1.0
_GRAMMAR_BYTES = 256 * _MIB
_GRAMMAR_WORKERS = 2
# Grammars that are kept, and what they may take.
_KEPT_GRAMMARS = 1024
_KEPT_GRAMMAR_BYTES = 16 * _MIB
# Requests whose images are fetched at a time; each may hold a thread that looks a host up.
_MOST_FETCHES = 32


@dataclass(frozen=True)
class Built:
    """An application and what whoever runs it needs to know of.

    Attributes:
        app: the application; its lifespan starts and closes the engine.
        serving: what its routes work with.
        connections: those of its clients.
        warnings: what the operator should know.
    """

    app: FastAPI
    serving: Serving
    connections: Connections
    warnings: tuple[str, ...]


# Returns an engine for a front end, given how to run it and who hears of it.
Connect = Callable[[EngineSpec, Observer], Service]


def build(settings: Settings, connect: Connect = EngineService) -> Built:
    """Read the model's files, all but the weights, and build the application.

    Args:
        settings: how to serve.
        connect: makes the engine; one in a process of this machine unless said otherwise.

    Raises:
        StartError: the model, a policy or the policies file cannot be served.
    """
    folder = model_folder(settings.model)
    serving = _build_serving(settings, folder, _read_model(settings, folder), connect)
    processor = serving.processor
    pace = Pace(_SHARE_OF_REPLIES)
    app = _build_app(settings, serving, pace, _build_tracer(settings, processor.model_name))
    connections = _build_connections(settings, app, pace)
    notes = (*processor.notes, *_warnings(settings, processor.policies))
    return Built(app, serving, connections, (*notes, *_descriptor_warning(settings, connections)))


def build_engine(
    settings: Settings, connect: Connect = EngineService
) -> tuple[Service, CollectorRegistry]:
    """Return an engine without a front end, and the metrics of what it does.

    Raises:
        StartError: as `build` does.
    """
    folder = model_folder(settings.model)
    processor, registry = _read_model(settings, folder), CollectorRegistry()
    metrics = _build_metrics(processor, registry)
    spec = engine_spec(settings, folder, _hot_plans(settings, processor))
    return connect(spec, metrics.engine), registry


def _read_model(settings: Settings, folder: Path) -> QuestionProcessor:
    name = DEMO if settings.model == DEMO else folder.name
    try:
        measured = load_measured(folder, name, settings.quantization.in_dtype)
        return QuestionProcessor.from_folder(folder, name, _terms(settings), measured)
    except PolicyMisfitError as error:
        raise StartError(
            f"{error}\nmend the file, or start without these policies: --allow-misfit-policies"
        ) from error
    except (ModelFilesError, TokenizerFilesError, PolicyError) as error:
        raise StartError(str(error)) from error


def _terms(settings: Settings) -> Terms:
    return Terms(
        listing=POLICIES,
        images=ImageLimits(
            pixels=PixelLimits(settings.max_image_pixels, settings.max_request_pixels),
            num_images=settings.max_images,
            image_bytes=settings.max_image_bytes,
        ),
        times=TimeLimits(settings.queue_seconds, settings.request_seconds),
        policies=settings.policies,
        added_policies=None
        if settings.added_policies is None
        else PolicyFile(settings.added_policies),
        keeps_misfits=settings.allow_misfit_policies,
        default_policy=settings.default_skip_policy,
        auto=_auto_terms(settings),
        takes_inline=settings.allow_inline_policies,
        ignores_unknown=settings.unknown_fields is UnknownFields.IGNORE,
    )


def _auto_terms(settings: Settings) -> AutoTerms:
    return AutoTerms(
        policies=settings.auto_policies,
        quality=settings.auto_quality,
        min_quality=settings.auto_min_quality,
        unmet=Unmet(settings.auto_unmet.value),
        pressure=PressureBand(settings.auto_pressure_seconds, settings.auto_relief_seconds),
        reuses_pages=settings.prefix_cache,
    )


def _build_serving(
    settings: Settings, folder: Path, processor: QuestionProcessor, connect: Connect
) -> Serving:
    policies = processor.policies
    for name in settings.auto_policies:
        _find_policy(name, policies)
    hot_plans = _hot_plans(settings, processor)
    registry = CollectorRegistry()
    metrics = _build_metrics(processor, registry)
    for policy in _named_policies(processor):
        saved_ratio = processor.reporter.saved_ratio(policy)
        metrics.show_policy(policy.name, saved_ratio, policies.measured(policy))
    if settings.metric_aliases is MetricAliases.VLLM:
        metrics.show_vllm_names(settings.page_size, settings.prefix_cache)
    service = connect(engine_spec(settings, folder, hot_plans), metrics.engine)
    pictures = PicturePool(
        pool_spec(settings, processor.preprocessor.kind), metrics.record_image_kill
    )
    metrics.watch_images(lambda: pictures.num_waiting)
    clients = _build_clients(settings, policies)
    metrics.know_keys(clients.names)
    serving = Serving(
        service=service,
        preparation=Preparation(
            processor,
            pictures,
            GrammarCompiler(compilers_spec(settings, folder), metrics.record_grammar),
            _build_fetcher(settings, metrics, processor.preprocessor.modality),
        ),
        admission=Admission(
            service,
            metrics,
            settings.max_queued_requests,
            settings.max_queued_tokens,
            settings.max_buffered_bytes,
        ),
        metrics=metrics,
        registry=registry,
        clients=clients,
        usage_log=_build_usage_log(settings),
        changes=_build_changes(settings, processor, clients),
        keep_alive_seconds=settings.keep_alive_seconds,
    )
    processor.auto.watch(serving.surroundings)
    return serving


def _build_metrics(processor: QuestionProcessor, registry: CollectorRegistry) -> ServerMetrics:
    named = _named_policies(processor)
    return ServerMetrics(registry, processor.model_name, named, processor.default_policy)


def _named_policies(processor: QuestionProcessor) -> list[ResolvedPolicy]:
    """Return those that have a name in the metrics."""
    return [it for it in processor.policies.resolved.values() if not it.is_added]


def _build_clients(settings: Settings, policies: PolicyRegistry) -> Clients:
    path = settings.api_keys_file
    try:
        return Clients(
            (key.get_secret_value() for key in settings.api_key),
            settings.isolate_keys,
            None if path is None else lambda: read_keys(path, {*policies.names, AUTO_NAME}),
        )
    except KeysFileError as error:
        raise StartError(str(error)) from error


def _build_changes(
    settings: Settings, processor: QuestionProcessor, clients: Clients
) -> PolicyChanges | None:
    """Return what adds and removes policies; None unless the settings switch that on."""
    file = processor.terms.added_policies
    if file is None:
        return None

    def tell_user(name: str) -> str | None:
        # Without the policy the server would not start again.
        if name in (processor.default_policy, *settings.hot_policies, *settings.auto_policies):
            return "default_skip_policy, hot_policies or auto_policies names it"
        users = [it.name for it in clients if it.rights.policies and name in it.rights.policies]
        return f"the keys file names it, for {users[0]}" if users else None

    return PolicyChanges(processor.policies, file, settings.max_added_policies, tell_user)


def _build_usage_log(settings: Settings) -> UsageLog | None:
    try:
        return None if settings.usage_log is None else UsageLog(settings.usage_log)
    except OSError as error:
        raise StartError(f"the usage log {settings.usage_log}: {error.strerror}") from error


def _build_fetcher(
    settings: Settings, metrics: ServerMetrics, modality: Modality
) -> ImageFetcher | None:
    """Return what fetches media by URL; None unless the settings switch that on."""
    hosts = MediaHosts.parse(settings.media_hosts, takes_any=settings.allow_any_media_host)
    if not hosts.is_on:
        return None
    limits = FetchLimits(
        image_bytes=settings.max_image_bytes,
        # As much as a request can bring in its body, and all requests in theirs.
        request_bytes=settings.max_body_bytes,
        seconds=settings.media_seconds,
        num_requests=min(
            max(settings.max_buffered_bytes // settings.max_body_bytes, 1), _MOST_FETCHES
        ),
    )
    return ImageFetcher(hosts, limits, metrics.record_fetch_failure, modality=modality)


def pool_spec(settings: Settings, kind: MediaKind) -> PoolSpec:
    """Return how media are decoded and fitted."""
    return PoolSpec(
        worker=WorkerSpec(
            kind=kind,
            bytes_per_pixel=IMAGE_BYTES_PER_PIXEL,
            granted_bytes=_GRANTED_BYTES,
            cpu_seconds=_IMAGE_CPU_SECONDS,
            cpu_seconds_per_pixel=settings.image_cpu_seconds / settings.max_image_pixels,
            logs_json=settings.log_format is LogFormat.JSON,
        ),
        limits=PixelLimits(settings.max_image_pixels, settings.max_request_pixels),
        num_workers=settings.num_image_workers,
        memory_bytes=settings.image_memory_bytes,
    )


def compilers_spec(settings: Settings, folder: Path) -> CompilersSpec:
    """Return how what answers are held to is compiled, for the model of a folder."""
    return CompilersSpec(
        worker=CompilerSpec(
            model=folder,
            cpu_seconds=_GRAMMAR_CPU_SECONDS,
            memory_bytes=_GRAMMAR_BYTES,
            logs_json=settings.log_format is LogFormat.JSON,
        ),
        num_workers=_GRAMMAR_WORKERS,
        max_kept=_KEPT_GRAMMARS,
        max_kept_bytes=_KEPT_GRAMMAR_BYTES,
    )


def engine_spec(settings: Settings, folder: Path, hot_plans: tuple[Plan, ...] = ()) -> EngineSpec:
    """Return how to run the engine on a model's folder, with graphs for some plans' decode."""
    return EngineSpec(
        model=folder,
        device=settings.device.value,
        dtype=settings.dtype.value,
        quantization=settings.quantization.value,
        num_threads=settings.num_threads,
        limits=_engine_limits(settings, hot_plans),
        stall_seconds=settings.stall_seconds,
        logs_json=settings.log_format is LogFormat.JSON,
    )


def _engine_limits(settings: Settings, hot_plans: tuple[Plan, ...]) -> EngineLimits:
    gib = settings.kv_cache_gib
    return EngineLimits(
        max_batch_tokens=settings.max_batch_tokens,
        max_running=settings.max_running_requests,
        page_size=settings.page_size,
        kv_cache_bytes=None if gib is None else int(gib * _GIB),
        encoder_cache_bytes=settings.encoder_cache_mib * _MIB,
        reuses_prefixes=settings.prefix_cache,
        uses_graphs=None if settings.cuda_graphs else False,
        hot_plans=hot_plans,
    )


def _hot_plans(settings: Settings, processor: QuestionProcessor) -> tuple[Plan, ...]:
    """Return the plans that are known to be asked for: the default's, and what is said to be."""
    default = processor.default_policy
    chosen = processor.auto.fallback.name if default == AUTO_NAME else default
    names = (chosen, *settings.hot_policies)
    return tuple(_find_policy(name, processor.policies).plan for name in names)


def _find_policy(name: str, policies: PolicyRegistry) -> ResolvedPolicy:
    if name in policies.misfits:
        raise StartError(f"the skip policy {name} does not fit: {policies.misfits[name]}")
    if name not in policies.resolved:
        nearest = ", ".join(nearest_names(name, policies.resolved))
        raise StartError(f"there is no skip policy {name!r}; the nearest are {nearest}")
    return policies.resolved[name]


def _build_tracer(settings: Settings, model: str) -> Tracer | None:
    """Return where traces go; None without an endpoint, which needs no package of OpenTelemetry's.

    Raises:
        StartError: there is an endpoint, and the packages are missing.
    """
    if settings.otlp_endpoint is None:
        return None
    try:
        from skipserve.tracing import SpanTracer  # noqa: PLC0415
    except ImportError as error:
        raise StartError(
            f"traces for {settings.otlp_endpoint} need packages that are not installed: "
            "pip install 'skipserve[trace]', or unset --otlp-endpoint and "
            "OTEL_EXPORTER_OTLP_ENDPOINT"
        ) from error
    return SpanTracer(settings.otlp_endpoint, model, settings.otlp_metrics)


class _App(FastAPI):
    """FastAPI's, whose schema also says that a key is wanted, where one is."""

    wants_key = False

    def openapi(self) -> dict[str, Any]:
        """Return the schema."""
        schema = super().openapi()
        if self.wants_key:
            schemes = {_KEY_SCHEME: {"type": "http", "scheme": "bearer"}}
            schema["components"]["securitySchemes"] = schemes
            for path, operations in schema["paths"].items():
                for operation in operations.values():
                    operation["security"] = [] if path in PUBLIC_PATHS else [{_KEY_SCHEME: []}]
        return schema


def _build_app(settings: Settings, serving: Serving, pace: Pace, tracer: Tracer | None) -> FastAPI:
    files = [file.route for file in read_files()] if settings.playground else []
    included = (*router.routes, *asking_router.routes, *policy_router.routes, *files)
    routes = [route for route in included if isinstance(route, Route)]
    log = AccessLog({route.path for route in routes})

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        await serving.service.start()
        await serving.preparation.pictures.start()
        try:
            yield
        finally:
            await serving.preparation.close()
            await serving.service.close(grace_seconds=0)
            log.close()
            if tracer is not None:
                await asyncio.to_thread(tracer.close)
            if serving.usage_log is not None:
                await asyncio.to_thread(serving.usage_log.close)

    app = _App(
        title="skipserve",
        summary="A server for multimodal LLMs in which each request chooses what is computed.",
        version=version("skipserve"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers={HTTPException: handle_error, RequestValidationError: handle_error},
    )
    app.wants_key = settings.wants_keys
    app.state.serving = serving
    # What errors name; others that no schema shows are not for all to know.
    app.state.routes = [it for it in routes if it.include_in_schema or it in files]
    app.include_router(asking_router)
    app.include_router(router)
    app.include_router(policy_router)
    app.router.routes.extend(files)
    # The last one added is the first to see a request.
    app.add_middleware(
        ReadBody,
        paths=WITH_BODY,
        limits=BodyLimits(settings.max_body_bytes, settings.max_text_bytes, settings.body_seconds),
        arrive=arrive,
    )
    app.add_middleware(CheckHost, hosts=settings.served_hosts)
    public_paths = PUBLIC_PATHS.union(route.path for route in files)
    app.add_middleware(RequireKey, **_keys(settings, serving), public_paths=public_paths)
    app.add_middleware(
        Guard,
        metrics=serving.metrics,
        admission=serving.admission,
        pace=pace,
        tracer=tracer,
        log=log,
        usage_log=serving.usage_log,
    )
    return app


def _keys(settings: Settings, serving: Serving) -> dict[str, Any]:
    return {
        "clients": serving.clients,
        "metrics_keys": [key.get_secret_value() for key in settings.metrics_api_key],
    }


def _build_connections(settings: Settings, app: FastAPI, pace: Pace) -> Connections:
    serving: Serving = app.state.serving
    metrics = serving.metrics
    limits = ConnectionLimits(
        num_connections=room_for_connections(settings.max_connections),
        num_per_address=settings.max_address_connections,
        header_seconds=settings.header_seconds,
        write_seconds=settings.write_seconds,
    )
    check_key = RequireKey(app, **_keys(settings, serving)).check
    door = Door(serving.admission, metrics, OPERATIONS, check_key, pace)
    return Connections(limits, lambda error: metrics.record_error(error.status), door.turn_away)


def _descriptor_warning(settings: Settings, connections: Connections) -> Iterator[str]:
    num_connections = connections.limits.num_connections
    if num_connections < settings.max_connections:
        yield (
            f"this process may open so few files that there can be {num_connections} connections, "
            f"not {settings.max_connections}: raise its limit (ulimit -n)"
        )


def _warnings(settings: Settings, policies: PolicyRegistry) -> list[str]:
    warnings = [*_misfit_warning(settings, policies), *misspelt_variables()]
    warnings.extend(_added_warning(settings))
    if not settings.is_loopback and not settings.wants_keys:
        warnings.append(
            f"anyone who reaches {settings.host}:{settings.port} can use this server: "
            "set --api-key or --api-keys-file, or listen on 127.0.0.1"
        )
    if settings.isolate_keys and not settings.wants_keys:
        warnings.append("without keys, --isolate-keys does nothing: all share one cache")
    return warnings


def _added_warning(settings: Settings) -> Iterator[str]:
    """Yield why no policy can be added though that is switched on."""
    file = settings.added_policies
    if file is not None and settings.api_keys_file is None:
        yield "--added-policies wants an admin key of --api-keys-file: nobody can add a policy"
    if file is not None and not PolicyFile(file).can_be_written:
        yield f"the folder of {file} is read-only: no policy can be added or removed"


def _misfit_warning(settings: Settings, policies: PolicyRegistry) -> Iterator[str]:
    """Yield one line for all policies that the model cannot run, and where to see which."""
    if policies.misfits:
        total = len(policies.misfits) + len(policies.resolved)
        file = () if settings.policies is None else ("--policies", str(settings.policies))
        command = shlex.join(("skipserve", "policies", "--json", "--model", settings.model, *file))
        yield (
            f"skip policies that do not fit this model: {len(policies.misfits)} of {total}; "
            f"`{command}` says which and why"
        )
