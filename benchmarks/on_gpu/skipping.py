"""What policies gain, alone and mixed, beside what their arithmetic and their bytes promise."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from statistics import median

from contenders import OurEngine
from on_gpu.bench import Bench, Rows
from on_gpu.clock import launch_seconds
from plans import FOUR_POLICIES
from questions import QuestionSource, flops_ratio
from report import Row
from timing import median_in_turns, time_set

from skipserve_policies.plan import Plan

# What a policy, or a mix of several, is to reach of the gain that the roofline allows.
SHARE_OF_IDEAL = 0.95

# Up to such an ideal gain a policy may instead lose so much.
SMALL_GAIN = 1.05
ALLOWED_LOSS = 0.98

MIXED = "mixed"


def gain_target(ideal: float) -> float:
    """Return what a policy is to gain, given what it could."""
    return SHARE_OF_IDEAL * ideal if ideal > SMALL_GAIN else ALLOWED_LOSS


# What something takes under each policy, and what it takes at least.
Pair = tuple[Mapping[str, float], Mapping[str, float]]


def measure_policies(bench: Bench) -> Rows:
    """Time each policy against the full model: steps of few and of many rows, and requests."""
    source = QuestionSource(bench.config, seed=7)
    for policy in bench.policies:
        (question,) = bench.questions(1, source, policy)
        yield Row(f"{policy}/planned FLOPs", flops_ratio(bench.config.sizes, question), "x")
    verdicts: list[bool] = []
    for kind, (seconds, ideals) in _policy_times(bench):
        for policy in bench.policies:
            ideal = ideals["full"] / ideals[policy]
            target = gain_target(ideal) if bench.has_targets and policy != "full" else None
            row = Row(f"{policy}/{kind}", seconds["full"] / seconds[policy], "x", target)
            verdicts += [] if row.is_met is None else [row.is_met]
            yield Row(f"{policy}/{kind}, ideal", ideal, "x")
            yield row
    if verdicts:
        yield Row("all/targets met", 100 * sum(verdicts) / len(verdicts), "%")


def _policy_times(bench: Bench) -> Iterator[tuple[str, Pair]]:
    """Yield one kind of work after the other."""
    for batch in sorted({min(bench.amount.batches), bench.most}):
        lines = {policy: [bench.plan(policy)] * batch for policy in bench.policies}
        yield f"decode at {batch}", (_step_seconds(bench, lines), _step_ideals(bench, lines))
    yield f"requests at {bench.most}", (_request_seconds(bench), _request_ideals(bench))


def measure_mixes(bench: Bench) -> Rows:
    """Time a quarter of the sequences under each of four policies, and parallel blocks."""
    plans = {policy: bench.plan(policy) for policy in FOUR_POLICIES}
    for batch in sorted({bench.amount.static_batch, bench.most}):
        lines = {policy: [plan] * batch for policy, plan in plans.items()}
        lines[MIXED] = list(plans.values()) * (batch // len(plans))
        seconds, ideals = _step_seconds(bench, lines), _step_ideals(bench, lines)
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
    medians = median_in_turns(measures, _num_turns(bench))
    name = f"requests at {bench.most}"
    for line, taken in medians.items():
        yield Row(f"{name}/{line}", bench.most / taken, "requests/s")
    parts = sum(medians[policy] for policy in plans) / len(plans)
    yield Row(f"{name}/mix against the mean of its parts", 100 * parts / medians[MIXED], "%")


def _parallel(bench: Bench) -> Rows:
    """Compare steps with attention and FFN of all blocks in parallel with serial ones."""
    for batch in sorted({min(bench.amount.batches), bench.most}):
        plans = {"serial": bench.plan("full"), **bench.parallel_plans}
        seconds = _step_seconds(bench, {name: [plan] * batch for name, plan in plans.items()})
        for name in bench.parallel_plans:
            gain = seconds["serial"] / seconds[name]
            yield Row(f"parallel blocks, decode at {batch}/{name}", gain, "x")


def _step_seconds(bench: Bench, lines: Mapping[str, Sequence[Plan]]) -> dict[str, float]:
    """Return what a decode step of each line of sequences takes; they take turns."""

    def measure(plans: Sequence[Plan]) -> float:
        with bench.steps(plans, bench.amount.context) as steps:
            work = {"step": partial(bench.runner.launch, steps.decode)}
            return launch_seconds(work, bench.device, 1, bench.amount.num_launches)["step"]

    measures = {name: partial(measure, plans) for name, plans in lines.items()}
    return median_in_turns(measures, bench.amount.repeats)


def _step_ideals(bench: Bench, lines: Mapping[str, Sequence[Plan]]) -> dict[str, float]:
    context = bench.amount.context
    return {name: bench.roofline.decode_seconds(plans, context) for name, plans in lines.items()}


def _request_seconds(bench: Bench) -> dict[str, float]:
    """Return what a set of requests under each policy takes; the policies take turns."""
    source, ours = QuestionSource(bench.config, seed=7), OurEngine(bench.engine, bench.most)
    time_set(ours, bench.questions(bench.most, source))
    seconds: dict[str, list[float]] = {policy: [] for policy in bench.policies}
    for _ in range(_num_turns(bench)):
        for policy, times in seconds.items():
            questions = bench.questions(bench.most, source, policy)
            times.append(time_set(ours, questions).seconds)
    return {policy: median(times) for policy, times in seconds.items()}


def _num_turns(bench: Bench) -> int:
    return max(1, bench.amount.repeats // 2)


def _request_ideals(bench: Bench) -> dict[str, float]:
    classes = bench.questions(1, QuestionSource(bench.config, seed=7))[0].token_classes
    num_new_tokens = bench.amount.num_new_tokens
    return {
        policy: bench.roofline.request_seconds(
            bench.plan(policy), classes, num_new_tokens, bench.most
        )
        for policy in bench.policies
    }
