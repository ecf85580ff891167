"""`skipserve serve`: flags, the process around the server, signals, and the exit code."""

import asyncio
import contextlib
import errno
import gc
import inspect
import logging
import signal
import socket
from collections.abc import Awaitable, Generator, Iterator, Mapping, Sequence
from enum import IntEnum
from ipaddress import ip_address
from itertools import pairwise
from typing import Annotated, Any

import typer
import uvicorn
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import SettingsError
from rich.console import Console

from skipserve.api.protocol import web_server_config
from skipserve.app import Built, build
from skipserve.asking.auto.chooser import AutoChooser
from skipserve.asking.processor import QuestionProcessor
from skipserve.errors import EngineError
from skipserve.hints import Hints
from skipserve.logging_setup import set_up_logging
from skipserve.model_folder import DEMO, StartError
from skipserve.settings import (
    LogFormat,
    Settings,
    SettingsFileError,
    find_log_format,
    variable_of,
)
from skipserve.stop_signals import StopSignals
from skipserve_policies.catalog import AUTO_NAME
from skipserve_policies.faults import Fault, faults_of, plain_cause
from skipserve_policies.named import FULL, POLICIES_FILE

logger = logging.getLogger("skipserve")
_SEND_BUFFER_BYTES = 64 * 1024
# After the engine has died: the time for open streams to say so, and for probes to see it.
_LAST_WORDS_SECONDS = 2.0
# After the grace time: what clients get to read how their requests ended.
_CUT_OFF_SECONDS = 1


class ExitCode(IntEnum):
    """How `skipserve serve` ends; uvicorn has 3 for an application that does not start."""

    STOPPED = 0
    ENGINE_GONE = 1
    REFUSED = 2
    REQUESTS_LOST = 4


# Where listening fails, what helps.
_PORT_ADVICE = (
    "choose another port with --port, or a free one with --port 0; "
    'with make: make serve ARGS="--port 0"'
)
_LISTEN_ADVICE = {
    errno.EADDRINUSE: f"`ss -ltnp sport = :{{port}}` shows what has it; {_PORT_ADVICE}",
    errno.EACCES: f"ports below 1024 need rights; {_PORT_ADVICE}",
}
_HOST_ADVICE = "--host takes an address of this machine: 127.0.0.1, or 0.0.0.0 for all of them"

# typer brings a click of its own, under a private name.
_USAGE_ERROR: Any = typer.BadParameter.__base__

_METAVARS = {
    "model": "NAME|PATH",
    "config": "FILE",
    "secrets_folder": "FOLDER",
    "policies": "FILE",
    "added_policies": "FILE",
    "allowed_hosts": "NAME",
    "media_hosts": "HOST",
    "api_key": "KEY",
    "api_keys_file": "FILE",
    "usage_log": "FILE",
    "metrics_api_key": "KEY",
    "default_skip_policy": "NAME",
    "hot_policies": "NAME",
    "auto_policies": "NAME",
    "otlp_endpoint": "URL",
}
_PANELS = {
    "Model": ("model", "dtype", "quantization", "device", "num_threads"),
    "Engine": (
        "max_batch_tokens", "max_running_requests", "page_size",
        "kv_cache_gib", "encoder_cache_mib", "prefix_cache", "cuda_graphs",
    ),
    "Several engines": ("ray", "replicas"),
    "Network": ("host", "port", "allowed_hosts", "playground"),
    "Keys": ("api_key", "api_keys_file", "metrics_api_key", "isolate_keys", "usage_log"),
    "Skip policies": (
        "policies", "added_policies", "max_added_policies", "default_skip_policy", "hot_policies",
        "allow_inline_policies", "allow_misfit_policies",
    ),
    "The choice of auto": (
        "auto_policies", "auto_quality", "auto_min_quality", "auto_unmet",
        "auto_pressure_seconds", "auto_relief_seconds",
    ),
    "Images by URL": ("media_hosts", "allow_any_media_host", "media_seconds"),
    "Limits": (
        "max_body_bytes", "max_text_bytes", "max_buffered_bytes",
        "max_connections", "max_address_connections",
        "max_images", "max_image_bytes", "max_image_pixels",
        "max_request_pixels", "image_workers", "image_memory_mib", "image_cpu_seconds",
        "max_queued_requests", "max_queued_tokens",
        "header_seconds", "body_seconds", "write_seconds", "queue_seconds", "request_seconds",
    ),
}  # fmt: skip


