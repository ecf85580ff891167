"""Numbers and layers as a reader wants them."""

from io import StringIO

import pytest
from rich.console import Console

from skipserve_client.replies import Answer
from skipserve_client.tables import answer_table, format_flops, format_layers, format_share

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("flops", "shown"),
    [
        (0, "0"),
        (999, "999"),
        (999.9, "1 K"),
        (12345, "12.3 K"),
        (8465900000000, "8.47 T"),
        (9.996e11, "1 T"),
        (5e21, "5e+03 E"),
    ],
)
def test_flops_have_three_digits(flops: float, shown: str) -> None:
    assert format_flops(flops) == shown


@pytest.mark.parametrize(
    ("ratio", "shown"),
    [(0.0, "0.0 %"), (0.0022, "0.22 %"), (0.4433, "44.3 %"), (-0.01, "-1.00 %"), (1.0, "100.0 %")],
)
def test_shares_show_that_they_are_not_zero(ratio: float, shown: str) -> None:
    assert format_share(ratio) == shown


def test_consecutive_layers_are_a_range() -> None:
    layers = {"skip_ffn": [2], "skip_block": [0, 3, 4, 5, 7, 24, 25]}
    assert format_layers(layers) == "skip_ffn 2; skip_block 0, 3-5, 7, 24-25"
    assert format_layers({}) == ""


def test_a_choice_of_the_server_is_told() -> None:
    skip = {"policy": "exit-after-24", "digest": "d", "layers": {}, "saved_ratio": 0.2}
    skip |= {"planned_flops": 8, "full_flops": 10, "requested": "auto"}

    def told(**because: object) -> str:
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        times = dict.fromkeys(
            ("queue_seconds", "time_to_first_token_seconds", "inter_token_latency_seconds"), 0.1
        )
        metrics = {**times, "duration_seconds": 1, "skip": skip | {"chosen_because": because}}
        choices = [{"message": {"content": "2"}, "finish_reason": "stop"}]
        reply = {"id": "a", "model": "m", "choices": choices, "usage": usage, "metrics": metrics}
        console = Console(width=200, file=StringIO())
        console.print(answer_table(Answer.model_validate(reply), 1.0, 0.1))
        file = console.file
        assert isinstance(file, StringIO)
        return file.getvalue()

    kept = told(reason="cheapest", quality=0.9807)
    assert "by the server: cheapest, keeps at least 98.1 % of full, as measured" in kept
    assert (
        "by the server: unmeasured\n"
        in "\n".join(map(str.rstrip, told(reason="unmeasured").splitlines())) + "\n"
    )
