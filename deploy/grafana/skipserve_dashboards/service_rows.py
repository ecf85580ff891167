"""Rows of the overview that users of the service feel: how it stands now, and how it did."""

from collections.abc import Mapping

from grafana_foundation_sdk.models import units

from skipserve_dashboards.layout import COUNT, RATIO, SECONDS, Panel, Row, View
from skipserve_dashboards.promql import (
    FIRING,
    MODEL_LEGEND,
    MODELS,
    REPLICAS,
    Query,
    each,
    of_each_replica,
    of_stages,
    quantile,
    quantiles,
    rate,
    rates,
    total,
)


def _by_window(recorded: str) -> tuple[Query, ...]:
    """Ask for a recorded ratio over each window of the alerts."""
    return tuple(
        Query(f"{recorded}{window}{{{MODELS}}}", f"{window} {MODEL_LEGEND}")
        for window in ("5m", "30m", "1h", "6h")
    )


def _number(
    title: str,
    description: str,
    query: Query,
    limits: Mapping[float, str],
    *alerts: str,
    unit: str = COUNT,
    base: str = "green",
) -> Panel:
    """Return one of the six panels beside each other at the top."""
    return Panel(title, description, unit, (query,), View.NUMBER, limits, base, alerts, width=4)


NOW = Row(
    "Now",
    (
        _number(
            "Engines up",
            "Replicas whose engine takes requests and makes progress. One that does not answer "
            "Prometheus is not up.",
            Query(total("replica:skipserve_engine_up:or_zero", REPLICAS), "up"),
            {1: "green"},
            *("EngineDown", "TargetDown", "EngineRestarting"),
            base="red",
        ),
        _number(
            "Requests that failed",
            "Share of the last 5 minutes that the server failed or turned away; mistakes of "
            "clients are left out. The objective is 1 %.",
            Query(f"model:skipserve_request_errors:ratio_rate5m{{{MODELS}}}", MODEL_LEGEND),
            {0.01: "orange", 0.144: "red"},
            "HighErrorRatio",
            unit=RATIO,
        ),
        _number(
            "First token, p95",
            "95 % of the requests have their first token after this time. The objective is 2 s.",
            Query(quantile(0.95, "skipserve_time_to_first_token_seconds", REPLICAS), "p95"),
            {1: "orange", 2: "red"},
            "SlowFirstToken",
            unit=SECONDS,
        ),
        _number(
            "Waiting",
            "Requests that wait for the engine. A few for a moment are sound.",
            Query(total("skipserve_requests_waiting", REPLICAS), "waiting"),
            {16: "orange", 128: "red"},
            "QueueGrowing",
        ),
        _number(
            "Faults in the books",
            "What the engine found wrong when it checked its pages and caches. Must be 0.",
            Query(total("skipserve_integrity_faults", REPLICAS), "faults"),
            {1: "red"},
            "IntegrityFaults",
        ),
        _number(
            "Alerts firing",
            "Alerts of skipserve that fire now; each has an incident page.",
            Query(f"count({FIRING}) or vector(0)", "firing"),
            {1: "red"},
        ),
    ),
)