def serve(**flags: Any) -> None:
    """Serve a model over HTTP.

    Each flag can also be set in the environment (--model as SKIPSERVE_MODEL) or in a file
    (model: demo). Flags go before the environment, the environment before files.
    """
    with StopSignals() as signals:
        raise typer.Exit(_serve(signals, flags))


def _serve(signals: StopSignals, flags: Mapping[str, Any]) -> int:
    given = {name: value for name, value in flags.items() if _is_given(value)}
    log_format = find_log_format(given)
    # Before anything can go wrong: with JSON nothing else is written.
    set_up_logging(as_json=log_format is LogFormat.JSON)
    try:
        settings = _read_settings(given)
        if settings.ray:
            return _serve_on_ray(settings, signals)
        built = build(settings)
        listener = listen(settings.host, settings.port)
    except (StartError, OSError) as error:
        raise _refusal(str(error), log_format) from error
    for warning in (*built.warnings, *_key_warning(given)):
        logger.warning(warning)
    # What exists now stays: no collection need look at it again, which would hold up all streams.
    gc.collect()
    gc.freeze()
    return asyncio.run(_Process(built, settings, listener, signals).run())


def _serve_on_ray(settings: Settings, signals: StopSignals) -> int:
    try:
        from skipserve.ray.launch import serve_on_ray  # noqa: PLC0415
    except ImportError as error:
        raise StartError(
            "--ray needs packages that are not installed: pip install 'skipserve[ray]'"
        ) from error
    listener = listen(settings.host, settings.port)
    free = settings.model_copy(update={"port": listener.getsockname()[1]})
    # Ray Serve listens itself.
    listener.close()
    return serve_on_ray(free, signals, _print)


def _key_warning(flags: Mapping[str, Any]) -> Iterator[str]:
    if named := sorted(flags.keys() & {"api_key", "metrics_api_key"}):
        flag = "--" + named[0].replace("_", "-")
        yield (
            f"whoever can list the processes of this machine reads the key in {flag}: set "
            f"SKIPSERVE_{named[0].upper()}, or --secrets-folder, instead"
        )


def _is_given(value: Any) -> bool:
    return value is not None and value != []


def _read_settings(flags: dict[str, Any]) -> Settings:
    try:
        return Settings(**flags)
    except ValidationError as error:
        faults = faults_of(error, Settings)
        raise StartError("; ".join(_told(fault, flags) for fault in faults)) from error
    except (SettingsFileError, SettingsError) as error:
        raise StartError(str(error)) from error


def _told(fault: Fault, flags: Mapping[str, Any]) -> str:
    """Say what is wrong with a setting, and the variable that nobody may have thought of."""
    names = [str(name) for name in fault.place[:1] if name not in flags]
    variables = filter(None, map(variable_of, names))
    return " ".join([str(fault), *(f"(in {variable})" for variable in variables)])


def _refusal(message: str, log_format: LogFormat) -> typer.Exit:
    if log_format is LogFormat.JSON:
        logger.error(message)
    else:
        Console(stderr=True).print(message, style="red", markup=False, soft_wrap=True)
    return typer.Exit(ExitCode.REFUSED)


class _RefusesInJson:
    """Makes a command refuse its flags in JSON too where the log is."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Read the flags."""
        log_format = find_log_format({"log_format": _log_format_in(args)})
        try:
            return super().parse_args(ctx, args)  # type: ignore[misc]
        except _USAGE_ERROR as error:
            if log_format is LogFormat.TEXT:
                raise
            set_up_logging(as_json=True)
            error.message = plain_cause(error) or error.message
            raise _refusal(error.format_message(), log_format) from error


def _log_format_in(arguments: Sequence[str]) -> str | None:
    """Return the log format that a command line names, which need not be a good one."""
    flag = "--log-format"
    words = [*arguments, ""]
    named = [after for word, after in pairwise(words) if word == flag]
    named += [word.partition("=")[2] for word in words if word.startswith(f"{flag}=")]
    return named[-1] if named else None


def _signature() -> inspect.Signature:
    """Return the flags of `serve`: one for each setting, so that none is listed twice."""
    return inspect.Signature(
        [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_flag(name, field)
            )
            for name, field in Settings.model_fields.items()
        ]
    )


