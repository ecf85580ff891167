"""How a metric is declared: where its name and its unit come from."""

import pytest
from prometheus_client import Counter, Gauge, Histogram

from skipserve.metrics.metric import Metric, Table, declared

pytestmark = pytest.mark.fast


class Kitchen(Table):
    PREFIX = "kitchen_"

    meals = Metric(Counter, "Meals served.", "None: closed.")
    wait_seconds = Metric(Histogram, "Wait for a meal.", "Hire a cook.", buckets=(1.0, 60.0))
    hungry = Metric(Gauge, "Guests who wait.", "Hire a waiter.", unit="guests")


def test_a_metric_is_called_as_its_attribute_is() -> None:
    names = [metric.name for metric in declared(Kitchen)]
    assert names == ["kitchen_meals_total", "kitchen_wait_seconds", "kitchen_hungry"]


def test_the_unit_is_the_last_word_of_the_name_unless_given() -> None:
    assert [metric.unit for metric in declared(Kitchen)] == ["meals", "seconds", "guests"]
