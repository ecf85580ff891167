"""The table of all our metrics. One more is one entry here, and a line where it is fed."""

from enum import StrEnum
from functools import partial

from prometheus_client import Counter, Gauge, Histogram

from skipserve.asking.auto.choice import Reason
from skipserve.budgets.client import Limited
from skipserve.engine.reports import FailureKind, FinishReason, Retry, Stage, StepMode
from skipserve.grammar.outcome import GrammarOutcome
from skipserve.media.fetch_fault import FetchFault
from skipserve.media.kill import Kill
from skipserve.metrics.metric import Label, Metric, Table

counter = partial(Metric, Counter)
gauge = partial(Metric, Gauge)
histogram = partial(Metric, Histogram)

# A VQA answer has 1 to 5 tokens, so the scales start low; a prefill on a CPU takes a minute.
_TOKEN_SECONDS = (
    0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075,
    0.1, 0.2, 0.5, 1.0, 2.5,
)  # fmt: skip
_REQUEST_SECONDS = (
    0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75,
    1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0, 120.0,
)  # fmt: skip
_STAGE_SECONDS = (
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05,
    0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 300.0,
)  # fmt: skip
_STEP_SECONDS = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075,
    0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
)  # fmt: skip


class Rejection(StrEnum):
    """Why a well-formed request was turned away."""

    QUEUE_FULL = "queue_full"
    QUEUED_TOKENS = "queued_tokens"
    BODY_BYTES = "body_bytes"
    DRAINING = "draining"
    NOT_READY = "not_ready"


class UsedTokens(StrEnum):
    """What tokens of a key's requests are."""

    PROMPT = "prompt"
    CACHED = "cached"
    COMPLETION = "completion"


class UsedFlops(StrEnum):
    """FLOPs of a key's requests."""

    COMPUTED = "computed"
    FULL = "full"


class PageState(StrEnum):
    """What a page of keys and values is to the engine."""

    USED = "used"
    CACHED = "cached"
    FREE = "free"


def listed(values: type[StrEnum]) -> str:
    """Return the values of an enumeration as the page lists them."""
    return ", ".join(f"`{value}`" for value in values)


# A policy that has no name here, as every inline one, counts as "inline".
SKIP_POLICY = Label(
    "skip_policy", "the named policies, `inline`; `added` for all that were added at run time"
)
_BY_POLICY = (SKIP_POLICY,)
_CODE = Label("code", "an HTTP status from 400 on")
_DATASET = Label("dataset", "what `skipserve evaluate` was run on")
_DEFAULT = Label("default", "`true`, `false`")
_DEVICE = Label("device", "as torch names it")
_DIGEST = Label("digest", "of what the policy computes")
_DTYPE = Label("dtype", "as torch names it; behind a plus sign, what products are made in")
_FINISH_REASON = Label("finish_reason", f"{listed(FinishReason)} by the client, `error`")
# A client that has no name here counts as "other".
KEY = Label("key", "the names in the keys file, `other`")
_KIND = Label("kind", "`attention`, `ffn`")
_MODE = Label("mode", StepMode)
_PYTHON = Label("python", "the version of Python")
_SAMPLES = Label("samples", "how many questions the data set has")
_SCOPE = Label("scope", "the policy's scopes")
# In words, for a request need not pass every stage: none begins at 0.
_STAGE = Label("stage", listed(Stage))
_STATE = Label("state", PageState)
_VERSION = Label("version", "that of skipserve")
_WEIGHTS_DIGEST = Label("weights_digest", "sha256 of the weight files")


