"""Renders the Helm chart, which needs no cluster."""

import subprocess
from pathlib import Path
from typing import Any

import programs
import yaml

CHART = Path(__file__).parents[2] / "deploy/helm/skipserve"

Manifest = dict[str, Any]


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Helm and return what became of it."""
    command = [programs.find("helm", "`make install` brings it"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def template(*options: str, release: str = "skipserve") -> list[Manifest]:
    """Return the manifests that `helm install` would send."""
    done = helm("template", release, str(CHART), "--namespace", "skipserve", *options)
    assert done.returncode == 0, done.stderr
    return [manifest for manifest in yaml.safe_load_all(done.stdout) if manifest]


def refusal(*options: str) -> str:
    """Return what Helm says against some values."""
    done = helm("template", "skipserve", str(CHART), *options)
    assert done.returncode != 0
    return done.stderr


def one(manifests: list[Manifest], kind: str) -> Manifest:
    """Return the only manifest of a kind."""
    (found,) = (manifest for manifest in manifests if manifest["kind"] == kind)
    return found
