"""What a decode step takes: ours, transformers', and vLLM's where it is installed."""

from functools import partial
from statistics import median

import torch
from contenders import OurEngine, Transformers
from mixed import decode_step_seconds
from on_gpu.bench import Bench, Rows
from on_gpu.clock import launch_seconds
from on_gpu.vllm_peer import Vllm
from questions import QuestionSource
from report import Row
from timing import time_set

# How many times the floor a step of one row may take.
LIMIT_OVER_FLOOR = 1.25

# Those for which vLLM's share of the memory is enough.
_VLLM_BATCHES = (1, 8)


def measure_steps(bench: Bench) -> Rows:
    """Time the full model's step through the runner, for which the host does not wait."""
    amount, full = bench.amount, bench.plan("full")
    for batch in amount.batches:
        with bench.steps([full] * batch, amount.context) as steps:
            work = {"ours": partial(bench.runner.launch, steps.decode)}
            seconds = launch_seconds(work, bench.device, amount.repeats, amount.num_launches)
        floor = bench.roofline.decode_seconds([full] * batch, amount.context)
        limit = LIMIT_OVER_FLOOR if bench.has_targets and batch == 1 else None
        ratio = seconds["ours"] / floor
        yield Row(f"batch {batch}/step", 1000 * seconds["ours"], "ms")
        yield Row(f"batch {batch}/floor", 1000 * floor, "ms")
        yield Row(f"batch {batch}/over the floor", ratio, "x", limit, is_limit=True)


def measure_peers(bench: Bench) -> Rows:
    """Time the tokens of whole engines against those of peers, turn by turn."""
    source = QuestionSource(bench.config, seed=4)
    for batch in bench.amount.batches:
        theirs = Transformers(bench.transformers, batch)
        yield from _duel(bench, source, batch, "transformers", theirs)
    yield from _vllm(bench)


def _duel(
    bench: Bench, source: QuestionSource, batch: int, rival: str, theirs: Transformers
) -> Rows:
    """Time a token of each of several requests, ours and a rival's turn by turn."""
    amount, ours = bench.amount, OurEngine(bench.engine, batch)
    # While the last prompts are computed, the first answers are not to end.
    num_new_tokens = amount.num_new_tokens + batch // 2
    pairs: list[tuple[float, float]] = []
    try:
        for _ in range(amount.turns + 1):
            questions = [bench.question(source, num_new_tokens) for _ in range(batch)]
            time_set(ours, questions)
            step_seconds = decode_step_seconds(ours.reports, batch)
            pairs.append((step_seconds, time_set(theirs, questions).per_token_seconds))
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        bench.notes.append(f"{rival} at batch {batch}: {str(error).splitlines()[0]}")
        return
    our_seconds, their_seconds = (median(times) for times in zip(*pairs[1:], strict=True))
    yield Row(f"batch {batch}/token, ours beside {rival}", 1000 * our_seconds, "ms")
    yield Row(f"batch {batch}/token, {rival}", 1000 * their_seconds, "ms")
    yield Row(f"batch {batch}/times as fast as {rival}", their_seconds / our_seconds, "x")


def _vllm(bench: Bench) -> Rows:
    """Time vLLM's tokens, by itself: it shares the device with nobody's turns."""
    amount = bench.amount
    dtype = str(bench.dtype).removeprefix("torch.")
    try:
        peer = Vllm(bench.shape, 2 * amount.context, dtype)
    except ImportError as error:
        bench.notes.append(f"vLLM: {error}")
        return
    for batch in _VLLM_BATCHES:
        prompts = [[1 + batch + place] * amount.context for place in range(batch)]
        yield Row(f"batch {batch}/token, vLLM", 1000 * peer.token_seconds(prompts), "ms")
