"""Brings compose.yaml's server and Prometheus up, by podman-compose, and looks at what is scraped.

No registry is at hand in tests: Prometheus is that of this machine, in an image made for it.
"""

import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import programs
import pytest
import yaml
from image_engine import BASE, ROOT, Engine
from patience import Patience

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

_PROMETHEUS = "localhost/skipserve-test:prometheus"
_PROMETHEUS_FILE = f"""\
FROM {BASE}
COPY prometheus promtool /bin/
RUN mkdir /prometheus && chown nobody /prometheus
USER nobody
ENTRYPOINT ["/bin/prometheus"]
"""
_SCRAPE_SECONDS = 60.0
_KEYS = ("skipserve_api_key", "skipserve_metrics_api_key")


@dataclass(frozen=True)
class Project:
    """A project of compose.

    Attributes:
        engine: what runs it.
        file: what describes it.
    """

    engine: Engine
    file: Path

    def call(self, *arguments: str) -> str:
        """Run one command of podman-compose."""
        program = programs.find("podman-compose", "make install")
        return self.engine.run(program, "--file", str(self.file), *arguments)

    def url(self, service: str, port: int) -> str:
        """Return where a service answers."""
        address = self.engine.call("port", f"skipserve-test_{service}_1", str(port)).split()[-1]
        return f"http://{address}"


@pytest.fixture(scope="module")
def project(
    engine: Engine, image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    if engine.program != "podman":
        pytest.skip("with Docker, docs/docker.md says what to type")
    folder = tmp_path_factory.mktemp("compose")
    _make_prometheus(engine, folder)
    (folder / "secrets").mkdir(mode=0o700)
    for name in (*_KEYS, "grafana_password"):
        (folder / "secrets" / name).write_text(secrets.token_hex(32) + "\n")
    file = folder / "compose.yaml"
    file.write_text(yaml.safe_dump(_adapted(image)))
    secret_folder = {"SKIPSERVE_SECRETS": str(folder / "secrets")}
    running = Project(replace(engine, environment={**engine.environment, **secret_folder}), file)
    try:
        running.call("up", "--detach", "skipserve", "prometheus")
        yield running
    finally:
        running.call("down", "--volumes")


def _make_prometheus(engine: Engine, folder: Path) -> None:
    for name in ("prometheus", "promtool"):
        shutil.copy(programs.find(name, "apt-get install prometheus"), folder / name)
    (folder / "Containerfile").write_text(_PROMETHEUS_FILE)
    command = ("build", "--isolation", "chroot", "--pull-never", "--tag", _PROMETHEUS, str(folder))
    engine.call(*command)


def _adapted(image: str) -> dict[str, Any]:
    """Return compose.yaml with images that are here, on ports that are free."""
    content: dict[str, Any] = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
    content["name"] = "skipserve-test"
    services = content["services"]
    services["skipserve"].pop("build")
    services["skipserve"]["image"] = image
    services["prometheus"]["image"] = _PROMETHEUS
    for service in services.values():
        service["ports"] = [f"127.0.0.1::{port.rpartition(':')[2]}" for port in service["ports"]]
        service["volumes"] = [
            volume.replace("./", f"{ROOT}/deploy/", 1) if volume.startswith("./") else volume
            for volume in service["volumes"]
        ]
    return content


def _await(url: str, is_there: Any) -> Any:
    """Return what a URL answers once it holds what is looked for."""
    patience = Patience(_SCRAPE_SECONDS)
    answer = None
    while not patience.is_over:
        try:
            answer = httpx.get(url, trust_env=False).json()
        except httpx.TransportError:  # it is still starting
            answer = None
        if answer is not None and is_there(answer):
            return answer
        time.sleep(0.2)
    raise AssertionError(f"{url} still says {answer}")


def test_prometheus_scrapes_the_server_with_the_key_and_knows_the_rules(project: Project) -> None:
    url = project.url("prometheus", 9090)
    answer = _await(f"{url}/api/v1/query?query=up", lambda it: it["data"]["result"])
    (series,) = answer["data"]["result"]
    assert series["metric"]["instance"] == "skipserve:8000"
    _await(f"{url}/api/v1/query?query=up", lambda it: it["data"]["result"][0]["value"][1] == "1")
    assert httpx.get(f"{url}/api/v1/rules", trust_env=False).json()["data"]["groups"]


def test_the_key_of_prometheus_opens_the_metrics_alone(project: Project) -> None:
    service = "skipserve-test_prometheus_1"
    key = project.engine.call("exec", service, "cat", "/run/secrets/skipserve_metrics_api_key")
    headers = {"Authorization": f"Bearer {key.strip()}"}
    server = project.url("skipserve", 8000)
    for path, status in {"/metrics": 200, "/v1/models": 403}.items():
        assert httpx.get(f"{server}{path}", trust_env=False).status_code == 401
        reply = httpx.get(f"{server}{path}", headers=headers, trust_env=False)
        assert reply.status_code == status


@pytest.mark.parametrize("empty", _KEYS)
def test_the_server_does_not_start_with_an_empty_key(
    project: Project, tmp_path: Path, empty: str
) -> None:
    tmp_path.chmod(0o755)  # the container's user is another one
    for name in _KEYS:
        (tmp_path / name).write_text("" if name == empty else "a-key-of-this-test")
    server = yaml.safe_load(project.file.read_text())["services"]["skipserve"]
    starting = project.engine.start(
        *("run", "--rm", "--volume", f"{tmp_path}:/run/secrets:ro"),
        *("--env", f"SKIPSERVE_SECRETS_FOLDER={server['environment']['SKIPSERVE_SECRETS_FOLDER']}"),
        server["image"],
    )
    with starting as process:
        output, _ = process.communicate()
    assert process.returncode == 2
    assert f"{empty.removeprefix('skipserve_')}: the key is empty" in output
