"""What an operator can set, by flag, environment or file. The environment is read here alone."""

import contextlib
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from difflib import get_close_matches
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from skipserve.media.hosts import MediaHost
from skipserve.pretrained.places import PRETRAINED
from skipserve_policies.strict_yaml import load_yaml

_PREFIX = "SKIPSERVE_"
_OTLP_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
# What the client reads.
_CLIENT_VARIABLES = {_PREFIX + "URL"}
# More than any machine has; libraries end the process where they cannot have so many.
MAX_THREADS = 1024
# What decoding takes at most, as measured: 18 for WebP, whose decoder has canvases of its own, 12
# for JPEG in four colours, 10 for other progressive JPEGs and for 16 bits, 9 with transparency.
IMAGE_BYTES_PER_PIXEL = 20
_MOST_IMAGE_WORKERS = 4
_MIB = 2**20
_EMPTY_KEY = "the key is empty: give one, or leave the setting out"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_HOST = re.compile(r"\*|(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


class SettingsFileError(ValueError):
    """A file or folder of settings that is missing, of a kind that is not read, or broken."""


class Dtype(StrEnum):
    """The number type that the model runs in; AUTO takes the checkpoint's."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class Device(StrEnum):
    """What the model runs on; AUTO takes a GPU where there is one."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class LogFormat(StrEnum):
    """How log lines are written."""

    TEXT = "text"
    JSON = "json"


class UnknownFields(StrEnum):
    """What is done about fields of a request that are not known."""

    REFUSE = "refuse"
    IGNORE = "ignore"


class Quantization(StrEnum):
    """In how many bits the large products are made, where it is fewer than the number type's."""

    NONE = "none"
    INT8 = "int8"

    @property
    def in_dtype(self) -> str:
        """What a server says of it behind its number type."""
        return "" if self is Quantization.NONE else self.value


class AutoUnmet(StrEnum):
    """What is done where no policy meets what a request asks of `auto`."""

    ERROR = "error"
    FULL = "full"
    NEAREST = "nearest"


class MetricAliases(StrEnum):
    """Whose names metrics are shown by too."""

    NONE = "none"
    VLLM = "vllm"


class _FromFiles(BaseSettings):
    """Settings that files may hold too."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the sources in order, the files among them if they are named."""
        return _with_files(settings_cls, init_settings, env_settings)


class Settings(_FromFiles):
    """How to run a server. Flags go before environment, environment before files."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, frozen=True, extra="forbid")

    model: str = Field(
        "demo",
        min_length=1,
        description=f"demo, {', '.join(PRETRAINED)}, or a folder.",
    )
    dtype: Dtype = Field(Dtype.AUTO, description="Number type; auto takes the checkpoint's.")
    quantization: Quantization = Field(
        Quantization.NONE,
        description="int8 rounds weights and their inputs to 8 bits, on a CPU with VNNI.",
    )
    device: Device = Field(Device.AUTO, description="Where the model runs; auto finds a GPU.")
    num_threads: int | None = Field(
        None,
        ge=1,
        le=MAX_THREADS,
        description="CPU threads of the engine; torch's choice if not set.",
    )
    max_batch_tokens: int | None = Field(
        None, ge=16, le=2**20, description="Rows of one step; what suits the device if not set."
    )
    max_running_requests: int = Field(
        256, ge=1, le=4096, description="Requests that run at the same time."
    )
    page_size: int = Field(
        16, ge=1, le=256, description="Positions whose keys and values share a page."
    )
    kv_cache_gib: float | None = Field(
        None,
        gt=0,
        le=4096,
        description="Memory for keys and values. If not set, most of what a GPU has free, on a CPU "
        "a quarter of what is available.",
    )
    encoder_cache_mib: int = Field(
        256, ge=0, le=2**20, description="Memory for projected images that are kept."
    )
    prefix_cache: bool = Field(
        True, description="Whether requests reuse what others with the same beginning computed."
    )
    cuda_graphs: bool = Field(
        True, description="Whether decode steps run as captured graphs, on a GPU."
    )
    ray: bool = Field(
        False,
        description="Whether engines run as replicas on Ray Serve: in the cluster that RAY_ADDRESS "
        "names, or in one of this machine that is started for it. Wants the extra ray.",
    )
    replicas: int = Field(2, ge=1, le=1024, description="With ray: how many engines.")
    host: str = Field("127.0.0.1", min_length=1, description="The address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="The port; 0 takes a free one.")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Names under which the server may be asked, such as llm.example.com or "
        "*.example.com; several by repeating or with commas. If not set, those of this machine "
        "where only it can reach the server, else any.",
    )
    api_key: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="A key that clients must send; several by repeating or with commas."
    )
    api_keys_file: Path | None = Field(
        None,
        description="A YAML or JSON file of clients' keys, with names, limits and rights; SIGHUP "
        "has it read again.",
    )
    metrics_api_key: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (),
        description="A key that opens GET /metrics and nothing else, for Prometheus; wants "
        "api_key or api_keys_file too. Several by repeating or with commas.",
    )
    isolate_keys: bool | None = Field(
        None,
        description="Whether each API key has a cache of its own. If not set, where there are "
        "several keys.",
    )
    usage_log: Path | None = Field(
        None,
        description="A file that gets a line of JSON for each request that has reached the "
        "engine; SIGHUP has it opened again.",
    )
    policies: Path | None = Field(None, description="A YAML file that adds skip policies.")
    added_policies: Path | None = Field(
        None,
        description="A file of this server's own, which keeps the skip policies that admin keys "
        "add with POST /v1/skip_policies. Without it none can be added.",
    )
    max_added_policies: int = Field(
        64, ge=1, le=4096, description="Skip policies that may be added so."
    )
    default_skip_policy: str | None = Field(
        None,
        min_length=1,
        description="The skip policy of requests that name none, or auto. If not set, the model's "
        "own default, which its skip-policies.yaml names, or else full.",
    )
    auto_policies: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Policies that the server may choose for requests that ask for auto; several "
        "by repeating or with commas. If not set, all that were measured on the model.",
    )
    auto_quality: float = Field(
        0.98,
        gt=0,
        le=1,
        allow_inf_nan=False,
        description="The share of what the full model reaches that auto keeps where a request "
        "does not say, by the lower end of what was measured.",
    )
    auto_min_quality: float = Field(
        0.95,
        gt=0,
        le=1,
        allow_inf_nan=False,
        description="The share that it keeps while requests wait, or where a request's "
        "max_latency_ms wants it so; never less, whatever a request says.",
    )
    auto_unmet: AutoUnmet = Field(
        AutoUnmet.ERROR,
        description="Where no policy meets what a request asks of auto: error refuses it, full "
        "runs the model's own default, nearest the quickest policy that keeps the quality, or the "
        "best.",
    )
    auto_pressure_seconds: float = Field(
        1.0,
        gt=0,
        allow_inf_nan=False,
        description="From so long an expected wait on, auto keeps auto_min_quality alone.",
    )
    auto_relief_seconds: float = Field(
        0.25,
        ge=0,
        allow_inf_nan=False,
        description="Down to so long an expected wait it goes on so.",
    )
    hot_policies: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Policies whose decode steps get GPU graphs of their own, beside full and the "
        "default; several by repeating or with commas.",
    )
    allow_inline_policies: bool = Field(
        True, description="Whether requests may spell a skip policy out."
    )
    allow_misfit_policies: bool = Field(
        False,
        description="Whether to start though policies of a file name layers that the model does "
        "not have; nobody can ask for those.",
    )
    unknown_fields: UnknownFields = Field(
        UnknownFields.REFUSE,
        description="Whether fields of a request that are not known are refused, or ignored and "
        "named in the header X-Ignored-Fields.",
    )
    max_body_bytes: int = Field(32 * _MIB, ge=1024, description="Bytes of a request's body.")
    max_text_bytes: int = Field(
        _MIB, ge=1024, description="Bytes of a request's body besides its pictures."
    )
    max_buffered_bytes: int = Field(
        256 * _MIB, ge=1024, description="Bytes of the bodies of all requests under way."
    )
    max_connections: int = Field(
        1024, ge=1, le=65536, description="Connections; past it, idle ones give way to new ones."
    )
    max_address_connections: int = Field(
        512, ge=1, le=65536, description="Connections of one address; a proxy is one too."
    )
    max_images: int = Field(8, ge=0, le=256, description="Images, videos or sounds of a request.")
    max_image_bytes: int = Field(20 * _MIB, ge=1, description="Bytes of one such file.")
    max_image_pixels: int = Field(
        40_000_000,
        ge=1,
        le=89_000_000,
        description="Width times height of one image; of a video, times its frames.",
    )
    max_request_pixels: int = Field(
        80_000_000, ge=1, description="The same, over all images of a request."
    )
    image_workers: int | None = Field(
        None,
        ge=1,
        le=64,
        description="Processes that decode images. If not set, one more than there are CPU cores, "
        "and 4 at most.",
    )
    image_memory_mib: int | None = Field(
        None,
        ge=1,
        le=2**20,
        description="Memory for the large images that are decoded at a time. If not set, what one "
        "of max_image_pixels takes: 20 bytes a pixel.",
    )
    image_cpu_seconds: float = Field(
        10.0,
        gt=0,
        le=3600,
        description="CPU time for decoding an image of max_image_pixels; smaller ones get their "
        "share, and a second.",
    )
    media_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Hosts that images may be fetched from by URL, such as images.example.com, "
        "*.example.com or minio:9000, and addresses that are not public but may be connected to "
        "for that, such as 10.0.0.0/8; several by repeating or with commas.",
    )
    allow_any_media_host: bool = Field(
        False, description="Whether images may be fetched by URL from any host that is public."
    )
    media_seconds: float = Field(
        10.0, gt=0, le=600, description="Time for fetching the images of a request."
    )
    max_queued_requests: int = Field(
        256, ge=1, description="Requests that may wait; more are turned away."
    )
    max_queued_tokens: int = Field(
        131_072, ge=1, description="Prompt tokens that may wait for their first answer token."
    )
    queue_seconds: float = Field(
        60.0, gt=0, description="Time that a request may wait for its first step."
    )
    request_seconds: float = Field(
        600.0, gt=0, description="Time that a request may take in the engine, its wait included."
    )
    body_seconds: float = Field(60.0, gt=0, description="Time that a client has to send a body.")
    header_seconds: float = Field(
        10.0, gt=0, description="Time that a client has to send the head of a request."
    )
    write_seconds: float = Field(
        30.0, gt=0, description="Time that a client may leave what it is sent unread."
    )
    grace_seconds: float = Field(
        30.0, ge=0, description="Time that running requests have to finish on SIGTERM."
    )
    stall_seconds: float = Field(
        30.0, gt=0, description="After so long without progress the engine counts as hung."
    )
    keep_alive_seconds: float = Field(
        15.0, gt=0, description="Time between signs of life in a stream."
    )
    playground: bool = Field(
        True,
        description="Whether browsers find a page at / that asks the server; it shows nothing that "
        "needs a key to whoever has none.",
    )
    config: Path | None = Field(None, description="A YAML or TOML file with these settings.")
    secrets_folder: Path | None = Field(
        None,
        description="A folder of files that hold one setting each, such as skipserve_api_key: "
        "Docker puts secrets into /run/secrets.",
    )
    metric_aliases: MetricAliases = Field(
        MetricAliases.NONE,
        description="Whose names /metrics shows our metrics by too, for dashboards and routers.",
    )
    log_format: LogFormat = Field(LogFormat.TEXT, description="How log lines are written.")
    otlp_endpoint: str | None = Field(
        None,
        validate_default=True,
        description="Where traces are sent, as OTLP over HTTP: http://collector:4318. "
        f"{_OTLP_ENDPOINT} if not set; without either nothing is traced.",
    )
    otlp_metrics: bool = Field(
        True, description="Whether OpenTelemetry's gen_ai.server metrics are sent there too."
    )

    @field_validator("page_size")
    @classmethod
    def _check_page_size(cls, value: int) -> int:
        """Take what every device's kernels take."""
        if value & (value - 1):
            raise ValueError("this must be a power of two")
        return value

    @field_validator("api_key", "metrics_api_key", mode="before")
    @classmethod
    def _split_keys(cls, value: Any) -> Any:
        """Take one text with commas, or several, as keys."""
        if value is None:
            raise ValueError(_EMPTY_KEY)
        keys = _split(value)
        # It would leave the server open unnoticed.
        if not keys and value not in ((), []):
            raise ValueError(_EMPTY_KEY)
        # No request could bring it.
        if not all(key.isascii() and key.isprintable() for key in keys):
            raise ValueError("a key must be of letters, digits and signs of ASCII alone")
        return keys

    @field_validator("metrics_api_key")
    @classmethod
    def _check_metrics_keys(
        cls, keys: tuple[SecretStr, ...], info: ValidationInfo
    ) -> tuple[SecretStr, ...]:
        """Take them beside clients' keys only: without those everything is open."""
        said = info.data.get("api_key"), info.data.get("api_keys_file")
        if keys and said == ((), None):
            raise ValueError(
                "without api_key or api_keys_file the metrics are open like all else: set both"
            )
        return keys

    @field_validator("allowed_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: Any) -> Any:
        """Take one text with commas, or several, as names."""
        hosts = _split(value)
        if not hosts and value not in ((), []):
            raise ValueError("the name is empty: give one, or leave the setting out")
        return hosts

    @field_validator("allowed_hosts")
    @classmethod
    def _check_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        """Take what a header can match: no port, no scheme, a star at the beginning alone."""
        if wrong := next((host for host in hosts if not _is_host(host)), None):
            raise ValueError(
                f"{wrong!r} must be a name or an address without port, such as llm.example.com, "
                "*.example.com or [::1]; * is any"
            )
        return hosts

    @field_validator("media_hosts", mode="before")
    @classmethod
    def _split_media_hosts(cls, value: Any) -> Any:
        """Take one text with commas, or several, as hosts."""
        return _split(value)

    @field_validator("media_hosts")
    @classmethod
    def _check_media_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            MediaHost.parse(host)
        return hosts

    @field_validator("otlp_endpoint", mode="before")
    @classmethod
    def _find_endpoint(cls, value: Any) -> Any:
        """Take OpenTelemetry's own variable where no other place says it; empty is not set."""
        return value or os.environ.get(_OTLP_ENDPOINT) or None

    @field_validator("otlp_endpoint")
    @classmethod
    def _check_endpoint(cls, value: str | None) -> str | None:
        if value is not None and not re.match(r"https?://[^\s/]", value):
            raise ValueError("this must be an address such as http://collector:4318")
        return value

    @field_validator("hot_policies", "auto_policies", mode="before")
    @classmethod
    def _split_policies(cls, value: Any) -> Any:
        """Take one text with commas, or several, as names."""
        return _split(value)

    @model_validator(mode="after")
    def _check_pixels(self) -> Self:
        if self.max_request_pixels < self.max_image_pixels:
            raise ValueError("max_request_pixels must be at least max_image_pixels")
        return self

    @model_validator(mode="after")
    def _check_image_memory(self) -> Self:
        """Take no limits under which the largest image is never decoded."""
        least = -(-self._largest_image_bytes // _MIB)
        if self.image_memory_mib is not None and self.image_memory_mib < least:
            raise ValueError(
                f"image_memory_mib must be at least {least}: {IMAGE_BYTES_PER_PIXEL} bytes for "
                "each of max_image_pixels"
            )
        return self

    @model_validator(mode="after")
    def _check_auto(self) -> Self:
        """Take no floor above what is kept anyway, and no pressure that ends before it begins."""
        if self.auto_min_quality > self.auto_quality:
            raise ValueError(
                f"auto_min_quality is {self.auto_min_quality:g}, above auto_quality, which is "
                f"{self.auto_quality:g}: it must be at most that"
            )
        if self.auto_relief_seconds >= self.auto_pressure_seconds:
            raise ValueError("auto_relief_seconds must be below auto_pressure_seconds")
        return self

    @property
    def _largest_image_bytes(self) -> int:
        return IMAGE_BYTES_PER_PIXEL * self.max_image_pixels

    @property
    def image_memory_bytes(self) -> int:
        """Memory for the large images that are decoded at a time."""
        if self.image_memory_mib is None:
            return self._largest_image_bytes
        return self.image_memory_mib * _MIB

    @property
    def num_image_workers(self) -> int:
        """Processes that decode images, at most."""
        return self.image_workers or min(len(os.sched_getaffinity(0)), _MOST_IMAGE_WORKERS - 1) + 1

    @property
    def wants_keys(self) -> bool:
        """Whether clients must send keys."""
        return bool(self.api_key) or self.api_keys_file is not None

    @property
    def has_files_to_reload(self) -> bool:
        """Whether there is something to do again on SIGHUP."""
        return self.api_keys_file is not None or self.usage_log is not None

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        with contextlib.suppress(ValueError):
            return ip_address(self.host).is_loopback
        return self.host == "localhost" or self.host.startswith("127.")

    @property
    def served_hosts(self) -> tuple[str, ...]:
        """Names under which the server may be asked; `*` is any."""
        return self.allowed_hosts or ((*_LOOPBACK, self.host) if self.is_loopback else ("*",))


class _LogSettings(_FromFiles):
    """What says how log lines are written, and where that may be said."""

    model_config = SettingsConfigDict(env_prefix=_PREFIX, extra="ignore")

    log_format: LogFormat = LogFormat.TEXT
    config: Path | None = None
    secrets_folder: Path | None = None


def find_log_format(flags: Mapping[str, Any]) -> LogFormat:
    """Return how log lines are wanted, though other settings be wrong; TEXT if that is not said."""
    said = {name: flags[name] for name in _LogSettings.model_fields if flags.get(name) is not None}
    for given in (said, said | {"config": None, "secrets_folder": None}):
        with contextlib.suppress(ValidationError, SettingsFileError):
            return _LogSettings(**given).log_format
    return LogFormat.TEXT


def variable_of(name: str) -> str | None:
    """Return the variable of the environment that says a setting; None if none does."""
    wanted = _PREFIX + name.upper()
    return next((variable for variable in os.environ if variable.upper() == wanted), None)


def misspelt_variables() -> Iterator[str]:
    """Yield a line for each variable that looks like a setting and is none."""
    settings = {_PREFIX + name.upper() for name in Settings.model_fields}
    for name in sorted(os.environ):
        if name.upper().startswith(_PREFIX) and name.upper() not in settings | _CLIENT_VARIABLES:
            near = get_close_matches(name.upper(), settings, n=1)
            yield f"{name} is no setting" + (f"; is it {near[0]}?" if near else "")


def _is_host(text: str) -> bool:
    with contextlib.suppress(ValueError):
        return ip_address(text.removeprefix("[").removesuffix("]")) is not None
    return _HOST.fullmatch(text) is not None


def _split(value: Any) -> list[str]:
    """Return the parts of one text with commas, or of several.

    Raises:
        ValueError: it is neither.
    """
    texts = value if isinstance(value, list | tuple) else [value]
    # YAML's 0123 is the number 83: as a text it would be another key.
    if not all(isinstance(text, str | SecretStr) for text in texts):
        raise ValueError("this must be a text, or a list of texts: put it into quotes")
    plain = (it.get_secret_value() if isinstance(it, SecretStr) else it for it in texts)
    return [part.strip() for text in plain for part in text.split(",") if part.strip()]


def _with_files(
    settings: type[BaseSettings],
    flags: PydanticBaseSettingsSource,
    environment: PydanticBaseSettingsSource,
) -> tuple[PydanticBaseSettingsSource, ...]:
    """Return all sources, the first before the others; of the files, those that are named."""
    given: dict[str, Any] = environment() | flags()
    files = [
        read(settings, Path(given[name])) for name, read in _FILE_SOURCES.items() if given.get(name)
    ]
    return flags, environment, *files


def _secrets_source(settings: type[BaseSettings], folder: Path) -> PydanticBaseSettingsSource:
    """Read what is named like a setting; a misspelt name is an error, as in a settings file."""
    prefix = _PREFIX.lower()
    try:
        files = [path for path in folder.iterdir() if path.name.startswith(prefix)]
        values = {path.name.removeprefix(prefix): path.read_text().strip() for path in files}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsFileError(f"the secrets in {folder} cannot be read: {error}") from error
    return _checked(InitSettingsSource(settings, values), folder)


def _file_source(settings: type[BaseSettings], path: Path) -> PydanticBaseSettingsSource:
    if not path.is_file():
        raise SettingsFileError(f"there is no settings file {path}")
    read = _READERS.get(path.suffix)
    if read is None:
        raise SettingsFileError(f"the settings file {path} must end in .yaml, .yml or .toml")
    try:
        values = read(path.read_text("utf-8"))
    except UnicodeDecodeError as error:
        raise SettingsFileError(
            f"the settings file {path} cannot be read: it is not UTF-8 text"
        ) from error
    except (ValueError, OSError) as error:
        raise SettingsFileError(f"the settings file {path} cannot be read: {error}") from error
    if not isinstance(values or {}, dict) or not all(isinstance(key, str) for key in values or ()):
        raise SettingsFileError(
            f"the settings file {path} cannot be read: it must be a mapping, such as port: 8000"
        )
    return _checked(InitSettingsSource(settings, values or {}), path)


def _checked(source: PydanticBaseSettingsSource, path: Path) -> PydanticBaseSettingsSource:
    """Return a file's source; what it says of other files comes too late to be read."""
    if late := _FILE_SOURCES.keys() & source().keys():
        raise SettingsFileError(f"{path} cannot set {late.pop()}: a flag or a variable can")
    return source


_READERS: dict[str, Callable[[str], Any]] = {
    ".yaml": load_yaml,
    ".yml": load_yaml,
    ".toml": tomllib.loads,
}
# By the setting that names the file; those further up go before the others.
_FILE_SOURCES = {"secrets_folder": _secrets_source, "config": _file_source}
