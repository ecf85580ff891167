"""Tests of the settings and where they come from."""

from pathlib import Path

import pytest
from bad_forms import BAD_VALUES, check_words
from pydantic import SecretStr, ValidationError

from skipserve.settings import (
    Device,
    Dtype,
    LogFormat,
    Settings,
    SettingsFileError,
    find_log_format,
    misspelt_variables,
)
from skipserve_policies.faults import faults_of

pytestmark = pytest.mark.fast


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"SKIPSERVE_{name.upper()}", raising=False)
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)


def test_defaults() -> None:
    settings = Settings()
    assert (settings.model, settings.host, settings.port) == ("demo", "127.0.0.1", 8000)
    assert (settings.dtype, settings.device) == (Dtype.AUTO, Device.AUTO)
    assert settings.default_skip_policy is None
    assert settings.allow_inline_policies
    assert settings.api_key == ()
    assert (settings.max_queued_tokens, settings.max_running_requests) == (131_072, 256)
    assert (settings.queue_seconds, settings.request_seconds) == (60, 600)
    assert (settings.prefix_cache, settings.isolate_keys) == (True, None)


@pytest.mark.parametrize("suffix", ["yaml", "yml", "toml"])
def test_flags_before_environment_before_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    sign = " =" if suffix == "toml" else ":"
    file = tmp_path / f"settings.{suffix}"
    file.write_text(
        "\n".join(f"{name}{sign} {port}" for name, port in [("port", 1), ("max_images", 1)])
    )
    file.write_text(file.read_text() + f'\nhost{sign} "::1"\n')
    monkeypatch.setenv("SKIPSERVE_PORT", "2")
    monkeypatch.setenv("SKIPSERVE_MAX_IMAGES", "2")
    settings = Settings(config=file, port=3)
    assert (settings.port, settings.max_images, settings.host) == (3, 2, "::1")


def test_the_file_can_be_named_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.yaml").write_text("dtype: bfloat16\napi_key: [a, b]\n")
    monkeypatch.setenv("SKIPSERVE_CONFIG", str(tmp_path / "a.yaml"))
    settings = Settings()
    assert settings.dtype is Dtype.BFLOAT16
    assert [key.get_secret_value() for key in settings.api_key] == ["a", "b"]


