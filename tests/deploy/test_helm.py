"""The chart takes what it says it takes, and refuses the rest by name."""

import json
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from chart import CHART, helm, one, refusal, template
from kubernetes_validate import validate  # type: ignore[import-untyped]
from pydantic import BaseModel, ConfigDict, Field

from skipserve.settings import Settings
from skipserve_policies.catalog import load_added, load_catalog

# Settings that the chart makes by itself, or that come from the Secret.
_NOT_VALUES = {"api_key", "metrics_api_key", "policies", "config", "secrets_folder"}
_POLICY = {"rules": [{"action": "skip_block", "layers": [20], "scope": "generated"}]}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Labels(_Strict):
    labels: dict[str, str] = Field(alias="matchLabels", min_length=1, max_length=64)


class _Port(_Strict):
    number: int = Field(ge=1, le=65535)


class _Picker(_Strict):
    name: str = Field(min_length=1, max_length=253)
    port: _Port
    failure_mode: str = Field(alias="failureMode", pattern="^(FailOpen|FailClose)$")


class _Pool(_Strict):
    """The specification of an InferencePool, `inference.networking.k8s.io/v1`.

    Source: the API reference of the Gateway API's inference extension, 1.0.
    """

    selector: _Labels
    ports: list[_Port] = Field(alias="targetPorts", min_length=1, max_length=1)
    picker: _Picker = Field(alias="endpointPickerRef")


def test_helm_finds_no_fault() -> None:
    for values in ([], *(["--values", str(it)] for it in sorted((CHART / "values").iterdir()))):
        done = helm("lint", "--strict", str(CHART), *values)

        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("kubernetes", ["1.30", "1.37"])
def test_all_kinds_of_kubernetes_fit_their_schema(kubernetes: str) -> None:
    for manifest in template():
        validate(manifest, kubernetes, strict=True)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--set", "settings.num_thread=2"), "num_thread"),
        (("--set", "settings.api_key=secret"), "api_key"),
        (("--set", "setting.model=demo"), "setting"),
        (("--set-string", "settings.port=8000"), "port"),
        (("--set", "image.pullPolicy=Sometimes"), "pullPolicy"),
        (("--set", "component=servers"), "component"),
        (("--set", "inferencePool.failureMode=Open"), "failureMode"),
        (("--set", "policies.ours=[1]"), "ours"),
        (("--set", "component=load-model"), "modelClaim"),
    ],
)
def test_what_is_misspelt_is_refused_by_name(options: tuple[str, ...], named: str) -> None:
    assert named in refusal(*options)


def test_every_setting_of_the_server_is_a_value() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    names = schema["properties"]["settings"]["propertyNames"]["enum"]

    assert names == sorted(set(Settings.model_fields) - _NOT_VALUES)


def test_settings_become_variables_that_the_server_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    given = ("max_body_bytes=33554432", "kv_cache_gib=0.25", "prefix_cache=false")
    options = [part for it in given for part in ("--set-json", f"settings.{it}")]

    data = _settings(*options, "--set", "settings.max_running_requests=null")

    for name, value in data.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert (settings.max_body_bytes, settings.kv_cache_gib) == (2**25, 0.25)
    assert settings.prefix_cache is False
    assert "SKIPSERVE_MAX_RUNNING_REQUESTS" not in data


def test_policies_reach_the_server(tmp_path: Path) -> None:
    manifests = template("--set-json", f"policies.ours={json.dumps(_POLICY)}")
    (data,) = (it["data"] for it in manifests if it["metadata"]["name"] == "skipserve-policies")
    (tmp_path / "policies.yaml").write_text(data["policies.yaml"])

    assert list(load_added(tmp_path / "policies.yaml", load_catalog())) == ["ours"]


def test_pods_roll_where_a_setting_or_a_policy_changes() -> None:
    def digests(*options: str) -> dict[str, str]:
        pod = one(template(*options), "Deployment")["spec"]["template"]
        found: dict[str, str] = pod["metadata"]["annotations"]
        return found

    before = digests()

    assert digests("--set", "replicas=3") == before
    setting = digests("--set", "settings.queue_seconds=5")
    policy = digests("--set-json", f"policies.ours={json.dumps(_POLICY)}")
    assert {name for name in before if setting[name] != before[name]} == {"skipserve/settings"}
    assert {name for name in before if policy[name] != before[name]} == {"skipserve/policies"}


