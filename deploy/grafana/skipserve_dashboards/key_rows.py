"""The row of the overview about API keys: who uses how much, and who is over its limits."""

from grafana_foundation_sdk.models import units

from skipserve_dashboards.layout import Panel, Row, View
from skipserve_dashboards.promql import REPLICAS, Query, each, rate

_COMPUTED = f'{REPLICAS}, kind="computed"'
# The cached ones are among those of the prompt.
_ALL_TOKENS = f'{REPLICAS}, kind=~"prompt|completion"'

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
            "Tokens by key",
            "Of prompts, cached ones too, and of answers.",
            units.CountsPerSecond,
            (Query(rate("skipserve_key_tokens_total", _ALL_TOKENS, "key"), "{{key}}"),),
            View.STACK,
        ),
        Panel(
            "Requests by key",
            "Requests that have reached the engine.",
            units.CountsPerSecond,
            each("key", "skipserve_key_requests_total"),
        ),
        Panel(
            "Turned away by key",
            "Requests that got a 429, for a limit of their key.",
            units.CountsPerSecond,
            each("key", "skipserve_key_limited_total"),
        ),
    ),
)