SERVICE = Row(
    "Service",
    (
        Panel(
            "Requests, by how they ended",
            "Requests that reached the engine and ended. `error` and `cancelled` should be rare.",
            units.RequestsPerSecond,
            each("finish_reason", "skipserve_requests_total"),
            View.STACK,
        ),
        Panel(
            "Failed and turned away",
            "Requests that the engine gave up, and those that were turned away before it. "
            "`invalid` and `deadline` are the client's; `draining` belongs to a rollout. "
            "Decoders are lost over images that cost too much or that nobody waits for any more. "
            "Images by URL are not fetched where their hosts fail, or are not allowed.",
            units.RequestsPerSecond,
            (
                Query(rate("skipserve_request_failures_total", REPLICAS, "reason"), "{{reason}}"),
                Query(rate("skipserve_rejections_total", REPLICAS, "reason"), "{{reason}}"),
                Query(rate("skipserve_cancellations_total", REPLICAS), "given up by clients"),
                Query(
                    rate("skipserve_image_decoders_killed_total", REPLICAS, "reason"),
                    "decoder: {{reason}}",
                ),
                Query(
                    rate(
                        "skipserve_grammars_total",
                        REPLICAS + ', outcome=~"refused|killed"',
                        "outcome",
                    ),
                    "grammar: {{outcome}}",
                ),
                Query(
                    rate("skipserve_image_fetch_failures_total", REPLICAS, "reason"),
                    "image by URL: {{reason}}",
                ),
            ),
            alerts=("HighErrorRatio", "RequestsRejected", "OutOfMemory"),
        ),
        Panel(
            "Error replies, by HTTP status",
            "By the status that an error has, also where a stream tells it after its first byte. "
            "Of any route: probes while the model loads are among them.",
            units.RequestsPerSecond,
            each("code", "skipserve_errors_total"),
        ),
        Panel(
            "Chosen for `auto`, by the reason",
            "Skip policies that the server chose for requests that left it the choice. Much "
            "`pressure`: more comes than is served at the usual quality. `unmeasured`: nothing was "
            "measured on these weights. `unmet`: nothing met what was asked for.",
            units.RequestsPerSecond,
            each("reason", "skipserve_auto_choices_total"),
            View.STACK,
        ),
        Panel(
            "Whole request",
            "From arrival to the end, whatever the end.",
            SECONDS,
            quantiles("skipserve_request_duration_seconds", REPLICAS),
        ),
        Panel(
            "Time to first token",
            "From arrival to the first token. The objective is that 95 % take at most 2 s.",
            SECONDS,
            quantiles("skipserve_time_to_first_token_seconds", REPLICAS),
            limits={2: "red"},
            alerts=("SlowFirstToken",),
        ),
        Panel(
            "Between two tokens",
            "How fast an answer grows once it has begun.",
            SECONDS,
            quantiles("skipserve_inter_token_latency_seconds", REPLICAS),
        ),
        Panel(
            "Wait for the engine",
            "From the engine's hearing of a request to its first step.",
            SECONDS,
            quantiles("skipserve_stage_duration_seconds", of_stages("queue")),
            alerts=("QueueGrowing",),
        ),
        Panel(
            "Running and waiting",
            "Requests in the engine, and images that wait to be decoded. Waiting that grows means "
            "more arrives than is served.",
            COUNT,
            (
                Query(total("skipserve_requests_running", REPLICAS), "running"),
                Query(total("skipserve_requests_waiting", REPLICAS), "waiting"),
                Query(total("skipserve_images_waiting", REPLICAS), "images waiting"),
            ),
            alerts=("QueueGrowing",),
        ),
        Panel(
            "Prompt tokens waiting",
            "Prompt tokens that wait for their first answer token. At --max-queued-tokens, "
            "requests are turned away.",
            COUNT,
            of_each_replica("skipserve_prompt_tokens_waiting"),
            alerts=("RequestsRejected",),
        ),
        Panel(
            "Tokens",
            "What is read and written: prompt rows of text, of images, and answer tokens.",
            units.CountsPerSecond,
            rates(
                {
                    "text": "skipserve_prompt_tokens_total",
                    "image": "skipserve_image_tokens_total",
                    "answer": "skipserve_generated_tokens_total",
                }
            ),
        ),
        Panel(
            "Failed requests against the objective",
            "Share that failed, over four windows. An alert needs a long and a short window above "
            "its line: 14.4 % for 1 h and 5 m, 6 % for 6 h and 30 m.",
            RATIO,
            _by_window("model:skipserve_request_errors:ratio_rate"),
            limits={0.06: "orange", 0.144: "red"},
            alerts=("HighErrorRatio",),
        ),
        Panel(
            "Slow first tokens against the objective",
            "Share of first tokens after more than 2 s, over four windows. The alerts' lines are "
            "72 % for 1 h and 5 m, 30 % for 6 h and 30 m.",
            RATIO,
            _by_window("model:skipserve_slow_first_tokens:ratio_rate"),
            limits={0.30: "orange", 0.72: "red"},
            alerts=("SlowFirstToken",),
        ),
    ),
)
