"""What flows through the engine, and over its socket: plain data, encoded by msgspec as msgpack."""

from array import array
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from skipserve_policies.plan import Plan, TokenClass


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

    DECODE_IMAGE = "decode_image"
    PREPROCESS = "preprocess"
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


class StepMode(StrEnum):
    """How a step ran: as a graph of one plan, as a graph of any mix, or without a graph."""

    UNIFORM = "uniform"
    GATED = "gated"
    EAGER = "eager"


@dataclass(frozen=True)
class EngineLimits:
    """How much an engine takes on at once.

    Attributes:
        max_batch_tokens: rows of one step; None takes what suits the device.
        max_running: requests that run at the same time.
        page_size: positions whose keys and values share a page.
        kv_cache_bytes: size of the page pool; None takes what suits the device's memory.
        encoder_cache_bytes: projected images that are kept.
        reuses_prefixes: whether pages outlive the request that computed them.
        looks_ahead: whether a step is launched before the tokens of the last one are read; None
            where the device works on its own.
        uses_graphs: whether decode steps run as captured graphs; None where the device can.
        hot_plans: plans whose decode steps get graphs of their own, beside the full model's.
    """

    max_batch_tokens: int | None = None
    max_running: int = 256
    page_size: int = 16
    kv_cache_bytes: int | None = None
    encoder_cache_bytes: int = 256 * 2**20
    reuses_prefixes: bool = True
    looks_ahead: bool | None = None
    uses_graphs: bool | None = None
    hot_plans: tuple[Plan, ...] = ()


@dataclass(frozen=True)
class EngineSpec:
    """How to run an engine.

    Attributes:
        model: the folder of the checkpoint.
        device: "auto", or a device as torch names it.
        dtype: "auto", or a dtype as torch names it, without "torch.".
        num_threads: CPU threads of the engine; None leaves the choice to torch.
        limits: how much it takes on at once.
        stall_seconds: without a sign of life for so long, the engine counts as hung.
        load_seconds: loading may take so long.
        logs_json: whether the process writes log lines as JSON.
    """

    model: Path
    device: str = "auto"
    dtype: str = "auto"
    num_threads: int | None = None
    limits: EngineLimits = EngineLimits()
    stall_seconds: float = 30.0
    load_seconds: float = 1200.0
    logs_json: bool = False


@dataclass(frozen=True)
class SamplingParams:
    """How answer tokens are chosen.

    Attributes:
        max_tokens: at most so many tokens are generated.
        temperature: 0 is greedy.
        top_k: keep so many of the most probable tokens; 0 keeps all.
        top_p: then keep the smallest set of tokens that holds this much probability.
        min_p: then keep tokens at least this many times as probable as the best one.
        seed: with the position, keys the random draw; any 64-bit integer.
        num_top_logprobs: None for no log-probabilities, else how many alternatives to report.
        ends_at_eos: whether the end-of-sequence token ends the answer.
        stop_token_ids: tokens that end it besides.
    """

    max_tokens: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int = 0
    num_top_logprobs: int | None = None
    ends_at_eos: bool = True
    stop_token_ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Image:
    """A picture as the vision tower takes it, before normalisation.

    Attributes:
        pixels: uint8, [S, S, 3] in row-major order.
        size: S, the tower's image size.
        digest: sha256 over size, mode and pixels, 32 bytes.
    """

    pixels: bytes
    size: int
    digest: bytes


