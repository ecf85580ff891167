"""Writes the folders for `kubectl apply -k` beside this file, from deploy/helm/skipserve.

python deploy/kubernetes/render.py [FOLDER]
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

_HERE = Path(__file__).parent
_CHART = _HERE.parent / "helm/skipserve"

# Folders, and what Helm is told for each; a release is called by the first.
_RENDERED = {
    "cpu-demo": ("skipserve", "--values", "values/cpu-demo.yaml"),
    "gpu": ("skipserve", "--values", "values/gpu.yaml"),
    "load-model": ("load-model", "--values", "values/gpu.yaml", "--set", "component=load-model"),
}
# ConfigMaps of the chart, and the files from which kustomize generates its own.
_MAPS = {"settings.yaml", "policies.yaml"}
_SETTINGS, _POLICIES = "settings.env", "policies.yaml"

_HEAD = """\
# {first}
#
# Rendered from deploy/helm/skipserve by `make manifests`. What is yours goes into a kustomization
# of your own over this folder: docs/operations/kubernetes.md has one.
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
namespace: skipserve
resources:
"""
# The operators' kinds, which not every cluster has.
_OF_OPERATORS = ("service-monitor.yaml", "scaled-object.yaml")
_GENERATORS = f"""\
configMapGenerator:
  # The names end in a hash of what is in them, so a change rolls out.
  - name: skipserve-settings
    envs: [{_SETTINGS}]
  - name: skipserve-policies
    files: [{_POLICIES}]
"""


def files_of(name: str) -> dict[str, str]:
    """Return the files of one rendered folder by name."""
    documents = _documents(*_RENDERED[name])
    maps = {part: yaml.safe_load(documents.pop(part))["data"] for part in _MAPS & documents.keys()}
    generated = {}
    if maps:
        lines = (f"{key}={value}\n" for key, value in maps["settings.yaml"].items())
        generated = {_SETTINGS: "".join(lines), _POLICIES: maps["policies.yaml"]["policies.yaml"]}
    kustomization = _kustomization(name, sorted(documents), has_maps=bool(maps))
    return {**documents, **generated, "kustomization.yaml": kustomization}


def _documents(release: str, *options: str) -> dict[str, str]:
    """Return what Helm makes of the chart, by the names of its templates."""
    helm = shutil.which("helm", path=Path(sys.executable).parent) or shutil.which("helm")
    if helm is None:
        raise SystemExit("there is no helm: `make install` brings it")
    command = [helm, "template", release, ".", "--namespace", "skipserve", *options]
    command += ["--set", "rollOnChange=false"]  # kustomize has hashes of its own
    done = subprocess.run(command, cwd=_CHART, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    parts = re.split(r"(?m)^---\n# Source: skipserve/templates/(\S+)\n", done.stdout)
    return dict(zip(parts[1::2], (_tidy(part) for part in parts[2::2]), strict=True))


def _tidy(text: str) -> str:
    return text.strip() + "\n"


def _kustomization(name: str, resources: list[str], *, has_maps: bool) -> str:
    first = (_CHART / _RENDERED[name][2]).read_text("utf-8").splitlines()[0].removeprefix("# ")
    head = _HEAD.format(first=first if has_maps else "Puts a checkpoint on a volume, once.")
    own = [it for it in resources if it not in _OF_OPERATORS]
    others = [it for it in resources if it in _OF_OPERATORS]
    text = head + "".join(f"  - {it}\n" for it in own)
    if others:
        text += "  # For clusters with the Prometheus operator and with KEDA: see there.\n"
        text += "".join(f"  - {it}\n" for it in others)
    return text + (_GENERATORS if has_maps else "")


def main(folder: Path) -> None:
    """Write all rendered folders anew, below a folder."""
    for name in _RENDERED:
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir(parents=True)
        for file, text in files_of(name).items():
            (folder / name / file).write_text(text, "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else _HERE)
