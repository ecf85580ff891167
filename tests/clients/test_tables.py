"""Numbers and layers as a reader wants them."""

import pytest

from skipserve_client.tables import format_flops, format_layers, format_share

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
