"""The Serve config and KubeRay's manifest: what they say exists, and fits what reads it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import ray_wanted  # noqa: F401 - without Ray there is nothing to read them
import yaml
from kubernetes_validate import validate  # type: ignore[import-untyped]
from ray.serve.schema import ServeDeploySchema

from skipserve.app import build
from skipserve.ray.application import build as build_application
from skipserve.ray.options import Options
from skipserve.settings import Settings

FOLDER = Path(__file__).parents[3] / "deploy" / "ray"
SERVED = yaml.safe_load((FOLDER / "serve.yaml").read_text())
SERVICE = yaml.safe_load((FOLDER / "rayservice.yaml").read_text())
CONFIGS = {"serve": SERVED, "rayservice": yaml.safe_load(SERVICE["spec"]["serveConfigV2"])}
by_config = pytest.mark.parametrize("name", CONFIGS)


def _application(name: str) -> dict[str, Any]:
    (application,) = CONFIGS[name]["applications"]
    assert isinstance(application, dict)
    return application


@by_config
def test_ray_takes_the_config(name: str) -> None:
    (application,) = ServeDeploySchema(**CONFIGS[name]).applications
    assert application.import_path == "skipserve.ray.application:build"
    assert application.route_prefix == "/"


@by_config
def test_the_args_are_options_and_settings(name: str) -> None:
    options = Options(**_application(name)["args"])
    assert options.read_settings().model == options.settings["model"]


@by_config
def test_no_key_stands_in_a_file(name: str) -> None:
    settings = _application(name)["args"]["settings"]
    assert not {"api_key", "metrics_api_key"} & settings.keys()


@by_config
def test_deployments_exist(name: str) -> None:
    ingress = build_application(Options(engines=1))._bound_deployment
    bound: Sequence[Any] = ingress.init_args
    known = {ingress.name, *(it._bound_deployment.name for it in bound[1:])}
    assert known == {"Ingress", "Engine", "Ledger"}
    assert {it["name"] for it in _application(name)["deployments"]} <= known


def test_the_policies_fit_the_model_that_is_served(tmp_path: Path) -> None:
    application = _application("serve")
    (ingress,) = application["deployments"]
    policies = ingress["user_config"]["policies"]
    (tmp_path / "policies.yaml").write_text(yaml.safe_dump(policies))
    settings = Settings(**application["args"]["settings"], policies=tmp_path / "policies.yaml")
    assert policies.keys() <= build(settings).serving.processor.policies.resolved.keys()


def _groups() -> list[dict[str, Any]]:
    cluster = SERVICE["spec"]["rayClusterConfig"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


@pytest.mark.parametrize("number", [0, 1])
def test_the_pods_fit_their_schema(number: int) -> None:
    spec = _groups()[number]["template"]["spec"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": spec}
    validate(pod, "1.32", strict=True)


def test_a_worker_has_what_an_engine_wants() -> None:
    args, worker = _application("rayservice")["args"], _groups()[1]
    (container,) = worker["template"]["spec"]["containers"]
    requests = container["resources"]["requests"]
    assert args["engine_gpus"] == requests["nvidia.com/gpu"]
    assert args["engine_cpus"] <= int(requests["cpu"])
    assert args["max_engines"] <= worker["maxReplicas"]
    assert args["min_engines"] >= worker["minReplicas"]


def test_every_variable_is_a_setting() -> None:
    for group in _groups():
        (container,) = group["template"]["spec"]["containers"]
        for variable in container["env"]:
            assert variable["name"].removeprefix("SKIPSERVE_").lower() in Settings.model_fields
        # Else a Service named skipserve sets SKIPSERVE_PORT to "tcp://..." in every later pod.
        assert group["template"]["spec"]["enableServiceLinks"] is False


def test_the_model_is_where_it_is_mounted() -> None:
    for group in _groups():
        (container,) = group["template"]["spec"]["containers"]
        (mount,) = container["volumeMounts"]
        model = Path(_application("rayservice")["args"]["settings"]["model"])
        assert Path(mount["mountPath"]) in model.parents