@pytest.mark.parametrize("name", ["none.yaml", "settings.json"])
def test_a_file_that_is_not_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(SettingsFileError, match=name):
        Settings(config=tmp_path / name)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("a.yaml", b"port: ["), ("a.yaml", b"- port"), ("a.yaml", b"\xff"), ("a.toml", b"port")),
        *(("a.yaml", b"port: 1\nport: 2"), ("a.toml", b"port = 1\nport = 2"), ("a.yml", b"port")),
        *(
            ("a.yaml", b"model:\n\tdemo"),
            ("a.toml", b"\xff"),
            ("a.yaml", b"1: 2"),
            ("a.yaml", b"no: 1"),
        ),
    ],
)
def test_a_file_that_is_broken(tmp_path: Path, name: str, text: bytes) -> None:
    (tmp_path / name).write_bytes(text)
    with pytest.raises(SettingsFileError, match=f"{name} cannot be read: .+") as caught:
        Settings(config=tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_file_may_be_empty(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("# nothing yet\n")
    assert Settings(config=tmp_path / "a.yaml").port == 8000


@pytest.mark.parametrize("name", ["config", "secrets_folder"])
@pytest.mark.parametrize("suffix", ["yaml", "toml"])
def test_a_file_does_not_name_another(tmp_path: Path, name: str, suffix: str) -> None:
    file = tmp_path / f"a.{suffix}"
    file.write_text(f"{name}{' =' if suffix == 'toml' else ':'} '/other'\n")
    with pytest.raises(SettingsFileError, match=f"cannot set {name}"):
        Settings(config=file)


def test_a_misspelt_setting_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("prot: 1\n")
    with pytest.raises(ValidationError, match="prot"):
        Settings(config=tmp_path / "a.yaml")


@pytest.mark.parametrize(
    "fields",
    [
        {"port": 70_000},
        {"dtype": "int4"},
        {"stall_seconds": 0},
        {"max_image_pixels": 10, "max_request_pixels": 9},
        {"model": ""},
        {"max_batch_tokens": 0},
        {"max_running_requests": 0},
        {"page_size": 0},
        {"kv_cache_gib": 0},
        {"page_size": 24},
        {"encoder_cache_mib": -1},
        {"max_queued_tokens": 0},
        {"queue_seconds": 0},
        {"request_seconds": -1},
        {"auto_quality": 1.1},
        {"auto_quality": 0.9, "auto_min_quality": 0.95},
        {"auto_min_quality": 0},
        {"auto_pressure_seconds": 1, "auto_relief_seconds": 1},
        {"auto_unmet": "cheapest"},
    ],
)
def test_values_out_of_range(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Settings(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", ["api_key", "metrics_api_key", "hot_policies", "allowed_hosts", "media_hosts"]
)
@pytest.mark.parametrize("value", [83, [83], {"a": "b"}, [["a"]], True])
def test_what_a_file_means_as_no_text_is_not_taken_for_one(name: str, value: object) -> None:
    with pytest.raises(ValidationError, match="this must be a text, or a list of texts"):
        Settings(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["api_key", "metrics_api_key"])
@pytest.mark.parametrize("key", ["\u00e9", "a\nb", "good,\udcff"])
def test_a_key_that_no_header_can_hold_locks_nobody_out(name: str, key: str) -> None:
    with pytest.raises(ValidationError, match="letters, digits and signs of ASCII"):
        Settings(**{name: key})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted({*Settings.model_fields} - {"config", "secrets_folder"}))
def test_no_word_of_pydantics_is_told_of_a_setting(name: str) -> None:
    for value in (*BAD_VALUES, "1s", "yes please"):
        try:
            Settings(**{name: value})
        except ValidationError as error:
            check_words(error, Settings, None)


def test_a_misspelt_setting_is_told_with_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("prot: 1\nmax_image: 2\n")
    with pytest.raises(ValidationError) as caught:
        Settings(config=tmp_path / "a.yaml")
    assert [str(fault) for fault in faults_of(caught.value, Settings)] == [
        "prot: this field is not known; is it port?",
        "max_image: this field is not known; is it max_images?",
    ]


def test_keys_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKIPSERVE_API_KEY", "one, two,,")
    assert [key.get_secret_value() for key in Settings().api_key] == ["one", "two"]
    keys = Settings(api_key=["a,b", "c"]).api_key
    assert [key.get_secret_value() for key in keys] == ["a", "b", "c"]


def test_hosts_are_those_of_this_machine_where_it_alone_can_ask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Settings().served_hosts == ("localhost", "127.0.0.1", "::1", "127.0.0.1")
    assert "127.0.0.5" in Settings(host="127.0.0.5").served_hosts
    for host in ("0.0.0.0", "::", "192.0.2.1"):
        assert Settings(host=host).served_hosts == ("*",)
    monkeypatch.setenv("SKIPSERVE_ALLOWED_HOSTS", "llm.example.com, *.Example.org,[::1]")
    named = ("llm.example.com", "*.Example.org", "[::1]")
    assert Settings().served_hosts == Settings(host="0.0.0.0").served_hosts == named


@pytest.mark.parametrize(
    "host",
    [
        *("localhost:8000", "1.2.3.4:80", "http://localhost", "a*.example.com", "*.", "**"),
        *("a..b", "*example.com", "a b", "[::1]:80", "a/b", "\u00e9", "[localhost]"),
    ],
)
def test_a_host_that_no_header_can_match_is_refused(host: str) -> None:
    with pytest.raises(ValidationError, match="a name or an address without port"):
        Settings(allowed_hosts=(host,))


@pytest.mark.parametrize("host", ["http://a.example", "a.example/x", "*", "127.1", "a:0"])
def test_a_host_of_images_is_a_name_or_an_address(host: str) -> None:
    with pytest.raises(ValidationError, match="must be a name such as"):
        Settings(media_hosts=(host,))
    assert Settings(media_hosts=["a.b:9, [::1]:8", "10.0.0.0/8"]).media_hosts == (
        "a.b:9", "[::1]:8", "10.0.0.0/8",
    )  # fmt: skip


def test_no_host_at_all_is_refused() -> None:
    with pytest.raises(ValidationError, match="the name is empty"):
        Settings(allowed_hosts=("",))


def test_an_empty_key_leaves_no_server_open(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError, match="the key is empty"):
        Settings(api_key=[""])
    monkeypatch.setenv("SKIPSERVE_API_KEY", " ")
    with pytest.raises(ValidationError, match="the key is empty"):
        Settings()
    assert Settings(api_key=[]).api_key == ()


def test_a_folder_of_secrets_goes_after_the_environment_and_before_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("api_key: of-the-file\nport: 1\n")
    for name, text in {"api_key": "a,b\n", "metrics_api_key": "m\n", "host": "::1"}.items():
        (tmp_path / f"skipserve_{name}").write_text(text)
    monkeypatch.setenv("skipserve_secrets_folder", str(tmp_path))  # any case, as all variables
    monkeypatch.setenv("SKIPSERVE_HOST", "127.0.0.2")
    settings = Settings(config=file)
    assert [key.get_secret_value() for key in settings.api_key] == ["a", "b"]
    assert [key.get_secret_value() for key in settings.metrics_api_key] == ["m"]
    assert (settings.host, settings.port) == ("127.0.0.2", 1)


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("skipserve_api_key", b"\n", "the key is empty"),
        ("skipserve_api_kye", b"k", "api_kye"),
        ("skipserve_api_key", b"\xff", "cannot be read"),
        ("skipserve_api_key/file", b"k", "cannot be read"),
        ("skipserve_config", b"a.yaml", "cannot set config"),
        ("skipserve_secrets_folder", b"/", "cannot set secrets_folder"),
    ],
)
def test_secrets_that_are_no_settings(
    tmp_path: Path, name: str, content: bytes, fault: str
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(content)
    with pytest.raises((ValidationError, SettingsFileError), match=fault):
        Settings(secrets_folder=tmp_path)
    with pytest.raises(SettingsFileError, match="cannot be read"):
        Settings(secrets_folder=tmp_path / "none")


def test_misspelt_variables_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKIPSERVE_URL", "http://127.0.0.1:8000")
    monkeypatch.setenv("skipserve_port", "8000")
    before = list(misspelt_variables())
    monkeypatch.setenv("skipserve_default_skippolicy", "full")
    (added,) = set(misspelt_variables()) - set(before)
    assert added.endswith("is no setting; is it SKIPSERVE_DEFAULT_SKIP_POLICY?")
    assert not any(line.upper().startswith(("SKIPSERVE_URL", "SKIPSERVE_PORT")) for line in before)


def test_metrics_keys_go_beside_clients_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKIPSERVE_METRICS_API_KEY", "a, b")
    with pytest.raises(ValidationError, match="without api_key or api_keys_file the metrics"):
        Settings()
    keys = Settings(api_key="k").metrics_api_key
    assert [key.get_secret_value() for key in keys] == ["a", "b"]
    with pytest.raises(ValidationError, match="the key is empty"):
        Settings(api_key="k", metrics_api_key=",")
    monkeypatch.setenv("SKIPSERVE_METRICS_API_KEY", "")
    with pytest.raises(ValidationError, match="the key is empty"):
        Settings(api_key="k")


def test_variables_of_the_client_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKIPSERVE_URL", "http://127.0.0.1:8000")
    assert Settings().port == 8000


def test_keys_are_not_shown() -> None:
    assert "hunter" not in repr(Settings(api_key="hunter2", metrics_api_key="hunter3"))


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("localhost", True),
        ("::1", True),
        ("0::1", True),
        ("127.1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.2", False),
    ],
)
def test_loopback(host: str, is_loopback: bool) -> None:
    assert Settings(host=host).is_loopback is is_loopback


