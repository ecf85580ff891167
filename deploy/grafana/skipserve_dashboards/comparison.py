"""The comparison of policies: a row for each measure, a series for each policy."""

from grafana_foundation_sdk.models import units

from skipserve_dashboards.layout import COUNT, RATIO, SECONDS, Board, Panel, Row, View
from skipserve_dashboards.promql import (
    BY_MODEL,
    BY_POLICY,
    FULL,
    POLICIES,
    POLICY_LEGEND,
    QUANTILES,
    RANGE,
    RATE,
    Query,
    increase,
    mean,
    quantile,
    rate,
    share,
    speedup,
)
from skipserve_dashboards.variables import MINIMUM, MODEL, NAMESPACE, POLICY

_SPEEDUP = "x"
_DURATION = "skipserve_request_duration_seconds"
_FIRST_TOKEN = "skipserve_time_to_first_token_seconds"
_BETWEEN_TOKENS = "skipserve_inter_token_latency_seconds"
_REQUESTS = "skipserve_requests_total"
_ANSWERED = f'{POLICIES}, finish_reason=~"stop|length"'
_FAILED = f'{POLICIES}, finish_reason="error"'
_LIKE_WITH_LIKE = (
    "Compare like with like: policies that were asked other questions differ for that alone."
)


def _by_policy(expression: str) -> tuple[Query, ...]:
    return (Query(expression, POLICY_LEGEND),)


def _rate(counter: str, chosen: str = POLICIES, window: str = RATE) -> str:
    return rate(counter, chosen, BY_POLICY, window)


def _saved_share(window: str) -> str:
    executed = _rate("skipserve_executed_flops_total", window=window)
    saved = _rate("skipserve_saved_flops_total", window=window)
    return f"{saved} / ({saved} + {executed})"


def _flops_per_answer(window: str) -> str:
    executed = _rate("skipserve_executed_flops_total", window=window)
    return f"{executed} / {_rate(_REQUESTS, _ANSWERED, window)}"


def _error_ratio(window: str) -> str:
    # A policy that never failed has no series of failures: it has failed 0 times.
    everything = _rate(_REQUESTS, window=window)
    return f"({_rate(_REQUESTS, _FAILED, window)} or 0 * {everything}) / {everything}"


def _images_reused(window: str) -> str:
    encoded, brought = "skipserve_images_encoded_total", "skipserve_images_total"
    return f"1 - {share(encoded, brought, POLICIES, BY_POLICY, window)}"


def _rows_reused(window: str) -> str:
    hits, queries = "skipserve_prefix_cache_hits_total", "skipserve_prefix_cache_queries_total"
    return share(hits, queries, POLICIES, BY_POLICY, window)


def _quality(chosen: str = POLICIES, by: str = f"{BY_POLICY}, dataset") -> str:
    # Each replica tells what was measured once.
    return f"max by ({by}) (skipserve_skip_policy_quality_ratio{{{chosen}}})"


def _latency(title: str, histogram: str, description: str) -> Row:
    """Return a row of three quantiles of a time."""
    return Row(
        title,
        tuple(
            Panel(
                f"{title}, {name}",
                f"{description} {_LIKE_WITH_LIKE}",
                SECONDS,
                _by_policy(quantile(part, histogram, POLICIES, BY_POLICY)),
                alerts=("PolicySlowerThanFull",),
            )
            for name, part in QUANTILES.items()
        ),
    )


def _times_as_fast(title: str, histogram: str, description: str) -> Panel:
    return Panel(
        title,
        f"{description} Mean of full divided by mean of the policy, over the time shown; shown "
        f"once both were seen as often as chosen above. {_LIKE_WITH_LIKE}",
        _SPEEDUP,
        _by_policy(speedup(histogram)),
        View.BARS,
        limits={0.95: "yellow", 1.05: "green"},
        base="red",
        alerts=("PolicySlowerThanFull",),
    )


_SUMMARY = Row(
    "Which policy is worth its quality",
    (
        Panel(
            "Summary of the time shown",
            "What a policy saves, how much faster it is, and what it costs in quality. Speed-up "
            "needs as many requests as chosen above, of the policy and of full. Quality is what "
            "was measured on the loaded model before, not on this traffic; a mean where there "
            f"are several data sets. {_LIKE_WITH_LIKE}",
            COUNT,
            tuple(
                Query(expression, legend)
                for legend, expression in {
                    "requests": increase(_REQUESTS, POLICIES, BY_POLICY),
                    "speed-up": speedup(_DURATION),
                    "whole request": mean(_DURATION, POLICIES, BY_POLICY, RANGE),
                    "first token": mean(_FIRST_TOKEN, POLICIES, BY_POLICY, RANGE),
                    "FLOPs saved": _saved_share(RANGE),
                    "FLOPs per answer": _flops_per_answer(RANGE),
                    "quality": f"avg by ({BY_POLICY}) ({_quality()})",
                    "failed": _error_ratio(RANGE),
                    "rows reused": _rows_reused(RANGE),
                    "images reused": _images_reused(RANGE),
                }.items()
            ),
            View.TABLE,
            column_units={
                "speed-up": _SPEEDUP,
                "whole request": SECONDS,
                "first token": SECONDS,
                "FLOPs saved": RATIO,
                "FLOPs per answer": units.SiShort,
                "quality": RATIO,
                "failed": RATIO,
                "rows reused": RATIO,
                "images reused": RATIO,
            },
            width=24,
        ),
    ),
)

