"""A server starts and answers with the very environment that a pod gives it."""

import pytest
from installation import KUBERNETES, Installation
from server_process import ServerProcess

from skipserve.settings import Settings


def test_service_links_would_stop_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    # What Kubernetes sets for a Service named skipserve, unless enableServiceLinks is false.
    monkeypatch.setenv("SKIPSERVE_PORT", "tcp://10.96.0.7:8000")

    with pytest.raises(ValueError, match="port"):
        Settings()


@pytest.mark.slow
def test_probes_and_prometheus_get_their_answers() -> None:
    installed = Installation("cpu-demo")
    keys = {"SKIPSERVE_API_KEY": "ours,yours", "SKIPSERVE_METRICS_API_KEY": "theirs"}
    # Other than in a pod: where it listens, and where the policies file lies.
    flags = ("--host", "127.0.0.1", "--policies", str(KUBERNETES / "cpu-demo/policies.yaml"))

    with (
        ServerProcess("demo", *flags, **keys, **installed.settings) as server,
        server.client() as client,
    ):
        (scraped,) = installed.one("ServiceMonitor")["spec"]["endpoints"]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            assert client.get(installed.server[probe]["httpGet"]["path"]).status_code == 200
        assert client.get(scraped["path"]).status_code == 401
        for allowed in ("ours", "yours", "theirs"):
            answer = client.get(scraped["path"], headers={"Authorization": f"Bearer {allowed}"})
            assert answer.status_code == 200
        theirs = {"Authorization": "Bearer theirs"}
        assert client.get("/v1/models", headers=theirs).status_code == 403
        (trigger,) = installed.one("ScaledObject")["spec"]["triggers"]
        for part in trigger["metadata"]["query"].split(" + "):
            name = part.removeprefix("sum(").partition("{")[0]
            assert f'\n{name}{{model="demo"}} 0.0\n' in answer.text
