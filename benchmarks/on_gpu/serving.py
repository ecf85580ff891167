"""Whole requests: the time to the first token, and how many the device answers in a second."""

import torch
from contenders import OurEngine, Transformers
from on_gpu.bench import Bench, Rows
from on_gpu.clock import launch_seconds
from questions import QuestionSource
from report import Row
from reuse import second_question_seconds
from timing import Contender, median_of, take_turns

from skipserve_policies.plan import TokenClass

# How many times the floor the forward of a prompt may take.
PREFILL_LIMIT = 1.4

# Requests a second, that many at a time.
TARGET_RATES = {64: 62.0}

# How many times as many requests as transformers with a static batch.
TARGET_OVER_STATIC = 3.0

# A set has so many requests for each that runs at a time, so that its end does not show.
_ROUNDS = 2
_MIN_REQUESTS = 8


def measure_first_token(bench: Bench) -> Rows:
    """Time the parts of a question's first token on the device, then the whole of it."""
    yield from _parts(bench)
    source = QuestionSource(bench.config, seed=5)
    contenders: dict[str, Contender] = {
        "skipserve": OurEngine(bench.engine),
        "transformers": Transformers(bench.transformers),
    }
    repeats = 2 * bench.amount.repeats
    timings = take_turns(contenders, lambda: [bench.question(source, 1)], repeats)
    ours, theirs = (median_of(timings[name], "first_token_seconds") for name in contenders)
    yield Row("first token/skipserve", 1000 * ours, "ms")
    yield Row("first token/transformers", 1000 * theirs, "ms")
    yield Row("first token/times as fast as transformers", theirs / ours, "x")


def _parts(bench: Bench) -> Rows:
    """Time the picture and the prompt on the device alone."""
    amount, roofline = bench.amount, bench.roofline
    vision = bench.config.sizes.vision
    num_rows = vision.num_features + amount.num_text
    pixels = torch.zeros(
        1, vision.image_size, vision.image_size, 3, dtype=torch.uint8, device=bench.device
    )
    encoding = launch_seconds(
        {"picture": lambda: bench.llava.encode_images(pixels)},
        bench.device,
        amount.repeats,
        amount.num_launches,
    )
    yield Row("picture/vision and projector", 1000 * encoding["picture"], "ms")
    yield Row("picture/floor", 1000 * roofline.vision_seconds(), "ms")
    # As many rows of text: who shows a picture does not matter to the decoder.
    plan = bench.plan("full")
    with bench.steps([plan], num_rows + 1) as steps:
        prefill = launch_seconds(
            {"prompt": lambda: bench.runner.launch(steps.prefill)},
            bench.device,
            amount.repeats,
            amount.num_launches,
        )["prompt"]
    classes = [TokenClass.TEXT] * (num_rows - 1) + [TokenClass.LAST]
    floor = roofline.prefill_seconds(plan, classes)
    limit = PREFILL_LIMIT if bench.has_targets else None
    yield Row(f"prompt of {num_rows}/forward", 1000 * prefill, "ms")
    yield Row(f"prompt of {num_rows}/floor", 1000 * floor, "ms")
    yield Row(f"prompt of {num_rows}/over the floor", prefill / floor, "x", limit, is_limit=True)


def measure_requests(bench: Bench) -> Rows:
    """Time visual questions, several at a time, and the second question on a picture."""
    source = QuestionSource(bench.config, seed=6)
    amount = bench.amount
    for batch in amount.batches:
        contenders: dict[str, Contender] = {"skipserve": OurEngine(bench.engine, batch)}
        if batch == amount.static_batch:
            contenders["static batch"] = Transformers(bench.transformers, batch)
        yield from _rates(bench, source, batch, contenders)
    yield from _second_questions(bench, source)


def _rates(
    bench: Bench, source: QuestionSource, batch: int, contenders: dict[str, Contender]
) -> Rows:
    count = max(_ROUNDS * batch, _MIN_REQUESTS)
    timings = take_turns(contenders, lambda: bench.questions(count, source), bench.amount.turns)
    rates = {name: count / median_of(sets, "seconds") for name, sets in timings.items()}
    target = TARGET_RATES.get(batch) if bench.has_targets else None
    yield Row(f"{batch} at a time/skipserve", rates["skipserve"], "requests/s", target)
    for name in list(rates)[1:]:
        ratio = rates["skipserve"] / rates[name]
        yield Row(f"{batch} at a time/transformers, {name}", rates[name], "requests/s")
        wanted = TARGET_OVER_STATIC if bench.has_targets else None
        yield Row(f"{batch} at a time/times as fast as {name}", ratio, "x", wanted)
    classes = bench.questions(1, source)[0].token_classes
    ideal = bench.roofline.request_seconds(
        bench.plan("full"), classes, bench.amount.num_new_tokens, batch
    )
    yield Row(f"{batch} at a time/roofline", 1 / ideal, "requests/s")


def _second_questions(bench: Bench, source: QuestionSource) -> Rows:
    amount, ours = bench.amount, OurEngine(bench.engine)
    first, second = second_question_seconds(ours, source, amount.num_text, amount.repeats)
    yield Row("one picture/first question, first token", 1000 * first, "ms")
    yield Row("one picture/second question, first token", 1000 * second, "ms")
    yield Row("one picture/second over first", second / first, "x")
