"""The rates of the paper's recipe."""

import pytest

from skipserve_training.mapping.recipe import MappingRecipe

pytestmark = pytest.mark.fast


def test_the_rate_warms_up_and_follows_a_cosine() -> None:
    recipe = MappingRecipe(steps=300, warmup=100)
    assert recipe.rate_at(0) == pytest.approx(1e-4)
    assert recipe.rate_at(50) == pytest.approx(1.5e-4)
    assert recipe.rate_at(100) == pytest.approx(2e-4)
    assert recipe.rate_at(200) == pytest.approx((2e-4 + 1e-5) / 2)
    assert recipe.rate_at(300) == pytest.approx(1e-5)