def _flag(name: str, field: FieldInfo) -> Any:
    words = name.replace("_", "-")
    kind: Any = list[str] if isinstance(field.default, tuple) else field.annotation
    option = typer.Option(
        f"--{words}/--no-{words}" if kind in {bool, bool | None} else f"--{words}",
        help=(field.description or "") + _default_text(field.default),
        metavar=_METAVARS.get(name),
        rich_help_panel=next((title for title, of in _PANELS.items() if name in of), "Process"),
    )
    return Annotated[kind | None, option]


def _default_text(default: Any) -> str:
    if default is None or default == ():
        return ""
    words = {True: "yes", False: "no"}.get(default) if isinstance(default, bool) else default
    return f" Default: {words}."


serve.command_mixin = _RefusesInJson  # type: ignore[attr-defined]
serve.__signature__ = _signature()  # type: ignore[attr-defined]
serve.__annotations__ = {
    name: parameter.annotation for name, parameter in _signature().parameters.items()
}


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 takes a free one.

    Raises:
        OSError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        # Without the address, which the standard library repeats.
        reason = (error.strerror or str(error)).partition(" (while ")[0]
        advice = _LISTEN_ADVICE.get(error.errno or 0, _HOST_ADVICE).format(port=port)
        raise OSError(f"cannot listen on {_address(host, port)}: {reason}; {advice}") from error
    # Connections inherit it. asyncio sets it only on sockets that it makes; without it the second
    # write of a reply waits 40 ms for the client's acknowledgement of the first.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # So much the kernel takes of what a client does not read; left alone, that is megabytes.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    return listener


def reachable_url(listener: socket.socket) -> str:
    """Return where a client on this machine finds a listener."""
    host, port = listener.getsockname()[:2]
    if ip_address(host.partition("%")[0]).is_unspecified:
        host = "::1" if listener.family == socket.AF_INET6 else "127.0.0.1"
    return f"http://{_address(host, port)}"


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Server(uvicorn.Server):
    """uvicorn, but signals are ours: it would close the door before /ready could say so."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Leave the signals alone."""
        yield


