"""How reports look in a terminal. Prints nothing itself."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby

from rich import box
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from skipserve_client.replies import Answer, ChosenBecause, PolicyInfo, SavedFor
from skipserve_policies.cost import PolicyCost
from skipserve_policies.schema import Quality

# The finish reason of an answer that was cut at its limit of tokens.
CUT = "length"

_PREFIXES = ("", "K", "M", "G", "T", "P", "E")


def format_flops(flops: float) -> str:
    """Return a count of FLOPs with three digits and a prefix: 8465900000000 is "8.47 T"."""
    power = 0
    while flops >= 999.5 and power < len(_PREFIXES) - 1:
        flops /= 1000
        power += 1
    return f"{flops:.3g} {_PREFIXES[power]}".rstrip()


def format_share(ratio: float) -> str:
    """Return a ratio in percent, with the digits that show it is not 0."""
    percent = 100 * ratio
    digits = 2 if 0 < abs(percent) < 10 else 1
    return f"{percent:.{digits}f} %"


def format_layers(layers: Mapping[str, Iterable[int]]) -> str:
    """Return the layers of each action: "skip_ffn 2; skip_block 24-31"."""
    return "; ".join(f"{action} {_format_runs(indexes)}" for action, indexes in layers.items())


def _format_runs(indexes: Iterable[int]) -> str:
    return ", ".join(
        str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in _runs(indexes)
    )


def _runs(indexes: Iterable[int]) -> Iterator[list[int]]:
    """Cut ascending numbers into runs of consecutive ones."""
    for _, run in groupby(enumerate(indexes), key=lambda pair: pair[1] - pair[0]):
        yield [number for _, number in run]


def answer_table(answer: Answer, total_seconds: float, first_token_seconds: float) -> Table:
    """Return the report of one answer; the times are those that the user saw."""
    skip, num_tokens = answer.skip, answer.usage.completion_tokens
    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    rows = {
        "policy": skip.policy,
        "chosen": _format_choice(skip.chosen_because),
        "layers touched": format_layers(skip.layers) or "none",
        "rows of a picture": skip.image_rows and f"{skip.image_rows.kept} of {skip.image_rows.of}",
        "FLOPs planned": format_flops(skip.planned_flops),
        "FLOPs of full": format_flops(skip.full_flops),
        "saved": f"{format_share(skip.saved_ratio)} of what full computes for this request",
        "cached": _format_cached(answer),
        "first token": f"{1000 * first_token_seconds:.0f} ms",
        "end": _format_end(answer),
        "tokens/s": f"{num_tokens / total_seconds:.1f} ({num_tokens} in {total_seconds:.2f} s)",
    }
    for name, value in rows.items():
        if value:
            table.add_row(name, Text(value))
    return table


def _format_choice(because: ChosenBecause | None) -> str:
    """Say why the server chose the policy; nothing where it was named."""
    if because is None:
        return ""
    if because.quality is None:
        return f"by the server: {because.reason}"
    kept = f"keeps at least {format_share(because.quality)} of full, as measured"
    return f"by the server: {because.reason}, {kept}"


def _format_cached(answer: Answer) -> str:
    """Say which part of the prompt neither count of FLOPs holds."""
    usage = answer.usage
    if not usage.cached_tokens:
        return ""
    return f"{usage.cached_tokens} of {usage.prompt_tokens} prompt tokens, in neither count"


def _format_end(answer: Answer) -> str:
    """Say why an answer ends where it does, if its text may go on."""
    if answer.finish_reason != CUT:
        return ""
    num_tokens = answer.usage.completion_tokens
    return f"cut after {num_tokens} tokens, the most that may come: see --max-tokens"


def policies_table(policies: Iterable[PolicyInfo]) -> Table:
    """Return the catalog: a policy's name, and dimly below it what it touches and its quality."""
    listed = tuple(policies)
    shape = next((policy.saved_for for policy in listed), None)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=_caption(shape))
    table.caption_justify = "left"
    table.add_column("policy", overflow="fold")
    table.add_column("FLOPs saved", justify="right", no_wrap=True)
    for policy in listed:
        layers = format_layers(policy.layers)
        details = [f"{layers} ({policy.scope})" if policy.scope else layers]
        details += map(_format_quality, policy.quality)
        details += ["added at run time"] if policy.added else []
        details += ["runs where a request names none"] if policy.default else []
        # Below the name and further in, at any width.
        lines = [Padding(Text(line, "dim"), (0, 0, 0, 2)) for line in details if line]
        table.add_row(Group(Text(policy.name), *lines), format_share(policy.saved_ratio))
    return table


def _caption(shape: SavedFor | None) -> str | None:
    """Say what a saving is relative to."""
    if shape is None:
        return None
    scored = f", {shape.scored_tokens} of them scored" if shape.scored_tokens else ""
    return (
        "FLOPs saved: the share of what the full model computes for a prompt of "
        f"{shape.prompt} tokens (text+picture+...), of which {shape.cached_tokens or 'none'} "
        f"are cached{scored}, and {shape.generated_tokens} generated. Other requests save other "
        "shares."
    )


def _format_quality(quality: Quality) -> str:
    full = f" of {quality.full:g}" if quality.full is not None else ""
    size = f", n = {quality.n}" if quality.n is not None else ""
    has_interval = quality.low is not None and quality.high is not None
    interval = f", 95 % interval {quality.low:g}-{quality.high:g}" if has_interval else ""
    about = f"{quality.metric}, {quality.model}{size}{interval}"
    return f"{quality.dataset}: {quality.value:g}{full} ({about})"


def flops_table(cost: PolicyCost, shape: SavedFor) -> Table:
    """Return what a request costs under a policy beside the full model, part by part."""
    policy, full = cost.policy.exact.trimmed, cost.full.exact.trimmed
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption=_caption(shape))
    table.caption_justify = "left"
    table.add_column("FLOPs")
    for title in ("policy", "full", "saved"):
        table.add_column(title, justify="right", no_wrap=True)
    for part in ("vision", "projector", "prefill", "decode", "head", "total"):
        ours, theirs = getattr(policy, part), getattr(full, part)
        saved = format_share(1 - ours / theirs) if theirs else ""
        table.add_row(
            part, format_flops(ours), format_flops(theirs), saved, end_section=part == "head"
        )
    return table
