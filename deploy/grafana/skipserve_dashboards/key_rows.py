"""The row of the overview about API keys: who uses how much, and who is over its limits."""

from grafana_foundation_sdk.models import units

from skipserve_dashboards.layout import Panel, Row, View
from skipserve_dashboards.promql import REPLICAS, Query, each, rate

_COMPUTED = f'{REPLICAS}, kind="computed"'

KEYS = Row(
    "Keys",
    (
        Panel(
            "Work by key",
            "FLOPs that were planned for each key's requests, in each second. Whoever is not named "
            "in the keys file is other.",
            units.FlopsPerSecond,
            (Query(rate("skipserve_key_flops_total", _COMPUTED, "key"), "{{key}}"),),
            View.STACK,
        ),
        Panel(
            "Turned away by key",
            "Requests that got a 429, for a limit of their key.",
            units.CountsPerSecond,
            each("key", "skipserve_key_limited_total"),
        ),
    ),
)
