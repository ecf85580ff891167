"""Tests of what the image and compose are made from, which need no container engine."""

import subprocess
import tomllib
from pathlib import Path
from typing import Any

import programs
import pytest
import yaml
from image_engine import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from skipserve.settings import Settings

_COMPOSE = ("deploy/compose.yaml", "deploy/compose.gpu.yaml")
_LOCKS = {"cpu": ["server", "trace"], "cuda": ["server", "trace", "gpu"], "build": []}
_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def _tool(name: str) -> str:
    return programs.find(name, "make install, or apt-get install podman")


def _check(*command: str) -> str:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _compose(name: str = _COMPOSE[0]) -> dict[str, Any]:
    content = yaml.safe_load((ROOT / name).read_text())
    assert isinstance(content, dict)
    return content


def _locked(name: str) -> dict[str, str]:
    """Return the packages of a lock with their versions; each must have a hash."""
    text = (ROOT / f"docker/requirements-{name}.txt").read_text()
    pins = {}
    for entry in text.replace("\\\n", " ").splitlines():
        if not entry.startswith("#"):
            pin, *hashes = entry.split()
            package, version = pin.split("==")
            assert hashes, pin
            assert all(it.startswith("--hash=sha256:") and len(it) == 78 for it in hashes), pin
            pins[package] = version
    return pins


def _required(extras: list[str]) -> list[Requirement]:
    project = _PROJECT["project"]
    texts = list(project["dependencies"])
    for extra in extras:
        texts += project["optional-dependencies"][extra]
    return [Requirement(text) for text in texts]


@pytest.mark.fast
@pytest.mark.parametrize("name", _LOCKS)
def test_lock_holds_what_the_project_requires(name: str) -> None:
    pins = _locked(name)
    wanted = _required(_LOCKS[name])
    if name == "build":
        wanted = [Requirement(text) for text in _PROJECT["build-system"]["requires"]]
    for requirement in wanted:
        version = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"{requirement}: run docker/lock.sh"


@pytest.mark.fast
def test_s54_what_is_installed_is_what_was_locked_wherever_it_comes_from() -> None:
    """A second index could offer another file under a name of the first: its hash would differ."""
    text = (ROOT / "docker/Dockerfile").read_text().replace("\\\n", " ")
    installs = [line for line in text.splitlines() if " install " in line and "pip" in line]
    fetching = [line for line in installs if "--no-index" not in line and "apt-get" not in line]
    assert len(fetching) == 3
    for line in fetching:
        assert {"--require-hashes", "--only-binary", "--requirement"} <= set(line.split()), line
        assert "--trusted-host" not in line
    assert sum("index-url" in line for line in fetching) == 1
    for name in _LOCKS:
        lines = (ROOT / f"docker/requirements-{name}.txt").read_text().splitlines()
        options = {line.split()[0] for line in lines if line.startswith("-")}
        assert not options, f"{name}: {options}"
        assert not [line for line in lines if "://" in line and not line.startswith("#")]


@pytest.mark.fast
def test_locks_have_the_torch_of_their_device() -> None:
    assert _locked("cpu")["torch"].endswith("+cpu")
    assert not [name for name in _locked("cpu") if name.startswith(("nvidia-", "cuda-", "triton"))]
    assert "+" not in _locked("cuda")["torch"]
    assert {"triton", "nvidia-cublas"} <= set(_locked("cuda"))


def test_dockerfile_is_clean() -> None:
    _check(_tool("hadolint"), "--failure-threshold", "style", "docker/Dockerfile")


def test_compose_files_fit_the_specification() -> None:
    _check(_tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", *_COMPOSE)


@pytest.mark.parametrize("files", [_COMPOSE[:1], _COMPOSE])
def test_compose_files_can_be_merged(files: tuple[str, ...]) -> None:
    _tool("podman")  # podman-compose asks for its version
    names = [argument for file in files for argument in ("--file", file)]
    merged = yaml.safe_load(_check(_tool("podman-compose"), *names, "config"))
    server = merged["services"]["skipserve"]
    assert server["image"] == f"skipserve:{server['build']['target']}"
    assert server["read_only"] is True


@pytest.mark.fast
def test_every_service_is_hardened() -> None:
    for name, service in _compose()["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}, name
        assert "build" in service or "@sha256:" in service["image"], name
        for port in service["ports"]:
            assert port.startswith(("127.0.0.1:", "${SKIPSERVE_ADDRESS:-127.0.0.1}:")), name


@pytest.mark.fast
def test_compose_mounts_what_exists() -> None:
    for service in _compose()["services"].values():
        for volume in service["volumes"]:
            source = volume.partition(":")[0]
            if source.startswith("."):
                assert (ROOT / "deploy" / source).exists(), volume


@pytest.mark.fast
def test_compose_gives_the_server_time_to_stop_and_settings_that_exist() -> None:
    server = _compose()["services"]["skipserve"]
    grace = Settings.model_fields["grace_seconds"].default
    assert int(server["stop_grace_period"].removesuffix("s")) > grace
    for file in _COMPOSE:
        for name in _compose(file)["services"]["skipserve"]["environment"]:
            assert name.removeprefix("SKIPSERVE_").lower() in Settings.model_fields, name


@pytest.mark.fast
@pytest.mark.parametrize("name", _COMPOSE)
def test_the_server_has_a_thread_for_each_cpu_that_it_may_use(name: str) -> None:
    server = _compose(name)["services"]["skipserve"]
    limits = server["deploy"]["resources"]["limits"]
    assert server["environment"]["SKIPSERVE_NUM_THREADS"] == limits["cpus"]
    assert limits["cpus"].startswith("${SKIPSERVE_CPUS:-")


@pytest.mark.fast
def test_each_secret_comes_from_the_file_of_its_name() -> None:
    for name, secret in _compose()["secrets"].items():
        assert secret == {"file": f"${{SKIPSERVE_SECRETS:-./secrets}}/{name}"}


@pytest.mark.fast
def test_prometheus_asks_the_server_of_compose_with_a_key_of_its_own() -> None:
    (job,) = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())[
        "scrape_configs"
    ]
    assert job["static_configs"][0]["targets"] == ["skipserve:8000"]
    secret = Path(job["authorization"]["credentials_file"])
    services = _compose()["services"]
    assert secret.parent == Path("/run/secrets")
    assert services["prometheus"]["secrets"] == [secret.name]
    server = services["skipserve"]
    assert server["environment"]["SKIPSERVE_SECRETS_FOLDER"] == str(secret.parent)
    assert set(server["secrets"]) == {"skipserve_api_key", secret.name}
    assert {name.removeprefix("skipserve_") for name in server["secrets"]} <= set(
        Settings.model_fields
    )


@pytest.mark.fast
def test_grafana_finds_what_is_provisioned() -> None:
    grafana = _compose()["services"]["grafana"]
    mounts = dict(volume.split(":")[:2] for volume in grafana["volumes"])
    provisioning = ROOT / "deploy/grafana/provisioning"
    assert mounts["./grafana/provisioning"] == "/etc/grafana/provisioning"
    (provider,) = yaml.safe_load((provisioning / "dashboards/skipserve.yaml").read_text())[
        "providers"
    ]
    assert provider["options"]["path"] == mounts["./grafana/dashboards"]
    home = Path(grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == mounts["./grafana/dashboards"]
    assert (ROOT / "deploy/grafana/dashboards" / home.name).is_file()
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"
    assert "prometheus" in _compose()["services"]