_SPEED = Row(
    "Speed-up against full",
    (
        _times_as_fast("Whole request", _DURATION, "Longer answers take longer."),
        _times_as_fast("First token", _FIRST_TOKEN, "The wait is in it: under load all wait."),
        _times_as_fast(
            "Between two tokens",
            _BETWEEN_TOKENS,
            "Requests share steps: a policy is as fast as the mix that it runs in.",
        ),
    ),
)

_THROUGHPUT = Row(
    "Throughput",
    (
        Panel(
            "Requests",
            "Requests that ended, whatever the end.",
            units.RequestsPerSecond,
            _by_policy(_rate(_REQUESTS)),
        ),
        Panel(
            "Answer tokens",
            "Tokens sampled.",
            units.CountsPerSecond,
            _by_policy(_rate("skipserve_generated_tokens_total")),
        ),
        Panel(
            "Prompt tokens",
            "Prompt rows of requests, of text and of images.",
            units.CountsPerSecond,
            _by_policy(
                f"{_rate('skipserve_prompt_tokens_total')}"
                f" + {_rate('skipserve_image_tokens_total')}"
            ),
        ),
    ),
)

_FLOPS = Row(
    "FLOPs",
    (
        Panel(
            "Executed",
            "FLOPs of the rows that were launched.",
            units.FlopsPerSecond,
            _by_policy(_rate("skipserve_executed_flops_total")),
            width=6,
        ),
        Panel(
            "Saved",
            "What the full model would have spent besides on the same rows.",
            units.FlopsPerSecond,
            _by_policy(_rate("skipserve_saved_flops_total")),
            width=6,
        ),
        Panel(
            "Share saved",
            "Saved, of what the full model would have spent on the rows that ran: what the "
            "catalog promises differs with the prompt's length and with reused rows.",
            RATIO,
            _by_policy(_saved_share(RATE)),
            width=6,
        ),
        Panel(
            "FLOPs per answer",
            "Executed FLOPs for each complete answer, those of failed requests among them.",
            units.SiShort,
            _by_policy(_flops_per_answer(RATE)),
            width=6,
        ),
    ),
)

_QUALITY_ROW = Row(
    "Quality",
    (
        Panel(
            "Measured quality",
            "Accuracy on a data set, measured on the loaded model by `skipserve evaluate`. A "
            "policy without a bar was not measured.",
            RATIO,
            (
                Query(
                    _quality(by=f"{BY_POLICY}, dataset, samples"),
                    f"{POLICY_LEGEND} ({{{{dataset}}}}, {{{{samples}}}})",
                ),
            ),
            View.BARS,
        ),
        Panel(
            "Quality, of full's",
            "The same as a share of what the full model reaches on that data set.",
            RATIO,
            (
                Query(
                    f"{_quality()} / on ({BY_MODEL}, dataset) group_left ()"
                    f" {_quality(FULL, f'{BY_MODEL}, dataset')}",
                    f"{POLICY_LEGEND} ({{{{dataset}}}})",
                ),
            ),
            View.BARS,
            limits={0.95: "yellow", 0.98: "green"},
            base="red",
        ),
        Panel(
            "Planned savings",
            "Share of the full model's FLOPs that is saved on a request of 60 text tokens, one "
            "image and an answer of 10 tokens, by the formula.",
            RATIO,
            _by_policy(f"max by ({BY_POLICY}) (skipserve_skip_policy_saved_ratio{{{POLICIES}}})"),
            View.BARS,
        ),
    ),
)

_ERRORS = Row(
    "Errors",
    (
        Panel(
            "Error ratio",
            "Share of the policy's requests that ended by an error, for whatever reason. "
            "One policy above the others points at the policy; all together at the server.",
            RATIO,
            _by_policy(_error_ratio(RATE)),
            limits={0.01: "orange", 0.144: "red"},
            alerts=("HighErrorRatio",),
            width=24,
        ),
    ),
)

_CACHES = Row(
    "Caches",
    (
        Panel(
            "Prompt rows reused",
            "Share of the prompt rows that were found in the prefix cache. Policies share what "
            "was computed alike: one that changes the prompt's rows starts with nothing.",
            RATIO,
            _by_policy(_rows_reused(RATE)),
            width=12,
        ),
        Panel(
            "Images reused",
            "Share of the images that the vision tower did not run for.",
            RATIO,
            _by_policy(_images_reused(RATE)),
            width=12,
        ),
    ),
)

_IDENTITY = Row(
    "Identity",
    (
        Panel(
            "The named policies",
            "A digest stands for what is computed: two policies of one digest compute the same. "
            "The default is what runs where a request names none.",
            COUNT,
            (
                Query(
                    f"max by ({BY_POLICY}, digest, scope, default)"
                    f" (skipserve_skip_policy_info{{{POLICIES}}})",
                    "known",
                ),
            ),
            View.TABLE,
            width=24,
        ),
    ),
)


COMPARISON = Board(
    uid="skipserve-policies",
    title="skipserve: policies compared",
    description="What each skip policy saves and costs, beside the full model.",
    variables=(NAMESPACE, MODEL, POLICY, MINIMUM),
    rows=(
        _SUMMARY,
        _latency("Time to first token", _FIRST_TOKEN, "From arrival to the first token."),
        _latency("Between two tokens", _BETWEEN_TOKENS, "How fast an answer grows."),
        _latency("Whole request", _DURATION, "From arrival to the end."),
        _THROUGHPUT,
        _SPEED,
        _FLOPS,
        _QUALITY_ROW,
        _ERRORS,
        _CACHES,
        _IDENTITY,
    ),
    since="6h",
)
