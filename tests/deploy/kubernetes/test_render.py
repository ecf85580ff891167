"""The folders for kubectl are what the chart makes of its values, and nothing else."""

import runpy
from collections.abc import Callable

import pytest
import yaml
from chart import CHART, Manifest, one, template
from installation import ALL, INSTALLATIONS, KUBERNETES, render

_files_of: Callable[[str], dict[str, str]] = runpy.run_path(str(KUBERNETES / "render.py"))[
    "files_of"
]


@pytest.mark.parametrize("folder", ALL)
def test_the_folders_are_rendered_from_the_chart(folder: str) -> None:
    found = {path.name: path.read_text() for path in (KUBERNETES / folder).iterdir()}

    assert found == _files_of(folder), "run `make manifests`"


@pytest.mark.parametrize("folder", INSTALLATIONS)
def test_kubectl_sends_what_helm_sends(folder: str) -> None:
    ours = {manifest["kind"]: _as_named(manifest) for manifest in render(folder)}
    maps = {it["metadata"]["name"][:-11]: it["data"] for it in render(folder) if _is_map(it)}
    values = str(CHART / "values" / f"{folder}.yaml")
    theirs = template("--values", values, "--set", "rollOnChange=false")

    assert maps == {it["metadata"]["name"]: it["data"] for it in theirs if _is_map(it)}
    for manifest in theirs:
        if not _is_map(manifest):
            manifest["metadata"]["namespace"] = "skipserve"
            assert ours[manifest["kind"]] == manifest
    assert ours.keys() == {manifest["kind"] for manifest in theirs}


def test_the_job_that_loads_is_the_same() -> None:
    values = ("--values", str(CHART / "values/gpu.yaml"), "--set", "component=load-model")

    theirs = template(*values, release="load-model")

    assert {it["kind"] for it in theirs} == {"Job", "PersistentVolumeClaim"}
    (ours,) = (it for it in render("load-model") if it["kind"] == "Job")
    assert ours["spec"] == one(theirs, "Job")["spec"]


def _is_map(manifest: Manifest) -> bool:
    return bool(manifest["kind"] == "ConfigMap")


def _as_named(manifest: Manifest) -> Manifest:
    """Return a manifest without the hashes at the ends of ConfigMaps' names."""
    text = yaml.safe_dump(manifest, width=1000)
    for it in (it for folder in INSTALLATIONS for it in render(folder) if _is_map(it)):
        text = text.replace(it["metadata"]["name"], it["metadata"]["name"][:-11])
    named: Manifest = yaml.safe_load(text)
    return named
