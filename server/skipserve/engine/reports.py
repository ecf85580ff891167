"""What an engine tells of its work: plain data, encoded by msgspec where it crosses a socket."""

from dataclasses import dataclass
from enum import StrEnum

import msgspec


class FinishReason(StrEnum):
    """Why a request ended, in OpenAI's words; CANCELLED is never seen by a client."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"


class Stage(StrEnum):
    """Where the time of a request goes; those of the engine are from QUEUE to DECODE.

    The stages of the engine leave no gap: each moment between a request's arrival there and its
    last token belongs to one of them. A preempted request's wait belongs to where it was.
    """

    FETCH_IMAGE = "fetch_image"
    DECODE_IMAGE = "decode_image"
    PREPROCESS = "preprocess"
    COMPILE_GRAMMAR = "compile_grammar"
    TOKENIZE = "tokenize"
    QUEUE = "queue"
    VISION_ENCODE = "vision_encode"
    PREFILL = "prefill"
    DECODE = "decode"
    DETOKENIZE = "detokenize"


class FailureKind(StrEnum):
    """Why a request, or the engine, failed."""

    ENGINE = "engine"
    INVALID = "invalid"
    QUEUE_TIMEOUT = "queue_timeout"
    DEADLINE = "deadline"
    OUT_OF_MEMORY = "out_of_memory"


class Retry(StrEnum):
    """Why a request went on in another engine: the first was lost, silent, or did not take it."""

    LOST = "lost"
    SILENT = "silent"
    REFUSED = "refused"


class StepMode(StrEnum):
    """How a step ran: as a graph of one plan, as a graph of any mix, or without a graph."""

    UNIFORM = "uniform"
    GATED = "gated"
    EAGER = "eager"


@dataclass(frozen=True)
class TokenLogprob:
    """A token with the model's own log-probability, before temperature and top_p."""

    token_id: int
    logprob: float


class PromptScores(msgspec.Struct, frozen=True):
    """How probable the model finds the scored tokens of a prompt, S of them, with K alternatives.

    Arrays as bytes, little endian: a prompt has thousands of these numbers.

    Attributes:
        num_top: K.
        logprobs: the model's own log-probability of each token, float32 [S].
        ranks: its place among all tokens, the most probable one's is 1, int32 [S].
        top_ids: the most probable tokens, best first, int32 [S, K].
        top: their log-probabilities, float32 [S, K].
    """

    num_top: int
    logprobs: bytes
    ranks: bytes
    top_ids: bytes
    top: bytes


@dataclass(frozen=True)
class Executed:
    """What was really computed.

    Attributes:
        flops: FLOPs of the matrix products of all rows that were launched.
        full_flops: what the same rows cost under the trimmed full model.
        attention, ffn: (row, layer) sublayers that ran.
        skipped_attention, skipped_ffn: those that the trimmed full model would have run besides.
        images: images that were encoded.
        dropped: visual rows that left inside the decoder.
    """

    flops: int = 0
    full_flops: int = 0
    attention: int = 0
    ffn: int = 0
    skipped_attention: int = 0
    skipped_ffn: int = 0
    images: int = 0
    dropped: int = 0

    def __add__(self, other: "Executed") -> "Executed":
        return Executed(
            *(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__)
        )


class StepOutput(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What one step gave one request. A struct, for a step makes hundreds of them.

    What most steps do not give does not cross the socket.

    Attributes:
        request_id: whose it is.
        token_id: the sampled token, the end-of-sequence token included; None where the step only
            ended the request.
        logprob: of that token; None unless asked for.
        top_logprobs: the most probable tokens, best first; empty unless asked for.
        finish_reason: None while more is to come.
        num_cached_tokens: leading prompt rows that were not computed, with the first token; else 0.
        stage_seconds: by stage; QUEUE to PREFILL with the first token, DECODE with the last.
        prompt_scores: with the first token, where they are asked for.
    """

    request_id: str
    token_id: int | None
    logprob: float | None = None
    top_logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    num_cached_tokens: int = 0
    stage_seconds: dict[Stage, float] = {}
    prompt_scores: PromptScores | None = None


class StepReport(msgspec.Struct, frozen=True):
    """What one step did, over all requests.

    Attributes:
        executed: what was computed, by policy name.
        seconds: how long the step took.
        num_rows: rows that were launched.
        num_sequences: requests that took part.
        num_plans: distinct plans among them.
        mode: how it ran.
    """

    executed: dict[str, Executed]
    seconds: float
    num_rows: int
    num_sequences: int
    num_plans: int
    mode: StepMode = StepMode.EAGER


class EngineState(msgspec.Struct, frozen=True):
    """How the engine stands; what is counted is counted since its start.

    Attributes:
        num_running: requests under way.
        num_waiting: requests that wait for their first step, or to run again after a preemption.
        num_pages: pages of the pool.
        num_pages_used: pages that a request holds.
        num_pages_cached: pages that no request holds, kept for reuse.
        num_page_evictions: cached pages given up for others.
        num_preemptions: requests put back to wait because pages, or the device's memory, ran out.
        encoder_bytes: projected images that are kept.
        num_encoder_queries: images that a step needed.
        num_encoder_hits: of those, the ones that were not encoded for it.
        num_encoder_evictions: projected images given up for others.
        num_faults: the most that a check of the bookkeeping has found wrong; 0 in a sound engine.
    """

    num_running: int = 0
    num_waiting: int = 0
    num_pages: int = 0
    num_pages_used: int = 0
    num_pages_cached: int = 0
    num_page_evictions: int = 0
    num_preemptions: int = 0
    encoder_bytes: int = 0
    num_encoder_queries: int = 0
    num_encoder_hits: int = 0
    num_encoder_evictions: int = 0
    num_faults: int = 0


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """From the engine: one request, or with request_id None the engine itself, failed.

    Attributes:
        request_id: whose it is.
        message: why, in words for clients.
        kind: what it counts as.
        param: the field of a client's request that is at fault, where one is.
    """

    request_id: str | None
    message: str
    kind: FailureKind = FailureKind.ENGINE
    param: str | None = None


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """From the engine, once: the model is loaded.

    Attributes:
        device: as torch names it.
        dtype: as torch names it, without "torch."; "bfloat16+int8" where products are made in 8
            bits between rows of that type.
        weights_digest: sha256 of the weight files, hexadecimal.
        num_cache_tokens: positions that the page pool holds.
    """

    device: str
    dtype: str
    weights_digest: str
    num_cache_tokens: int