def test_settings_do_not_change() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]


def test_several_hot_policies_come_with_commas_or_one_by_one() -> None:
    assert (Settings().hot_policies, Settings().auto_policies) == ((), ())
    assert Settings(hot_policies="a, b").hot_policies == ("a", "b")
    assert Settings(auto_policies="a, b").auto_policies == ("a", "b")
    assert Settings(hot_policies=("a", "b,c")).hot_policies == ("a", "b", "c")


def test_traces_go_where_opentelemetry_says_unless_we_say_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert Settings().otlp_endpoint is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    assert Settings().otlp_endpoint is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://shared:4318")
    assert Settings().otlp_endpoint == "http://shared:4318"
    monkeypatch.setenv("SKIPSERVE_OTLP_ENDPOINT", "https://ours:4318")
    assert Settings().otlp_endpoint == "https://ours:4318"
    assert Settings(otlp_endpoint="http://flag").otlp_endpoint == "http://flag"


@pytest.mark.parametrize(
    "value", ["collector:4318", "grpc://collector:4317", "http://", "http:// "]
)
def test_an_endpoint_is_a_url(value: str) -> None:
    with pytest.raises(ValidationError, match="otlp_endpoint"):
        Settings(otlp_endpoint=value)


def test_a_secret_key_stays_the_key() -> None:
    (key,) = Settings(api_key=(SecretStr("k"),)).api_key
    assert key.get_secret_value() == "k"


def test_the_log_format_is_found_wherever_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, broken = tmp_path / "a.yaml", tmp_path / "b.yaml"
    file.write_text("log_format: json\nprot: 1\n")
    broken.write_text("log_format: [")
    assert find_log_format({}) is LogFormat.TEXT
    assert find_log_format({"log_format": "json", "port": "abc"}) is LogFormat.JSON
    assert find_log_format({"log_format": None, "config": file}) is LogFormat.JSON
    assert find_log_format({"log_format": "text", "config": file}) is LogFormat.TEXT
    assert find_log_format({"log_format": "json", "config": broken}) is LogFormat.JSON
    assert find_log_format({"log_format": "xml", "config": file}) is LogFormat.TEXT
    assert find_log_format({"config": broken}) is LogFormat.TEXT
    monkeypatch.setenv("SKIPSERVE_LOG_FORMAT", "json")
    assert find_log_format({"secrets_folder": tmp_path / "none"}) is LogFormat.JSON
    assert find_log_format({"config": broken}) is LogFormat.JSON
    assert find_log_format({"log_format": "text"}) is LogFormat.TEXT