def test_a_longer_grace_is_given_to_pods() -> None:
    pod = one(template("--set-json", "settings.grace_seconds=90.5"), "Deployment")["spec"][
        "template"
    ]

    assert pod["spec"]["terminationGracePeriodSeconds"] == 91 + 15


def test_two_releases_can_share_a_namespace() -> None:
    first, second = template(release="first"), template(release="second")
    labels = [
        one(it, "Deployment")["spec"]["template"]["metadata"]["labels"] for it in (first, second)
    ]

    assert {(it["kind"], it["metadata"]["name"]) for it in first}.isdisjoint(
        (it["kind"], it["metadata"]["name"]) for it in second
    )
    selected = one(first, "Service")["spec"]["selector"]
    assert selected.items() <= labels[0].items()
    assert not selected.items() <= labels[1].items()


def test_a_digest_stands_for_a_tag() -> None:
    image = "registry.example.com/skipserve@sha256:0123"

    (container,) = _pod("--set", f"image.repository={image}")["containers"]

    assert container["image"] == image


def test_images_have_one_name_everywhere() -> None:
    repository = yaml.safe_load((CHART / "values.yaml").read_text())["image"]["repository"]
    root = CHART.parents[2]

    for target, file in (("cpu", "compose.yaml"), ("cuda", "compose.gpu.yaml")):
        composed = yaml.safe_load((root / "deploy" / file).read_text())["services"]["skipserve"]
        (container,) = _pod("--set", f"settings.device={target}")["containers"]
        assert composed["image"] == f"{repository}:{target}"
        assert container["image"] == f"{repository}:{version('skipserve')}-{target}"
    assert (
        f"-t {repository}:$(TARGET) -t {repository}:$(VERSION)-$(TARGET)"
        in (root / "Makefile").read_text()
    )


def test_replicas_are_told_where_no_autoscaler_is() -> None:
    assert one(template("--set", "replicas=5"), "Deployment")["spec"]["replicas"] == 5


def test_gateways_find_the_pods() -> None:
    manifests = template("--set", "inferencePool.enabled=true", "--set", "settings.port=9000")
    pool = one(manifests, "InferencePool")
    pod = one(manifests, "Deployment")["spec"]["template"]
    (port,) = pod["spec"]["containers"][0]["ports"]

    spec = _Pool.model_validate(pool["spec"])

    assert pool["apiVersion"] == "inference.networking.k8s.io/v1"
    assert spec.selector.labels.items() <= pod["metadata"]["labels"].items()
    assert [it.number for it in spec.ports] == [port["containerPort"]] == [9000]
    assert _settings("--set", "inferencePool.enabled=true")["SKIPSERVE_METRIC_ALIASES"] == "vllm"
    assert "SKIPSERVE_METRIC_ALIASES" not in _settings()


def test_a_package_holds_the_values_for_gpus(tmp_path: Path) -> None:
    done = helm("package", str(CHART), "--destination", str(tmp_path))

    assert done.returncode == 0, done.stderr
    (package,) = tmp_path.iterdir()
    shown = helm("show", "values", str(package))
    assert yaml.safe_load(shown.stdout) == yaml.safe_load((CHART / "values.yaml").read_text())


@pytest.mark.parametrize(
    "page", sorted((CHART.parents[2] / "docs").rglob("*.md")), ids=lambda it: it.stem
)
def test_what_pages_set_is_taken(page: Path) -> None:
    for given in re.findall(r"--set (\S+=[^\s`\"]+)", page.read_text()):
        values = ("--values", str(CHART / "values/gpu.yaml"))

        assert template(*values, "--set", given), given


def _settings(*options: str) -> dict[str, str]:
    (data,) = (
        it["data"] for it in template(*options) if it["metadata"]["name"] == "skipserve-settings"
    )
    found: dict[str, str] = data
    return found


def _pod(*options: str) -> dict[str, Any]:
    found: dict[str, Any] = one(template(*options), "Deployment")["spec"]["template"]["spec"]
    return found
