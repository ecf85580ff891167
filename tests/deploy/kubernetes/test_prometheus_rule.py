"""The rules reach a cluster whole, and count on labels that its series have."""

import re
import subprocess
import sys

import pytest
import yaml
from installation import INSTALLATIONS, KUBERNETES, Installation, Manifest

_RULES = KUBERNETES.parent / "prometheus/rules"


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    command = [sys.executable, str(KUBERNETES / "prometheus_rule.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    printed: Manifest = yaml.safe_load(done.stdout)
    return printed


def test_it_fits_the_model_of_the_operator(manifest: Manifest) -> None:
    # Here and not above: the import takes seconds.
    from cloudcoil.models.prometheus_operator.v1 import PrometheusRule  # noqa: PLC0415

    model = PrometheusRule.model_validate(manifest)

    assert model.model_dump(mode="json", by_alias=True, exclude_unset=True) == manifest


def test_it_holds_every_group_of_every_file(manifest: Manifest) -> None:
    groups = [
        group
        for path in sorted(_RULES.iterdir())
        for group in yaml.safe_load(path.read_text())["groups"]
    ]

    assert groups
    assert manifest["spec"]["groups"] == groups


@pytest.mark.parametrize("folder", INSTALLATIONS)
def test_the_operator_finds_it_as_it_finds_the_monitor(folder: str, manifest: Manifest) -> None:
    installed = Installation(folder)
    monitor = installed.one("ServiceMonitor")["metadata"]

    assert manifest["metadata"]["labels"].items() <= monitor["labels"].items()
    assert manifest["metadata"]["namespace"] == monitor["namespace"]
    # The operator calls the job by this label of the Service.
    label = installed.one("ServiceMonitor")["spec"]["jobLabel"]
    jobs = set(re.findall(r'job="([^"]*)"', yaml.safe_dump(manifest)))
    assert jobs == {installed.one("Service")["metadata"]["labels"][label]}
