"""The row of the overview about how requests are spread over engines, as on Ray."""

from grafana_foundation_sdk.models import units

from skipserve_dashboards.layout import COUNT, RATIO, Panel, Row, View
from skipserve_dashboards.promql import (
    BY_REPLICA,
    REPLICA_LEGEND,
    REPLICAS,
    Query,
    each,
    of_each_replica,
    share,
    total,
)

# An ingress of Ray's says whether there is one that takes requests, and is none.
_ENGINES = f'{REPLICAS}, instance!~"ingress-.*"'

SPREAD = Row(
    "Spread over engines",
    (
        Panel(
            "Requests at each engine",
            "Those that run. One that has many more than the others is home to what all ask about.",
            COUNT,
            of_each_replica("skipserve_requests_running"),
            View.STACK,
        ),
        Panel(
            "Waiting at each engine",
            "Those that wait for a first step there, though others might have room: pictures that "
            "are asked about often go elsewhere from some load on.",
            COUNT,
            of_each_replica("skipserve_requests_waiting"),
        ),
        Panel(
            "Pictures that an engine knew",
            "Share of the pictures that its requests needed and that it had encoded before. Falls "
            "on all: engines come and go, or pictures are new.",
            RATIO,
            (
                Query(
                    share(
                        "skipserve_encoder_cache_hits_total",
                        "skipserve_encoder_cache_queries_total",
                        REPLICAS,
                        BY_REPLICA,
                    ),
                    REPLICA_LEGEND,
                ),
            ),
        ),
        Panel(
            "Went on in another engine",
            "Requests that lost the first one: it died, was silent, or did not take them. On Ray "
            "only; elsewhere always 0.",
            units.CountsPerSecond,
            each("reason", "skipserve_request_retries_total"),
            limits={0.1: "red"},
            alerts=("EnginesLost",),
        ),
        Panel(
            "Engines",
            "Those that take requests. The number of all that answer Prometheus is the other line.",
            COUNT,
            (
                Query(total("skipserve_engine_up", _ENGINES), "take requests"),
                Query(f"count (skipserve_engine_up{{{_ENGINES}}})", "all"),
            ),
        ),
    ),
)
