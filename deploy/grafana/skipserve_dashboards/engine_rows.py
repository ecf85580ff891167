"""Rows of the overview about the engine, its caches, and what is running."""

from grafana_foundation_sdk.models import units

from skipserve_dashboards.layout import BYTES, COUNT, RATIO, SECONDS, Panel, Row, View
from skipserve_dashboards.promql import (
    BY_REPLICA,
    REPLICAS,
    Query,
    each,
    mean_and_tail,
    of_each_replica,
    quantiles,
    rate,
    rates,
    share,
    total,
)

ENGINE = Row(
    "Engine",
    (
        Panel(
            "Time of a step",
            "A step is one forward of the model for all requests that run.",
            SECONDS,
            quantiles("skipserve_engine_step_seconds", REPLICAS),
        ),
        Panel(
            "Rows of a step",
            "Tokens computed in one forward: the prompts' chunks and one of each answer.",
            COUNT,
            mean_and_tail("skipserve_engine_step_rows"),
        ),
        Panel(
            "Requests and policies of a step",
            "How many requests share a forward, and how many plans there are among them.",
            COUNT,
            (
                *mean_and_tail("skipserve_engine_step_requests", "requests"),
                *mean_and_tail("skipserve_engine_step_policies", "plans"),
            ),
        ),
        Panel(
            "Steps, by how they ran",
            "As a graph of one plan, a graph of any mix of plans, or without one. Prompts never "
            "have a graph, nor has a CPU.",
            units.CountsPerSecond,
            each("mode", "skipserve_engine_steps_total"),
            View.STACK,
        ),
        Panel(
            "Pages of keys and values",
            "Used by requests, cached for those to come, or free. No free ones is normal; no "
            "cached ones is not.",
            COUNT,
            (Query(total("skipserve_kv_cache_pages", REPLICAS, "state"), "{{state}}"),),
            View.STACK,
            alerts=("KvCacheThrash",),
        ),
        Panel(
            "Pages that requests hold",
            "Share of the pages, of each replica. Near 1, requests are put back to wait.",
            RATIO,
            of_each_replica("skipserve_kv_cache_usage_ratio"),
            limits={0.95: "red"},
            alerts=("KvCacheThrash",),
        ),
        Panel(
            "Put back to wait",
            "Requests that lost their pages to others, or a step's memory, and are computed again: "
            "wasted work. Should be near 0.",
            units.CountsPerSecond,
            rates({"preemptions": "skipserve_preemptions_total"}),
            alerts=("KvCacheThrash", "OutOfMemory"),
        ),
        Panel(
            "FLOPs",
            "Executed, and saved: what the full model would have spent besides on the same rows.",
            units.FlopsPerSecond,
            rates(
                {
                    "executed": "skipserve_executed_flops_total",
                    "saved": "skipserve_saved_flops_total",
                }
            ),
            View.STACK,
        ),
        Panel(
            "Sublayers",
            "Attention and FFN, one for each row and layer: those that ran, and those that the "
            "full model would have run besides.",
            units.CountsPerSecond,
            (
                Query(rate("skipserve_executed_sublayers_total", REPLICAS, "kind"), "{{kind}} run"),
                Query(
                    rate("skipserve_skipped_sublayers_total", REPLICAS, "kind"), "{{kind}} skipped"
                ),
            ),
            View.STACK,
        ),
        Panel(
            "Visual rows dropped",
            "Rows of images that left inside the decoder, by skip policy.",
            units.CountsPerSecond,
            (
                Query(
                    rate("skipserve_dropped_rows_total", REPLICAS, "skip_policy"), "{{skip_policy}}"
                ),
            ),
        ),
    ),
)

CACHES = Row(
    "Caches",
    (
        Panel(
            "Hit ratios",
            "Prompt rows that were not computed because another prompt began alike, and images "
            "that a step needed and found projected.",
            RATIO,
            (
                Query(
                    share(
                        "skipserve_prefix_cache_hits_total",
                        "skipserve_prefix_cache_queries_total",
                        REPLICAS,
                    ),
                    "prefixes, by rows",
                ),
                Query(
                    share(
                        "skipserve_encoder_cache_hits_total",
                        "skipserve_encoder_cache_queries_total",
                        REPLICAS,
                    ),
                    "images",
                ),
            ),
        ),
        Panel(
            "Given up for others",
            "Cached pages and projected images that made room. Normal in a full cache; a hit ratio "
            "that falls meanwhile says that it is too small.",
            units.CountsPerSecond,
            rates(
                {
                    "pages": "skipserve_prefix_cache_evictions_total",
                    "images": "skipserve_encoder_cache_evictions_total",
                }
            ),
            alerts=("KvCacheThrash",),
        ),
        Panel(
            "Projected images kept",
            "Memory of the image cache; its size is --encoder-cache-mib.",
            BYTES,
            of_each_replica("skipserve_encoder_cache_bytes"),
        ),
    ),
)

RUNNING = Row(
    "What is running",
    (
        Panel(
            "Replicas",
            "Versions, and where each engine runs.",
            COUNT,
            (
                Query(
                    f"skipserve_build_info{{{REPLICAS}}} * on (model, {BY_REPLICA})"
                    " group_left (device, dtype, weights_digest)"
                    f" skipserve_engine_info{{{REPLICAS}}}",
                    "up",
                ),
            ),
            View.TABLE,
            width=24,
        ),
    ),
)