@dataclass(frozen=True)
class Request:
    """What is asked; never changes.

    Attributes:
        id: made by the server.
        prompt_ids: token ids of all prompt rows; each image is spelt out as the image token, once
            for each of its rows.
        token_classes: the class of each prompt row.
        images: in the order of their placeholders.
        sampling: how tokens are chosen.
        policy_name: a label for metrics and replies; decides nothing.
        plan: what is computed, trimmed; over the socket the key of a plan that the engine has.
        cache_salt: requests share cached work only with those of the same salt.
        queue_seconds: it may wait so long for its first step; None for ever.
        deadline_seconds: it may take so long in all; None for ever.
    """

    id: str
    prompt_ids: tuple[int, ...]
    token_classes: tuple[TokenClass, ...]
    images: tuple[Image, ...]
    sampling: SamplingParams
    policy_name: str
    plan: Plan | bytes
    cache_salt: str = ""
    queue_seconds: float | None = None
    deadline_seconds: float | None = None

    @property
    def num_prompt(self) -> int:
        """Rows of the prompt."""
        return len(self.prompt_ids)

    @cached_property
    def prompt_array(self) -> NDArray[np.int64]:
        """The token ids as an array, [num_prompt], read-only."""
        return np.frombuffer(array("q", self.prompt_ids), dtype=np.int64)

    @cached_property
    def class_array(self) -> NDArray[np.uint8]:
        """The token classes as an array, [num_prompt], read-only."""
        return np.frombuffer(bytes(self.token_classes), dtype=np.uint8)


@dataclass(frozen=True)
class TokenLogprob:
    """A token with the model's own log-probability, before temperature and top_p."""

    token_id: int
    logprob: float


@dataclass(frozen=True)
class Executed:
    """What was really computed.

    Attributes:
        flops: FLOPs of the matrix products of all rows that were launched.
        full_flops: what the same rows cost under the trimmed full model.
        attention, ffn: (row, layer) sublayers that ran.
        skipped_attention, skipped_ffn: those that the trimmed full model would have run besides.
        images: images that were encoded.
    """

    flops: int = 0
    full_flops: int = 0
    attention: int = 0
    ffn: int = 0
    skipped_attention: int = 0
    skipped_ffn: int = 0
    images: int = 0

    def __add__(self, other: "Executed") -> "Executed":
        return Executed(
            *(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__)
        )


class StepOutput(msgspec.Struct, frozen=True, gc=False):
    """What one step gave one request. A struct, for a step makes hundreds of them.

    Attributes:
        request_id: whose it is.
        token_id: the sampled token, the end-of-sequence token included; None where the step only
            ended the request.
        logprob: of that token; None unless asked for.
        top_logprobs: the most probable tokens, best first; empty unless asked for.
        finish_reason: None while more is to come.
        num_cached_tokens: leading prompt rows that were not computed, with the first token; else 0.
        stage_seconds: by stage; QUEUE to PREFILL with the first token, DECODE with the last.
    """

    request_id: str
    token_id: int | None
    logprob: float | None = None
    top_logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    num_cached_tokens: int = 0
    stage_seconds: dict[Stage, float] = {}


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


class Submit(msgspec.Struct, frozen=True, tag="submit"):
    """To the engine: run this."""

    request: Request


class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """To the engine: forget this request."""

    request_id: str


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """From the engine, once: the model is loaded.

    Attributes:
        device: as torch names it.
        dtype: as torch names it, without "torch.".
        weights_digest: sha256 of the weight files, hexadecimal.
        num_cache_tokens: positions that the page pool holds.
    """

    device: str
    dtype: str
    weights_digest: str
    num_cache_tokens: int


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """From the engine, regularly and after each step: it is alive.

    Attributes:
        state: how the engine stands.
        outputs: what the last step gave; empty for a mere sign of life.
        step: what the last step did; None for a mere sign of life.
    """

    state: EngineState
    outputs: tuple[StepOutput, ...] = ()
    step: StepReport | None = None


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """From the engine: one request, or with request_id None the engine itself, failed."""

    request_id: str | None
    message: str
    kind: FailureKind = FailureKind.ENGINE


class PlanWanted(msgspec.Struct, frozen=True, tag="plan_wanted"):
    """From the engine: this request named a plan that is not known; submit it with the table."""

    request_id: str


ToEngine = Submit | Cancel
FromEngine = Ready | Progress | Failed | PlanWanted
