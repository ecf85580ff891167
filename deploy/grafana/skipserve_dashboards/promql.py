"""The questions that panels put to Prometheus. Knows nothing about how answers are drawn."""

from collections.abc import Mapping
from dataclasses import dataclass

RATE = "$__rate_interval"
RANGE = "$__range"

# Which series a panel looks at; the names are those of the dashboards' variables.
NAMESPACES = 'namespace=~"$namespace"'
MODELS = f'{NAMESPACES}, model=~"$model"'
REPLICAS = f'{MODELS}, instance=~"$instance"'
POLICIES = f'{MODELS}, skip_policy=~"$policy"'
FULL = f'{MODELS}, skip_policy="full"'
# All programs have these metrics.
PROCESSES = f'job="skipserve", {NAMESPACES}, instance=~"$instance"'

# What tells one from the others. Outside Kubernetes, namespace and pod are empty.
BY_MODEL = "namespace, model"
BY_POLICY = f"{BY_MODEL}, skip_policy"
# An address goes from pod to pod.
BY_REPLICA = "namespace, pod, instance"
MODEL_LEGEND = "{{model}} {{namespace}}"
POLICY_LEGEND = f"{{{{skip_policy}}}} {MODEL_LEGEND}"
REPLICA_LEGEND = "{{instance}} {{pod}}"

# One that is about no installation has no namespace.
FIRING = 'ALERTS{service="skipserve", alertstate="firing", namespace=~"$namespace|"}'

QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


@dataclass(frozen=True)
class Query:
    """One question.

    Attributes:
        expression: in PromQL, with Grafana's variables.
        legend: how a series of the answer is called; `{{label}}` stands for a label's value.
    """

    expression: str
    legend: str


def rate(counter: str, chosen: str, by: str = "", window: str = RATE) -> str:
    """Return how fast a counter grows, summed; `by` names labels to keep apart."""
    return f"{_sum(by)} (rate({counter}{{{chosen}}}[{window}]))"


def increase(counter: str, chosen: str, by: str = "") -> str:
    """Return how much a counter grew in the time shown, summed."""
    return f"{_sum(by)} (increase({counter}{{{chosen}}}[{RANGE}]))"


def total(gauge: str, chosen: str, by: str = "") -> str:
    """Return a gauge summed over replicas; `by` names labels to keep apart."""
    return f"{_sum(by)} ({gauge}{{{chosen}}})"


def quantile(share: float, histogram: str, chosen: str, by: str = "") -> str:
    """Return a quantile as a histogram's buckets know it."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, {rate(f'{histogram}_bucket', chosen, labels)})"


def quantiles(histogram: str, chosen: str) -> tuple[Query, ...]:
    """Return the three quantiles that are looked at."""
    return tuple(
        Query(quantile(share, histogram, chosen), name) for name, share in QUANTILES.items()
    )


def mean(histogram: str, chosen: str, by: str = "", window: str = RATE) -> str:
    """Return the mean of what a histogram observed."""
    parts = (rate(f"{histogram}_{part}", chosen, by, window) for part in ("sum", "count"))
    return " / ".join(parts)


def share(part: str, whole: str, chosen: str, by: str = "", window: str = RATE) -> str:
    """Return how fast one counter grows, as a share of another."""
    return f"{rate(part, chosen, by, window)} / {rate(whole, chosen, by, window)}"


def speedup(histogram: str) -> str:
    """Return how many times as fast as `full` each policy was in the time shown.

    A policy appears once it and `full` have both been observed `$minimum` times.
    """
    enough = ">= $minimum"
    return (
        f"({mean(histogram, FULL, BY_MODEL, RANGE)})"
        f" / on ({BY_MODEL}) group_right () ({mean(histogram, POLICIES, BY_POLICY, RANGE)})"
        f" and on ({BY_POLICY}) ({increase(f'{histogram}_count', POLICIES, BY_POLICY)} {enough})"
        f" and on ({BY_MODEL}) ({increase(f'{histogram}_count', FULL, BY_MODEL)} {enough})"
    )


def of_each_replica(gauge: str) -> tuple[Query, ...]:
    """Ask for a gauge of each replica."""
    return (Query(f"{gauge}{{{REPLICAS}}}", REPLICA_LEGEND),)


def of_stages(stages: str) -> str:
    """Choose the series of some stages of requests; `stages` has bars between them."""
    return f'{REPLICAS}, stage=~"{stages}"'


def each(label: str, counter: str) -> tuple[Query, ...]:
    """Ask how fast a counter grows, for each value of a label."""
    return (Query(rate(counter, REPLICAS, label), f"{{{{{label}}}}}"),)


def rates(counters: Mapping[str, str]) -> tuple[Query, ...]:
    """Ask how fast several counters grow, by their legends."""
    return tuple(Query(rate(counter, REPLICAS), legend) for legend, counter in counters.items())


def mean_and_tail(histogram: str, legend: str = "") -> tuple[Query, ...]:
    """Ask for the mean and the slowest or largest of what a histogram observed."""
    before = f"{legend}, " if legend else ""
    return (
        Query(mean(histogram, REPLICAS), f"{before}mean"),
        Query(quantile(0.95, histogram, REPLICAS), f"{before}p95"),
    )


def _sum(by: str) -> str:
    return f"sum by ({by})" if by else "sum"
