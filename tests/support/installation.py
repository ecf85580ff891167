"""Renders a folder of deploy/kubernetes with `kubectl kustomize`, which needs no cluster."""

import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

import programs
import yaml

KUBERNETES = Path(__file__).parents[2] / "deploy/kubernetes"
INSTALLATIONS = ("cpu-demo", "gpu")
ALL = (*INSTALLATIONS, "load-model")

Manifest = dict[str, Any]


@lru_cache
def render(folder: str) -> tuple[Manifest, ...]:
    """Return the manifests that `kubectl apply -k` would send."""
    kubectl = programs.find("kubectl", "its `kustomize` renders the manifests")
    command = [kubectl, "kustomize", str(KUBERNETES / folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return tuple(yaml.safe_load_all(done.stdout))


class Installation:
    """The manifests of one rendered folder, by what they are for.

    Args:
        folder: its name, below deploy/kubernetes.
    """

    def __init__(self, folder: str) -> None:
        self.manifests = render(folder)

    def one(self, kind: str) -> Manifest:
        """Return the only manifest of a kind."""
        (found,) = (manifest for manifest in self.manifests if manifest["kind"] == kind)
        return found

    @property
    def pod(self) -> Manifest:
        """The pod's spec."""
        spec: Manifest = self.one("Deployment")["spec"]["template"]["spec"]
        return spec

    @property
    def server(self) -> Manifest:
        """The only container."""
        (container,) = self.pod["containers"]
        found: Manifest = container
        return found

    @property
    def settings(self) -> dict[str, str]:
        """The server's settings, by environment variable, without the key."""
        (source,) = self.server["envFrom"]
        name = source["configMapRef"]["name"]
        (found,) = (
            manifest["data"]
            for manifest in self.manifests
            if manifest["kind"] == "ConfigMap" and manifest["metadata"]["name"] == name
        )
        settings: dict[str, str] = found
        return settings

    @property
    def environment(self) -> dict[str, Manifest]:
        """The container's own variables, by name."""
        return {entry["name"]: entry for entry in self.server["env"]}
