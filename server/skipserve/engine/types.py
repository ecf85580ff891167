"""What flows through the engine, and over its socket: plain data, encoded by msgspec as msgpack."""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import msgspec

from skipserve_policies.plan import Plan, TokenClass


class FinishReason(StrEnum):
    """Why a request ended, in OpenAI's words; CANCELLED is never seen by a client."""

    STOP = "stop"
    LENGTH = "length"
    CANCELLED = "cancelled"


class Stage(StrEnum):
    """Where the time of a request goes; those of the engine are from QUEUE to DECODE.

    The stages of the engine leave no gap: each moment between a request's arrival there and its
    last token belongs to one of them.
    """

    DECODE_IMAGE = "decode_image"
    PREPROCESS = "preprocess"
    TOKENIZE = "tokenize"
    QUEUE = "queue"
    VISION_ENCODE = "vision_encode"
    PREFILL = "prefill"
    DECODE = "decode"
    DETOKENIZE = "detokenize"


@dataclass(frozen=True)
class EngineSpec:
    """How to run an engine.

    Attributes:
        model: the folder of the checkpoint.
        device: "auto", or a device as torch names it.
        dtype: "auto", or a dtype as torch names it, without "torch.".
        num_threads: CPU threads of the engine; None leaves the choice to torch.
        stall_seconds: without a sign of life for so long, the engine counts as hung.
        load_seconds: loading may take so long.
    """

    model: Path
    device: str = "auto"
    dtype: str = "auto"
    num_threads: int | None = None
    stall_seconds: float = 30.0
    load_seconds: float = 600.0


@dataclass(frozen=True)
class SamplingParams:
    """How answer tokens are chosen.

    Attributes:
        max_tokens: at most so many tokens are generated.
        temperature: 0 is greedy.
        top_p: keep the smallest set of tokens that holds this much probability.
        seed: with the position, keys the random draw; any 64-bit integer.
        num_top_logprobs: None for no log-probabilities, else how many alternatives to report.
        ends_at_eos: whether the end-of-sequence token ends the answer.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int = 0
    num_top_logprobs: int | None = None
    ends_at_eos: bool = True


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
        plan: what is computed; trimmed.
    """

    id: str
    prompt_ids: tuple[int, ...]
    token_classes: tuple[TokenClass, ...]
    images: tuple[Image, ...]
    sampling: SamplingParams
    policy_name: str
    plan: Plan

    @property
    def num_prompt(self) -> int:
        """Rows of the prompt."""
        return len(self.prompt_ids)


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
    """

    flops: int = 0
    full_flops: int = 0
    attention: int = 0
    ffn: int = 0
    skipped_attention: int = 0
    skipped_ffn: int = 0

    def __add__(self, other: "Executed") -> "Executed":
        return Executed(
            *(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__)
        )


@dataclass(frozen=True)
class StepOutput:
    """What one step gave one request.

    Attributes:
        request_id: whose it is.
        token_id: the sampled token, the end-of-sequence token included; None where the step only
            ended the request.
        logprob: of that token; None unless asked for.
        top_logprobs: the most probable tokens, best first; empty unless asked for.
        finish_reason: None while more is to come.
        executed: what the step computed for this request.
        stage_seconds: time spent since the request's last output, by stage.
        num_cached_tokens: leading prompt rows that were not computed again.
    """

    request_id: str
    token_id: int | None
    logprob: float | None = None
    top_logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    executed: Executed = Executed()
    stage_seconds: dict[Stage, float] = field(default_factory=dict)
    num_cached_tokens: int = 0


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
        load_seconds: how long loading took.
    """

    device: str
    dtype: str
    weights_digest: str
    load_seconds: float


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """From the engine, regularly and after each step: it is alive.

    Attributes:
        num_running: requests under way.
        num_waiting: requests that have not started.
        outputs: what the last step gave; empty for a mere sign of life.
    """

    num_running: int
    num_waiting: int
    outputs: tuple[StepOutput, ...] = ()


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """From the engine: one request, or with request_id None the engine itself, failed."""

    request_id: str | None
    message: str


ToEngine = Submit | Cancel
FromEngine = Ready | Progress | Failed
