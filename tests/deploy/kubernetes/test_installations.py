"""The manifests agree with the server they run, and with each other."""

import re
import shutil
import textwrap
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from installation import INSTALLATIONS, KUBERNETES, Installation, Manifest, render
from prometheus_client import CollectorRegistry

from skipserve import commands
from skipserve.api.auth import PUBLIC_PATHS
from skipserve.api.routes import router
from skipserve.engine.limits import EngineSpec
from skipserve.metrics.registry import ServerMetrics
from skipserve.service import local
from skipserve.settings import Settings
from skipserve_policies.catalog import load_added, load_catalog

_KEYS = ("SKIPSERVE_API_KEY", "SKIPSERVE_METRICS_API_KEY")
_PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
# Between the server's last word and the kill: to close sockets and end the engine's process.
_AIR_SECONDS = 5
_NAMESPACE_FILE = KUBERNETES / "namespace/namespace.yaml"
NAMESPACE = yaml.safe_load(_NAMESPACE_FILE.read_text())["metadata"]["name"]


@pytest.fixture(params=INSTALLATIONS)
def installed(request: pytest.FixtureRequest) -> Installation:
    return Installation(request.param)


@pytest.fixture
def settings(installed: Installation, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What the server reads from the pod's environment."""
    for name, value in installed.settings.items():
        monkeypatch.setenv(name, value)
    return Settings()


def _allowance(probe: dict[str, int]) -> int:
    """Return how long a probe may fail before it counts."""
    return probe["periodSeconds"] * probe["failureThreshold"]


def _gib(size: str) -> int:
    """Return a size that is given in GiB."""
    return int(size.removesuffix("Gi"))


# A variable that is misspelt is no error for the server: it is not read.
@pytest.mark.fast
def test_every_variable_is_a_setting(installed: Installation) -> None:
    own = {name for name in installed.environment if name.startswith("SKIPSERVE_")}
    names = {*installed.settings, *own}

    assert own
    assert names == {f"SKIPSERVE_{name[10:].lower()}".upper() for name in names}
    assert {name[10:].lower() for name in names} <= set(Settings.model_fields)


def test_the_settings_are_valid(settings: Settings) -> None:
    assert settings.host == "0.0.0.0"  # a pod is reached by its own address
    assert settings.log_format == "json"


@pytest.mark.fast
def test_a_pod_has_the_time_that_the_server_takes_to_drain(
    installed: Installation, settings: Settings
) -> None:
    pre_stop = installed.server["lifecycle"]["preStop"]["sleep"]["seconds"]
    needed = pre_stop + settings.grace_seconds + commands._CUT_OFF_SECONDS + _AIR_SECONDS

    assert installed.pod["terminationGracePeriodSeconds"] >= needed


def test_preparing_to_stop_outlasts_the_readiness_of_others(installed: Installation) -> None:
    pre_stop = installed.server["lifecycle"]["preStop"]["sleep"]["seconds"]

    assert pre_stop >= installed.server["readinessProbe"]["periodSeconds"]


@pytest.mark.fast
@pytest.mark.parametrize("name", _PROBES)
def test_probes_ask_routes_that_exist_and_need_no_key(installed: Installation, name: str) -> None:
    probe = installed.server[name]["httpGet"]
    routes = {route.path for route in router.routes}  # type: ignore[attr-defined]

    assert probe["path"] in routes & PUBLIC_PATHS
    assert probe["port"] in {port["name"] for port in installed.server["ports"]}


def test_the_server_gives_a_model_up_before_the_probe_does(installed: Installation) -> None:
    assert _allowance(installed.server["startupProbe"]) > EngineSpec.load_seconds
    deadline = installed.one("Deployment")["spec"]["progressDeadlineSeconds"]
    assert deadline > _allowance(installed.server["startupProbe"])


def test_the_server_kills_a_hung_engine_before_kubernetes_kills_the_server(
    installed: Installation, settings: Settings
) -> None:
    probe = installed.server["livenessProbe"]
    # The first silent period may have begun just after a sign of life.
    engine_is_killed = (local._SILENT_PERIODS + 1) * settings.stall_seconds

    assert settings.stall_seconds + _allowance(probe) >= engine_is_killed


@pytest.mark.fast
def test_ports_agree(installed: Installation, settings: Settings) -> None:
    (port,) = installed.server["ports"]
    (outside,) = installed.one("Service")["spec"]["ports"]
    (rule,) = installed.one("NetworkPolicy")["spec"]["ingress"]
    (scraped,) = installed.one("ServiceMonitor")["spec"]["endpoints"]

    assert port["containerPort"] == settings.port
    assert outside["targetPort"] == port["name"]
    assert [it["port"] for it in rule["ports"]] == [port["name"]]
    assert scraped["port"] == outside["name"]
    assert scraped["path"] in {route.path for route in router.routes}  # type: ignore[attr-defined]


@pytest.mark.fast
def test_selectors_find_the_pods(installed: Installation) -> None:
    deployment = installed.one("Deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        installed.one("Service")["spec"]["selector"],
        installed.one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        installed.one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        installed.pod["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
    ]

    assert all(selector and selector.items() <= labels for selector in selectors)
    found = installed.one("ServiceMonitor")["spec"]["selector"]["matchLabels"].items()
    assert found <= installed.one("Service")["metadata"]["labels"].items()
    target = installed.one("ScaledObject")["spec"]["scaleTargetRef"]["name"]
    assert target == deployment["metadata"]["name"]


@pytest.mark.fast
def test_a_drain_takes_one_pod_at_a_time_and_an_ill_one_too(installed: Installation) -> None:
    budget = dict(installed.one("PodDisruptionBudget")["spec"])
    del budget["selector"]

    # minAvailable would block the drain of a lone replica, IfHealthyBudget that of an ill one.
    assert budget == {"maxUnavailable": 1, "unhealthyPodEvictionPolicy": "AlwaysAllow"}


@pytest.mark.fast
def test_labelled_clients_come_in_and_nothing_goes_out(installed: Installation) -> None:
    policy = installed.one("NetworkPolicy")["spec"]
    (rule,) = policy["ingress"]
    page = (KUBERNETES.parents[1] / "docs/operations/kubernetes.md").read_text()
    label, value = re.findall(r"kubectl label namespace \S+ (\S+)=(\S+)", page)[0]

    clients = {"matchLabels": {label: value}}
    assert {"podSelector": clients} in rule["from"]
    assert {"namespaceSelector": clients} in rule["from"]
    assert len(rule["from"]) == 3  # and Prometheus
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["egress"] == []


def test_one_namespace_holds_everything(installed: Installation) -> None:
    assert {manifest["metadata"].get("namespace") for manifest in installed.manifests} == {
        NAMESPACE
    }


def test_deleting_one_keeps_the_namespace_and_what_it_holds(installed: Installation) -> None:
    kinds = {manifest["kind"] for manifest in installed.manifests}
    assert not kinds & {"Namespace", "Secret", "PersistentVolumeClaim"}


def test_the_autoscaler_alone_says_how_many(installed: Installation) -> None:
    scaled = installed.one("ScaledObject")["spec"]

    assert "replicas" not in installed.one("Deployment")["spec"]
    assert 1 <= scaled["minReplicaCount"] <= scaled["maxReplicaCount"]


@pytest.mark.fast
def test_a_silent_prometheus_shrinks_no_fleet(installed: Installation) -> None:
    scaled = installed.one("ScaledObject")["spec"]
    (trigger,) = scaled["triggers"]

    # No answer and no series are errors, at which the replicas stay as many as they are.
    assert trigger["metadata"]["ignoreNullValues"] == "false"
    assert "fallback" not in scaled


@pytest.mark.parametrize("folder", INSTALLATIONS)
def test_an_installation_works_without_the_operators(folder: str, tmp_path: Path) -> None:
    manifests = {it["kind"]: it for it in _installed_with_the_pages(folder, tmp_path)}

    assert manifests.keys().isdisjoint({"ServiceMonitor", "ScaledObject"})
    assert manifests.keys() > {"Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"}
    assert manifests["Deployment"]["spec"]["replicas"] == 2


def test_what_is_ones_own_is_laid_over_a_folder(tmp_path: Path) -> None:
    manifests = _installed_with_the_pages("gpu", tmp_path)
    (deployment,) = (it for it in manifests if it["kind"] == "Deployment")
    maps = {it["metadata"]["name"]: it["data"] for it in manifests if it["kind"] == "ConfigMap"}
    pod = deployment["spec"]["template"]["spec"]

    (container,) = pod["containers"]
    settings = maps[container["envFrom"][0]["configMapRef"]["name"]]
    (mounted,) = (it["configMap"]["name"] for it in pod["volumes"] if "configMap" in it)
    assert container["image"].startswith("registry.example.com/team/skipserve:")
    assert settings["SKIPSERVE_QUEUE_SECONDS"] == "5"
    assert settings["SKIPSERVE_DTYPE"] == "bfloat16"
    assert maps[mounted]["policies.yaml"] == "ours: {}\n"


def _installed_with_the_pages(folder: str, tmp_path: Path) -> tuple[Manifest, ...]:
    """Return what the kustomization on the page for Kubernetes makes of a folder."""
    shutil.copytree(KUBERNETES, tmp_path, dirs_exist_ok=True)
    page = (KUBERNETES.parents[1] / "docs/operations/kubernetes.md").read_text()
    (shown,) = re.findall(r"    # deploy/kubernetes/mine/kustomization.yaml\n((?:    .*\n)+)", page)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "policies.yaml").write_text("ours: {}\n")
    text = textwrap.dedent(shown).replace("../gpu", f"../{folder}")
    (mine / "kustomization.yaml").write_text(text)
    return render(str(mine))


@pytest.mark.fast
def test_prometheus_is_asked_where_it_is_let_in_from(installed: Installation) -> None:
    (trigger,) = installed.one("ScaledObject")["spec"]["triggers"]
    (rule,) = installed.one("NetworkPolicy")["spec"]["ingress"]
    (prometheus,) = (it for it in rule["from"] if len(it) == 2)
    namespace = prometheus["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"]

    address = f"http://prometheus-operated.{namespace}.svc:9090"
    assert trigger["metadata"]["serverAddress"] == address


@pytest.mark.fast
def test_the_autoscaler_asks_for_what_waits_and_runs(installed: Installation) -> None:
    (trigger,) = installed.one("ScaledObject")["spec"]["triggers"]
    query = trigger["metadata"]["query"]
    namespace = NAMESPACE

    registry = CollectorRegistry()
    ServerMetrics(registry, "demo", [])
    names = set(re.findall(r"skipserve_\w+", query))

    assert names == {"skipserve_requests_running", "skipserve_requests_waiting"}
    assert names <= {family.name for family in registry.collect()}
    service = installed.one("Service")["metadata"]["name"]
    assert query.count(f'{{namespace="{namespace}",service="{service}"}}') == 2
    assert trigger["metricType"] == "AverageValue"
    assert int(trigger["metadata"]["threshold"]) <= Settings().max_running_requests


# A Service named skipserve would set SKIPSERVE_PORT to an address, and the server would not start.
@pytest.mark.fast
def test_services_set_no_variables(installed: Installation) -> None:
    assert installed.pod["enableServiceLinks"] is False


@pytest.mark.fast
def test_keys_come_from_a_secret_and_from_nowhere_else(installed: Installation) -> None:
    secrets = {
        name: entry["valueFrom"]["secretKeyRef"]
        for name, entry in installed.environment.items()
        if "valueFrom" in entry
    }
    (scraped,) = installed.one("ServiceMonitor")["spec"]["endpoints"]

    # Nothing else: `optional: true` would start a server without keys.
    clients, metrics = ({"name": "skipserve-api-keys", "key": it} for it in ("clients", "metrics"))
    assert secrets == dict(zip(_KEYS, (clients, metrics), strict=True))
    assert scraped["authorization"] == {"type": "Bearer", "credentials": metrics}


@pytest.mark.parametrize("empty", _KEYS)
def test_a_secret_with_an_empty_entry_starts_no_server(
    installed: Installation, empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set(_KEYS) <= set(installed.environment)
    for name in _KEYS:
        monkeypatch.setenv(name, "" if name == empty else "k")

    with pytest.raises(ValueError, match=r"api_key\n.*the key is empty"):
        Settings()


@pytest.mark.fast
@pytest.mark.parametrize("folder", [*INSTALLATIONS, "load-model"])
def test_pods_are_restricted(folder: str) -> None:
    """What the pod security standard `restricted` asks for, and a read-only root."""
    (spec,) = (
        manifest["spec"]["template"]["spec"]
        for manifest in render(folder)
        if manifest["kind"] in {"Deployment", "Job"}
    )
    (container,) = spec["containers"]

    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"hostNetwork", "hostPID", "hostIPC"}.isdisjoint(spec)
    assert {next(kind for kind in volume if kind != "name") for volume in spec["volumes"]} <= {
        "emptyDir",
        "configMap",
        "persistentVolumeClaim",
    }


@pytest.mark.fast
def test_what_is_written_has_a_place(installed: Installation) -> None:
    places = {
        mount["mountPath"]: mount["name"]
        for mount in installed.server["volumeMounts"]
        if not mount.get("readOnly")
    }
    volumes = {volume["name"]: volume for volume in installed.pod["volumes"]}

    assert set(places.values()) <= volumes.keys()
    # Each pod's own: from a shared place one pod would run what another wrote.
    assert all("sizeLimit" in volumes[name].get("emptyDir", {}) for name in places.values())
    for name in ("HOME", "TRITON_CACHE_DIR"):
        path = installed.environment[name]["value"]
        assert any(path == place or path.startswith(f"{place}/") for place in places)


@pytest.mark.fast
def test_limits_are_set_and_threads_fit_them(installed: Installation, settings: Settings) -> None:
    resources = installed.server["resources"]
    sizes = [it["emptyDir"]["sizeLimit"] for it in installed.pod["volumes"] if "emptyDir" in it]

    for kind in ("requests", "limits"):
        assert {"cpu", "memory", "ephemeral-storage"} <= resources[kind].keys()
    assert settings.num_threads == int(resources["limits"]["cpu"])
    # What the volumes may hold, and something for logs: beyond it the pod is evicted.
    assert _gib(resources["limits"]["ephemeral-storage"]) > sum(map(_gib, sizes))


def test_a_gpu_is_asked_for_where_the_server_wants_one() -> None:
    installed = Installation("gpu")
    resources = installed.server["resources"]

    assert installed.settings["SKIPSERVE_DEVICE"] == "cuda"
    assert resources["requests"]["nvidia.com/gpu"] == resources["limits"]["nvidia.com/gpu"] == 1
    assert installed.pod["nodeSelector"]
    assert [it["key"] for it in installed.pod["tolerations"]] == ["nvidia.com/gpu"]
    # A surge would wait for a GPU that is not there.
    assert installed.one("Deployment")["spec"]["strategy"]["rollingUpdate"] == {
        "maxSurge": 0,
        "maxUnavailable": 1,
    }


def test_the_job_loads_the_model_that_is_served() -> None:
    installed = Installation("gpu")
    (job,) = (it for it in render("load-model") if it["kind"] == "Job")
    (claim,) = (it for it in render("load-model") if it["kind"] == "PersistentVolumeClaim")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    volumes = {it["name"]: it for it in installed.pod["volumes"]}

    assert installed.settings["SKIPSERVE_MODEL"] == container["command"][-1]
    assert container["image"] == installed.server["image"]
    assert volumes["models"]["persistentVolumeClaim"] == {
        "claimName": claim["metadata"]["name"],
        "readOnly": True,
    }
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    # The server's network policy must not hold for it: it downloads.
    labels = job["spec"]["template"]["metadata"]["labels"].items()
    selected = installed.one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"].items()
    assert not selected <= labels


def test_a_change_of_settings_changes_the_name_that_pods_refer_to(installed: Installation) -> None:
    (source,) = installed.server["envFrom"]

    assert re.fullmatch(r"skipserve-settings-[a-z0-9]{10}", source["configMapRef"]["name"])


def test_the_policies_file_is_one_and_its_example_too() -> None:
    path = KUBERNETES / "cpu-demo/policies.yaml"
    example = "\n".join(
        line.removeprefix("# ") for line in path.read_text().splitlines()[2:] if line
    )

    assert load_added(path, load_catalog()) == {}
    assert list(yaml.safe_load(example)) == ["my-policy"]


def test_the_policies_file_is_mounted_where_the_server_looks(
    installed: Installation, settings: Settings
) -> None:
    (mount,) = (it for it in installed.server["volumeMounts"] if it["name"] == "policies")

    assert settings.policies is not None
    assert str(settings.policies.parent) == mount["mountPath"]
    assert (KUBERNETES / "cpu-demo" / settings.policies.name).is_file()


def test_images_are_those_of_this_version(installed: Installation) -> None:
    tag = installed.server["image"].rpartition(":")[2]

    assert tag == f"{version('skipserve')}-{installed.settings['SKIPSERVE_DEVICE']}"
