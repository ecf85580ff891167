"""What is asked for, and what is refused of it."""

import pytest

from skipserve_training.compression.recipe import (
    CompressionRecipe,
    Group,
    Method,
    Part,
    Share,
    read_pattern,
)

pytestmark = pytest.mark.fast


def test_patterns_are_read_as_they_are_written() -> None:
    assert read_pattern("2:4") == Group(2, 4)
    assert str(read_pattern("4:8")) == "4:8"
    assert str(Share(0.5)) == "0.5"


@pytest.mark.parametrize("text", ["2", "2:", ":4", "4:4", "0:4", "5:4", "-2:4", "2:4:8", "a:b"])
def test_other_patterns_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected N:M with 0 < N < M, as 2:4\."):
        read_pattern(text)


@pytest.mark.parametrize("sparsity", [0.0, 1.0, -0.1, 50.0, float("nan")])
def test_what_is_no_share_is_refused(sparsity: float) -> None:
    with pytest.raises(ValueError, match="expected a share between 0 and 1"):
        Share(sparsity)


def test_a_pattern_comes_with_all_methods_but_the_file() -> None:
    for method in Method:
        if method is Method.MASK:
            CompressionRecipe(method, None)
            with pytest.raises(ValueError, match="'mask' zeroes is told by its file"):
                CompressionRecipe(method, Share(0.5))
        else:
            CompressionRecipe(method, Share(0.5))
            with pytest.raises(ValueError, match=f"'{method}' zeroes needs one"):
                CompressionRecipe(method, None)


def test_a_part_is_one_half_or_both() -> None:
    assert Part.ALL.halves == (True, False)
    assert set(Part.FFN.halves + Part.ATTENTION.halves) == {True, False}
