"""What policies gain, alone and mixed, beside what their arithmetic and their bytes promise."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from statistics import median

from contenders import OurEngine
from on_gpu.bench import Bench, Rows
from on_gpu.clock import launch_seconds
from plans import FOUR_POLICIES
from questions import QuestionSource, flops_ratio
from report import Row
from timing import median_in_turns, time_set

from skipserve_policies.plan import Plan, TokenClass

# What a policy, or a mix of several, is to reach of the gain that the roofline allows.
SHARE_OF_IDEAL = 0.95

# Up to such an ideal gain a policy may instead lose so much.
SMALL_GAIN = 1.05
ALLOWED_LOSS = 0.98

MIXED = "mixed"


def gain_target(ideal: float) -> float:
    """Return what a policy is to gain, given what it could."""
    return SHARE_OF_IDEAL * ideal if ideal > SMALL_GAIN else ALLOWED_LOSS


def measure_policies(bench: Bench) -> Rows:
    """Time each policy against the full model: steps of few and of many rows, and requests.

    A policy is done before the next begins, and takes turns with the full model alone.
    """
    source = QuestionSource(bench.config, seed=7)
    verdicts: list[bool] = []
    for policy in bench.policies[1:]:
        (question,) = bench.questions(1, source, policy)
        yield Row(f"{policy}/planned FLOPs", flops_ratio(bench.config.sizes, question), "x")
        for kind, ideal, measure in _kinds(bench, policy, question.token_classes):
            gain, spread = gain_in_turns(
                partial(measure, "full"), partial(measure, policy), bench.amount.turns
            )
            target = gain_target(ideal) if bench.has_targets else None
            row = Row(f"{policy}/{kind}", gain, "x", target)
            verdicts += [] if row.is_met is None else [row.is_met]
            yield row
            yield Row(f"{policy}/{kind}, half of the turns within", 100 * spread, "%")
            yield Row(f"{policy}/{kind}, ideal", ideal, "x")
    if verdicts:
        yield Row("all/targets met", 100 * sum(verdicts) / len(verdicts), "%")


# What is compared: its name, the gain that it allows, and what times it under a policy.
Kind = tuple[str, float, Callable[[str], float]]


def _kinds(bench: Bench, policy: str, classes: Sequence[TokenClass]) -> Iterator[Kind]:
    amount, roofline = bench.amount, bench.roofline
    for batch in sorted({min(amount.batches), bench.most}):

        def measure(name: str, batch: int = batch) -> float:
            return _step_seconds(bench, [bench.plan(name)] * batch)

        ideals = [
            roofline.decode_seconds([bench.plan(name)] * batch, amount.context)
            for name in ("full", policy)
        ]
        yield f"decode at {batch}", ideals[0] / ideals[1], measure
    batch, source = amount.policy_batch, QuestionSource(bench.config, seed=7)
    ours = OurEngine(bench.engine, batch)
    ideals = [
        roofline.request_seconds(bench.plan(name), classes, amount.num_new_tokens, batch)
        for name in ("full", policy)
    ]

    def measure_set(name: str) -> float:
        return time_set(ours, bench.questions(batch, source, name)).seconds

    yield f"requests at {batch}", ideals[0] / ideals[1], measure_set


def gain_in_turns(
    full: Callable[[], float], skipping: Callable[[], float], turns: int
) -> tuple[float, float]:
    """Return how many times as fast the second is, and how far half of the turns are from that.

    Both are the median over pairs of neighbours; a first pair is not counted.
    """
    gains = [full() / skipping() for _ in range(turns + 1)][1:]
    gain = median(gains)
    return gain, median(abs(each - gain) for each in gains) / gain


def measure_mixes(bench: Bench) -> Rows:
    """Time a quarter of the sequences under each of four policies, and parallel blocks."""
    plans = {policy: bench.plan(policy) for policy in FOUR_POLICIES}
    for batch in sorted({bench.amount.static_batch, bench.most}):
        lines = {policy: [plan] * batch for policy, plan in plans.items()}
        lines[MIXED] = list(plans.values()) * (batch // len(plans))
        seconds, ideals = _steps_seconds(bench, lines), _step_ideals(bench, lines)
        yield from _mix_rows(bench, f"decode at {batch}", seconds, ideals)
    yield from _mixed_requests(bench, plans)
    yield from _parallel(bench)


def _mix_rows(
    bench: Bench, name: str, seconds: Mapping[str, float], ideals: Mapping[str, float]
) -> Rows:
    for line, taken in seconds.items():
        yield Row(f"{name}/{line}", 1000 * taken, "ms")
    measured = seconds["full"] / seconds[MIXED]
    ideal = ideals["full"] / ideals[MIXED]
    target = 100 * SHARE_OF_IDEAL if bench.has_targets else None
    yield Row(f"{name}/gain of the mix over full", measured, "x")
    yield Row(f"{name}/gain of the mix over full, ideal", ideal, "x")
    yield Row(f"{name}/share of the ideal", 100 * measured / ideal, "%", target)


def _mixed_requests(bench: Bench, plans: Mapping[str, Plan]) -> Rows:
    """Compare the requests a second of a mix with those of its parts, each for its own quarter."""
    source, ours = QuestionSource(bench.config, seed=8), OurEngine(bench.engine, bench.most)
    lines = {policy: [policy] * bench.most for policy in plans}
    lines[MIXED] = list(plans) * (bench.most // len(plans))

    def measure(policies: Sequence[str]) -> float:
        questions = [bench.questions(1, source, policy)[0] for policy in policies]
        return time_set(ours, questions).seconds

    measures = {name: partial(measure, policies) for name, policies in lines.items()}
    medians = median_in_turns(measures, bench.amount.turns)
    name = f"requests at {bench.most}"
    for line, taken in medians.items():
        yield Row(f"{name}/{line}", bench.most / taken, "requests/s")
    parts = sum(medians[policy] for policy in plans) / len(plans)
    yield Row(f"{name}/mix against the mean of its parts", 100 * parts / medians[MIXED], "%")


def _parallel(bench: Bench) -> Rows:
    """Compare steps with attention and FFN of all blocks in parallel with serial ones."""
    for batch in sorted({min(bench.amount.batches), bench.most}):
        plans = {"serial": bench.plan("full"), **bench.parallel_plans}
        seconds = _steps_seconds(bench, {name: [plan] * batch for name, plan in plans.items()})
        for name in bench.parallel_plans:
            gain = seconds["serial"] / seconds[name]
            yield Row(f"parallel blocks, decode at {batch}/{name}", gain, "x")


def _steps_seconds(bench: Bench, lines: Mapping[str, Sequence[Plan]]) -> dict[str, float]:
    """Return what a decode step of each line of sequences takes; they take turns."""
    measures = {name: partial(_step_seconds, bench, plans) for name, plans in lines.items()}
    return median_in_turns(measures, bench.amount.repeats)


def _step_seconds(bench: Bench, plans: Sequence[Plan]) -> float:
    with bench.steps(plans, bench.amount.context) as steps:
        work = {"step": partial(bench.runner.launch, steps.decode)}
        return launch_seconds(work, bench.device, 1, bench.amount.num_launches)["step"]


def _step_ideals(bench: Bench, lines: Mapping[str, Sequence[Plan]]) -> dict[str, float]:
    context = bench.amount.context
    return {name: bench.roofline.decode_seconds(plans, context) for name, plans in lines.items()}
