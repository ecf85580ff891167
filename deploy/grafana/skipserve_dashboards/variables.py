"""What can be chosen at the top of a dashboard."""

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as models

from skipserve_dashboards.layout import SOURCE
from skipserve_dashboards.promql import MODELS, NAMESPACES


def _choice(name: str, label: str, description: str, values: str) -> dashboard.QueryVariable:
    """Return a variable of which several values, or all, can be chosen.

    Args:
        name: without the dollar sign.
        label: what stands before it.
        description: what it is good for.
        values: the query that lists them.
    """
    everything = models.VariableOption(selected=True, text="All", value="$__all")
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .description(description)
        .query(values)
        .datasource(SOURCE)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        # Matches nothing too: outside Kubernetes no series has a namespace.
        .all_value(".*")
        .current(everything)
    )


NAMESPACE = _choice(
    "namespace",
    "Namespace",
    "Installations to look at. Outside Kubernetes there is only All.",
    "label_values(skipserve_build_info, namespace)",
)
MODEL = _choice(
    "model",
    "Model",
    "Served models to look at.",
    f"label_values(skipserve_build_info{{{NAMESPACES}}}, model)",
)
REPLICA = _choice(
    "instance",
    "Replica",
    "Replicas to look at.",
    f"label_values(skipserve_build_info{{{MODELS}}}, instance)",
)
POLICY = _choice(
    "policy",
    "Skip policy",
    "Policies to compare; those that were ever asked for.",
    f"label_values(skipserve_requests_total{{{MODELS}}}, skip_policy)",
)
MINIMUM = (
    dashboard.CustomVariable("minimum")
    .label("Least requests")
    .description("A speed-up is shown from so many requests on, of the policy and of full.")
    .values("10,30,100,1000")
    .options(
        [
            models.VariableOption(selected=count == "30", text=count, value=count)
            for count in ("10", "30", "100", "1000")
        ]
    )
    .current(models.VariableOption(selected=True, text="30", value="30"))
)
