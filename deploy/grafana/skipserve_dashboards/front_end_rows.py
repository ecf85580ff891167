"""The row of the overview about the front end: stages of requests, images, processes."""

from grafana_foundation_sdk.models import units

from skipserve_dashboards.layout import BYTES, COUNT, RATIO, SECONDS, Panel, Row, View
from skipserve_dashboards.promql import (
    BY_REPLICA,
    PROCESSES,
    REPLICA_LEGEND,
    Query,
    each,
    of_stages,
    quantile,
    rate,
    rates,
)

_FRONT_END = "fetch_image|decode_image|preprocess|tokenize|detokenize"
_ENGINE = "queue|vision_encode|prefill|decode"


def _tail_of_stages(stages: str) -> tuple[Query, ...]:
    stage_seconds = "skipserve_stage_duration_seconds"
    return (Query(quantile(0.95, stage_seconds, of_stages(stages), "stage"), "{{stage}}"),)


def _of_processes(expression: str) -> tuple[Query, ...]:
    """Ask the same of the two processes of each replica, given what to ask of the front end."""
    of_engine = expression.replace("process_", "skipserve_engine_process_")
    return (
        Query(expression, f"front end {REPLICA_LEGEND}"),
        Query(of_engine, f"engine {REPLICA_LEGEND}"),
    )


FRONT_END = Row(
    "Front end and media",
    (
        Panel(
            "Stages of the front end, p95",
            "Fetching images by URL, decoding and fitting them, and text to tokens and back. Once "
            "for each request.",
            SECONDS,
            _tail_of_stages(_FRONT_END),
        ),
        Panel(
            "Stages of the engine, p95",
            "The wait, the vision tower, the prompt, and from the first token to the last.",
            SECONDS,
            _tail_of_stages(_ENGINE),
            alerts=("SlowFirstToken",),
        ),
        Panel(
            "Where the time of requests goes",
            "Seconds that all requests spend in each stage, in each second: the largest area is "
            "what to make faster first.",
            SECONDS,
            each("stage", "skipserve_stage_duration_seconds_sum"),
            View.STACK,
        ),
        Panel(
            "Images",
            "Images that requests brought, and those of them that the vision tower ran for. The "
            "rest was known.",
            units.CountsPerSecond,
            rates(
                {
                    "brought": "skipserve_images_total",
                    "encoded": "skipserve_images_encoded_total",
                }
            ),
        ),
        Panel(
            "CPU",
            "Seconds of CPU in each second. A front end near 1 holds up all streams.",
            COUNT,
            _of_processes(rate("process_cpu_seconds_total", PROCESSES, BY_REPLICA)),
        ),
        Panel(
            "Memory",
            "Resident memory of the two processes. A GPU's memory is not in it.",
            BYTES,
            _of_processes(f"process_resident_memory_bytes{{{PROCESSES}}}"),
            alerts=("OutOfMemory",),
        ),
        Panel(
            "Open files",
            "Share of the files and connections that a process may have open.",
            RATIO,
            _of_processes(f"process_open_fds{{{PROCESSES}}} / process_max_fds{{{PROCESSES}}}"),
            limits={0.8: "red"},
        ),
        Panel(
            "Since the start",
            "How long each process has run. A line that falls is a restart.",
            SECONDS,
            _of_processes(f"time() - process_start_time_seconds{{{PROCESSES}}}"),
            alerts=("EngineRestarting",),
        ),
    ),
)
