"""Prints deploy/prometheus/rules as one PrometheusRule, for clusters with the Prometheus operator.

python deploy/kubernetes/prometheus_rule.py | kubectl apply -f -
"""

import sys
from pathlib import Path
from typing import Any

import yaml

_RULES = Path(__file__).parents[1] / "prometheus/rules"


def manifest() -> dict[str, Any]:
    """Return the rules of all files, as the operator wants them."""
    files = [yaml.safe_load(path.read_text("utf-8")) for path in sorted(_RULES.glob("*.yml"))]
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {
            "name": "skipserve",
            "namespace": "skipserve",
            # What the operator's Prometheus looks for, as in components/monitoring.
            "labels": {"release": "kube-prometheus-stack"},
        },
        "spec": {"groups": [group for file in files for group in file["groups"]]},
    }


if __name__ == "__main__":
    yaml.safe_dump(manifest(), sys.stdout, sort_keys=False)