class Metrics(Table):
    """What the server tells of itself; what its engine does comes first."""

    PREFIX = "skipserve_"

    executed_flops = counter(
        "FLOPs of all rows launched.",
        "FLOPs per answer: divide by `skipserve_requests_total` of `stop` and `length`.",
        _BY_POLICY,
        "FLOPs",
    )
    saved_flops = counter(
        "FLOPs that the full model would have spent besides on the same rows.",
        "The saved ratio is this over this plus the executed ones; beside the planned one, "
        "`skipserve_skip_policy_saved_ratio`, it shows what traffic makes of a policy.",
        _BY_POLICY,
        "FLOPs",
    )
    executed_sublayers = counter(
        "Sublayers run, one for each row and layer.",
        "None of a kind: the policy skips it everywhere.",
        (SKIP_POLICY, _KIND),
    )
    skipped_sublayers = counter(
        "Sublayers that the full model would have run besides.",
        "0 for a policy that skips: its scope has no rows in this traffic.",
        (SKIP_POLICY, _KIND),
    )
    dropped_rows = counter(
        "Visual rows that left inside the decoder.",
        "Over `skipserve_images_total`: rows of an image that later layers did not see. 0 for a "
        "policy that drops some: its questions show no picture.",
        _BY_POLICY,
        "rows",
    )
    images_encoded = counter(
        "Images that the vision tower ran for.",
        "Over `skipserve_images_total`: the share of images that no cache had.",
        _BY_POLICY,
        "images",
    )
    engine_steps = counter(
        "Steps of the engine, by how they ran: as a CUDA graph of one plan (uniform), as one of "
        "any mix (gated), or without a graph (eager).",
        "Eager: prefill, more than 64 rows, or parallel blocks; all steps on a CPU. Much gated: "
        "name the policies in `--hot-policies`.",
        (_MODE,),
    )
    engine_step_seconds = histogram(
        "How long a step of the engine took.",
        "Bounds the time between two tokens. Slow: look at the rows and at the mode.",
        buckets=_STEP_SECONDS,
    )
    engine_step_rows = histogram(
        "Rows that a step launched.",
        "At `--max-batch-tokens` for long: prefill fills the steps, and tokens wait for it.",
        buckets=tuple(2.0**power for power in range(15)),
    )
    engine_step_requests = histogram(
        "Requests that took part in a step.",
        "Low while requests wait: pages are short, see `skipserve_kv_cache_usage_ratio`.",
        buckets=tuple(2.0**power for power in range(11)),
    )
    engine_step_policies = histogram(
        "Distinct plans among a step's requests.",
        "A mix skips less than its parts: a layer is launched if any row wants it.",
        unit="plans",
        buckets=(1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 32.0),
    )
    kv_cache_usage_ratio = gauge(
        "Share of the pages that requests hold.",
        "Near 1: requests wait or are preempted; more memory or fewer requests at a time.",
    )
    kv_cache_pages = gauge(
        "Pages: used by requests, cached for reuse (nobody holds them), or free.",
        "Cached pages are given up when used ones need room.",
        (_STATE,),
    )
    encoder_cache_bytes = gauge(
        "Projected images that are kept.",
        "At `--encoder-cache-mib`: the cache is full; look at its evictions.",
    )
    engine_up = gauge(
        "1 while the engine takes requests and makes progress.",
        "0: it loads, hangs, is gone, or the server is stopping; the log says which.",
        unit="0 or 1",
    )
    requests_running = gauge(
        "Requests under way in the engine.",
        "With the waiting ones: the load of a replica, to scale on.",
        unit="requests",
    )
    requests_waiting = gauge(
        "Requests handed over to the engine that do not run.",
        "Grows: more comes than is served; add replicas, or a policy that saves more.",
        unit="requests",
    )
    integrity_faults = gauge(
        "The most that a check of the bookkeeping has found wrong.",
        "Anything but 0 is a bug: take the replica out and report it with the log.",
    )
    engine_info = gauge(
        "1; which weights run, and on what. Absent until they are loaded.",
        "Differs among replicas: they do not give the same answers.",
        (_DEVICE, _DTYPE, _WEIGHTS_DIGEST),
        "1",
    )
    request_failures = counter(
        "Requests that the engine gave up.",
        "engine: the log has the exception. out_of_memory: fewer requests or batch tokens. "
        "queue_timeout: more comes than is served. deadline, invalid: the clients' wishes.",
        (Label("reason", FailureKind),),
        "requests",
    )
    request_retries = counter(
        "Requests that went on in another engine, of several on Ray.",
        "lost: a replica died. silent: it hangs, or the network to it does. refused: its engine is "
        "gone, or ends. Each costs the time of the first try.",
        (Label("reason", Retry),),
        "requests",
    )
    prefix_cache_evictions = counter(
        "Cached pages given up for others.",
        "Normal in a full cache. With a falling hit ratio: more memory (`--kv-cache-gib`), or send "
        "the same image to the same replica.",
        unit="pages",
    )
    preemptions = counter(
        "Requests put back to wait because pages, or the device's memory, ran out.",
        "Each is computed again. Fewer requests at a time (`--max-running-requests`) or more "
        "memory (`--kv-cache-gib`).",
        unit="requests",
    )
    encoder_cache_queries = counter(
        "Images that a step needed.", "The base of the hit ratio.", unit="images"
    )
    encoder_cache_hits = counter(
        "Of those, the ones not encoded for it.",
        "Few, with images that repeat: `--encoder-cache-mib` is too small.",
        unit="images",
    )
    encoder_cache_evictions = counter(
        "Projected images given up for others.",
        "As many as queries: the cache is too small to be of use.",
        unit="images",
    )

    request_duration_seconds = histogram(
        "From a request's arrival to its end, however it ended.",
        "Which stage grew: `skipserve_stage_duration_seconds`.",
        _BY_POLICY,
        buckets=_REQUEST_SECONDS,
    )
    time_to_first_token_seconds = histogram(
        "From a request's arrival to its first token.",
        "The stages up to prefill, the queue first.",
        _BY_POLICY,
        buckets=_REQUEST_SECONDS,
    )
    inter_token_latency_seconds = histogram(
        "Between two tokens of a request.",
        "`skipserve_engine_step_seconds`, and how many rows the steps have.",
        _BY_POLICY,
        buckets=_TOKEN_SECONDS,
    )
    stage_duration_seconds = histogram(
        "Time of a request in one stage, once per request; decode is from the first token to the "
        "last.",
        "queue: the engine is full. fetch_image: hosts of images by URL are slow, or many requests "
        "have such images. decode_image, preprocess, tokenize: the front end lacks CPU. "
        "vision_encode: images that no cache had.",
        (_STAGE,),
        buckets=_STAGE_SECONDS,
    )
    requests = counter(
        "Requests handed to the engine that ended.",
        "error: `skipserve_request_failures_total` says why; if not, the log. More length than "
        "before: answers ramble; is it one policy?",
        (SKIP_POLICY, _FINISH_REASON),
    )
    errors = counter(
        "Errors that clients were told, by status; those told in a stream after its 200 too.",
        "408: it waited or took too long. Other 4xx: what clients send, see the access log. 503: "
        "rejections, memory that ran out, probes while the server loads or stops. 500: the log has "
        "the exception.",
        (_CODE,),
    )
    rejections = counter(
        "Requests turned away with a 503, before the engine.",
        "queue_full, queued_tokens: more comes than is served. draining, not_ready: a rollout; if "
        "not, the engine is down.",
        (Label("reason", Rejection),),
        "requests",
    )
    cancellations = counter(
        "Requests given up by clients.",
        "Rises with latency: clients run out of patience.",
        unit="requests",
    )
    key_requests = counter(
        "Requests of a key that have reached the engine, however they ended.",
        "Who sends more than before: `--usage-log` has each of them.",
        (KEY,),
        "requests",
    )
    key_tokens = counter(
        "Tokens of a key's requests; the cached ones are among those of the prompt.",
        "As for FLOPs. Few cached ones: the key's requests begin differently.",
        (KEY, Label("kind", UsedTokens)),
        "tokens",
    )
    key_flops = counter(
        "FLOPs of a key's requests: those that were planned for them, and what the full model "
        "would have cost.",
        "computed over full: what the key's policies leave. The rate of computed is the share of "
        "the engine that it has.",
        (KEY, Label("kind", UsedFlops)),
        "FLOPs",
    )
    key_limited = counter(
        "Requests of a key that were turned away with a 429, by the limit that it has reached.",
        "The key's limits are too small for what it is for, or its program sends too much.",
        (KEY, Label("reason", Limited)),
        "requests",
    )
    image_decoders_killed = counter(
        "Processes that were lost over an image that they decoded: it took too much CPU time, its "
        "request was given up, or the decoder crashed.",
        "cpu_time: images made to be costly, or `--image-cpu-seconds` is too small for this CPU. "
        "crashed: the log has the exit status; -9 is the system, short of memory.",
        (Label("reason", Kill),),
        "processes",
    )
    grammars = counter(
        "What answers were to be held to, JSON schemas and tools among it: found in the cache, "
        "compiled, refused, or given up because it took too much.",
        "killed: schemas made to be costly; they are remembered, and cost nothing again. Few are "
        "cached: clients send another schema each time, and each costs a compilation.",
        (Label("outcome", GrammarOutcome),),
        "grammars",
    )
    auto_choices = counter(
        "Policies chosen for requests that asked for `auto`, by the reason.",
        "Much pressure: more comes than is served at the usual quality. unmeasured: run `skipserve "
        "evaluate --summary` on these weights. unmet: what clients ask for, `--auto-unmet`.",
        (SKIP_POLICY, Label("reason", Reason)),
        "requests",
    )
    image_fetch_failures = counter(
        "Images by URL that were not fetched.",
        "host, address: clients name what `--media-hosts` does not. too_slow, unreachable: the "
        "images' hosts, or this machine's way to them. url, status, encoding, redirects, "
        "too_large: what clients name.",
        (Label("reason", FetchFault),),
        "images",
    )
    images_waiting = gauge(
        "Images that wait for a process to decode them.",
        "Stays above 0: more images come than are decoded; add replicas, or `--image-workers` "
        "where there are CPUs.",
        unit="images",
    )
    prompt_tokens_waiting = gauge(
        "Prompt tokens that wait for the first token of their answer.",
        "At `--max-queued-tokens` requests are turned away.",
        unit="tokens",
    )
    prompt_tokens = counter(
        "Prompt rows that show no image.", "Longer prompts cost prefill and pages.", _BY_POLICY
    )
    image_tokens = counter(
        "Prompt rows that show an image.", "More images, or more of them a request.", _BY_POLICY
    )
    generated_tokens = counter(
        "Tokens sampled.",
        "The server's throughput. Per request: do answers grow under one policy?",
        _BY_POLICY,
    )
    images = counter(
        "Images that requests brought.", "The base of `skipserve_images_encoded_total`.", _BY_POLICY
    )
    prefix_cache_queries = counter(
        "Prompt rows that were looked for in the cache, image or text.",
        "The base of the hit ratio.",
        _BY_POLICY,
        "rows",
    )
    prefix_cache_hits = counter(
        "Prompt rows that were found there and not computed.",
        "Falls: other images, a policy that shares with none, or evictions.",
        _BY_POLICY,
        "rows",
    )
    build_info = gauge(
        "1; what is running.",
        "Differs among replicas: a rollout is under way.",
        (_VERSION, _PYTHON),
        "1",
    )
    skip_policy_info = gauge(
        "1; the named policies. Equal digests compute the same; `default` is `true` of what runs "
        "where a request names none.",
        "A digest that changed: the name means something else now.",
        (SKIP_POLICY, _DIGEST, _SCOPE, _DEFAULT),
        "1",
    )
    skip_policy_saved_ratio = gauge(
        "Planned share of the full model's FLOPs that is saved on the standard request: 60 text "
        "tokens, one image, 10 tokens of answer.",
        "Changes with the policies file only.",
        _BY_POLICY,
    )
    skip_policy_quality_ratio = gauge(
        "Share of right answers, or the data set's own score where that is a share, as `skipserve "
        "evaluate` measured it on these weights. Absent where it did not.",
        "Changes with a new evaluation only. Compare with that of `full`.",
        (SKIP_POLICY, _DATASET, _SAMPLES),
    )


class ProcessMetrics(Table):
    """What prometheus_client tells of a process, without unit or advice."""

    PREFIX = "process_"

    cpu_seconds = counter(
        "Time on the CPU.", "Near 1 a second in the front end: that is the bottleneck."
    )
    max_fds = gauge(
        "Files and connections that may be open.",
        "Near the open ones, connections are refused.",
        unit="descriptors",
    )
    open_fds = gauge(
        "Files and connections that are open.",
        "One for each client's connection.",
        unit="descriptors",
    )
    resident_memory_bytes = gauge(
        "Memory in use.", "Grows for hours, or nears the container's limit: it will be killed."
    )
    start_time_seconds = gauge(
        "When it was started.", "A restart; the log before it says why.", unit="seconds since 1970"
    )
    virtual_memory_bytes = gauge(
        "Addresses in use, files that are mapped among them.", "Says little."
    )
