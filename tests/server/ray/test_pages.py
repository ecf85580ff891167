"""The metrics of several replicas on one page."""

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from skipserve.ray.pages import Pages, pack_page

pytestmark = pytest.mark.fast


def _page(amount: int) -> bytes:
    registry = CollectorRegistry()
    Counter("asked", "Requests.", ["policy"], registry=registry).labels("full").inc(amount)
    Gauge("size", "Bytes.", registry=registry).set(amount / 2)
    Histogram("time", "Seconds.", buckets=(1, 5), registry=registry).observe(amount)
    return pack_page(registry)


def test_each_series_says_whose_it_is() -> None:
    text = generate_latest(Pages({"one": _page(3), "two": _page(7)})).decode()
    assert text.count("# TYPE asked_total counter") == 1
    found = {
        (sample.name, sample.labels["instance"], sample.labels.get("le", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found["asked_total", "one", ""] == 3
    assert found["asked_total", "two", ""] == 7
    assert found["size", "two", ""] == 3.5
    assert found["time_bucket", "one", "5.0"] == 1
    assert found["time_bucket", "two", "5.0"] == 0
    assert found["time_bucket", "two", "+Inf"] == 1
    assert 'asked_total{instance="one",policy="full"} 3.0' in text


def test_a_lone_page_is_what_its_registry_shows() -> None:
    registry = CollectorRegistry()
    Gauge("size", "Bytes\nof it.", registry=registry).set(3)
    text = generate_latest(Pages({"one": pack_page(registry)})).decode()
    expected = generate_latest(registry).decode().replace("size 3.0", 'size{instance="one"} 3.0')
    assert text == expected


def test_whoever_shows_them_says_whether_an_engine_is_up() -> None:
    registry = CollectorRegistry()
    Gauge("skipserve_engine_up", "Up.", registry=registry).set(1)
    pages = {"ingress": pack_page(registry), "engine": pack_page(registry)}
    lines = generate_latest(Pages(pages, "ingress")).decode().splitlines()
    assert [line for line in lines if not line.startswith("#")] == [
        'skipserve_engine_up{instance="ingress"} 1.0',
        "skipserve_engine_up 1.0",
        'skipserve_engine_up{instance="engine"} 1.0',
    ]


def test_no_pages() -> None:
    assert generate_latest(Pages({})) == b""