class _Process:
    """The life of one server, from the first request to the exit code.

    The first SIGTERM or SIGINT drains: new requests are turned away, those that have come finish
    within the grace time. Then, or at a second signal, the others are told that they are lost. If
    the engine dies, so does the server. A SIGHUP has the keys file read and the usage log
    opened again, where there are any.

    Args:
        built: what is served.
        settings: how.
        listener: where, bound already.
        signals: say when to stop.
    """

    def __init__(
        self, built: Built, settings: Settings, listener: socket.socket, signals: StopSignals
    ) -> None:
        self._serving = built.serving
        self._connections = built.connections
        self._settings = settings
        self._listener = listener
        self._signals = signals
        self._reloading: asyncio.Task[None] | None = None
        self._http = _Server(
            web_server_config(
                # Its own patience is the last resort: what it cancels is never told why.
                built.app,
                built.connections,
                timeout_graceful_shutdown=3 * _CUT_OFF_SECONDS,
            )
        )

    async def run(self) -> int:
        """Serve until told to stop; return the exit code."""
        self._signals.follow()
        if self._settings.has_files_to_reload:
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload)
        http = asyncio.create_task(self._http.serve(sockets=[self._listener]))
        announcement = asyncio.create_task(self._announce())
        await _first_of(self._drain(), self._follow_engine(), asyncio.shield(http))
        announcement.cancel()
        num_lost = max(self._serving.admission.num_inside, await self._close(http))
        self._signals.end()
        if self._serving.service.failure is not None or not self._signals.asked.is_set():
            return ExitCode.ENGINE_GONE
        if num_lost:
            logger.error("requests that were cut off: %d", num_lost)
            return ExitCode.REQUESTS_LOST
        return ExitCode.STOPPED

    async def _close(self, http: asyncio.Task[None]) -> int:
        """End what is left, the connections last; return how many clients did not hear of it."""
        # Whoever waits for them says so to its client.
        await self._serving.preparation.pictures.close()
        await self._serving.service.close(grace_seconds=0)
        self._http.should_exit = True
        await asyncio.wait({http}, timeout=_CUT_OFF_SECONDS)
        num_cut_off = self._connections.cut_off()
        await http
        return num_cut_off

    def _reload(self) -> None:
        self._reloading = asyncio.create_task(self._serving.reload())

    async def _drain(self) -> None:
        """Return when it was asked to stop and the running requests are done, or out of time."""
        await self._signals.asked.wait()
        self._serving.admission.drain()
        logger.info("stopping: running requests have %g s", self._settings.grace_seconds)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.grace_seconds):
                await _first_of(self._serving.admission.wait_idle(), self._signals.insisted.wait())

    async def _follow_engine(self) -> None:
        """Return when the engine is gone and the world has had the time to hear of it."""
        await self._serving.service.wait_closed()
        failure = self._serving.service.failure
        if failure is not None:
            logger.error("stopping: %s", failure.message)
        await asyncio.sleep(_LAST_WORDS_SECONDS)

    async def _announce(self) -> None:
        """Say what happens and, once the model is loaded, what to try."""
        self._say(f"Loading {self._serving.processor.model_name} ...")
        try:
            await self._serving.service.wait_ready()
        except EngineError:
            return  # whoever follows the engine says why
        url = reachable_url(self._listener)
        self._say(f"skipserve serves {self._model()} on {url}", style="bold")
        self._say(describe_default(self._serving.processor))
        self._say(describe_auto(self._serving.processor.auto))
        if self._settings.log_format is LogFormat.TEXT:
            _print("\n".join(self._hints(url).lines()))

    def _say(self, text: str, style: str | None = None) -> None:
        """Tell whoever started the server: a person, or what reads its log."""
        if self._settings.log_format is LogFormat.JSON:
            logger.info(text)
        else:
            _print(f"{text}\n", style)

    def _hints(self, url: str) -> Hints:
        return Hints(
            url,
            is_demo=self._settings.model == DEMO,
            skip_policy=example_policy(self._serving.processor),
            has_key=self._settings.wants_keys,
            has_page=self._settings.playground,
        )

    def _model(self) -> str:
        ready = self._serving.service.ready
        where = f" ({ready.dtype} on {ready.device})" if ready else ""
        return self._serving.processor.model_name + where


def describe_default(processor: QuestionProcessor) -> str:
    """Say what runs where a request names no policy, who says so, and what it saves."""
    if processor.default_policy == AUTO_NAME:
        return "Requests that name no skip policy get one chosen, as --default-skip-policy says"
    policy = processor.policies.find(processor.default_policy)
    told = f"Requests that name no skip policy run {policy.name}"
    if processor.terms.default_policy is not None:
        told += ", as --default-skip-policy says"
    elif policy.name != FULL:
        told += f", this model's own default ({POLICIES_FILE})"
    saved = processor.reporter.saved_ratio(policy)
    return f"{told}: {100 * saved:.1f} % of a standard request's FLOPs saved" if saved else told


def describe_auto(auto: AutoChooser) -> str:
    """Say which policies are chosen for requests that ask for `auto`, once the weights run."""
    measured, terms = auto.measured(), auto.terms
    if not measured:
        return (
            f"{AUTO_NAME} runs {auto.fallback.name}: no policy was measured on these weights, as "
            "`skipserve evaluate --summary` does"
        )
    usual, least = (
        [it for it in measured if it.quality >= bound]
        for bound in (terms.quality, terms.min_quality)
    )
    return (
        f"{AUTO_NAME} chooses the cheapest of {len(usual)} policies that keep {terms.quality:g} of "
        f"what the full model reaches, while requests wait of {len(least)} that keep "
        f"{terms.min_quality:g}"
    )


def example_policy(processor: QuestionProcessor) -> str | None:
    """Return a policy to try; None where none fits the model, or where one runs unasked."""
    policies = processor.policies.resolved
    if processor.default_policy == AUTO_NAME or policies[processor.default_policy].policy.rules:
        return None
    return next((name for name, it in policies.items() if it.policy.rules), None)


async def _first_of(*waits: Awaitable[object]) -> None:
    """Return when one of them does; give up the others."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()


def _print(text: str, style: str | None = None) -> None:
    """Print to the terminal; where nobody reads, rich would end the process."""
    with contextlib.suppress(SystemExit, OSError):
        Console(markup=False, highlight=False, soft_wrap=True).print(text, style=style)
