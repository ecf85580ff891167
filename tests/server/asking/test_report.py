"""What is counted of a request's work: no row and no picture that was there already."""

import pytest
from fake_decoder import CONFIG, NUM_LAYERS, make_request

from skipserve.asking.report import Reporter
from skipserve_policies import flops
from skipserve_policies.catalog import load_catalog
from skipserve_policies.resolve import resolve

pytestmark = pytest.mark.fast

FULL = resolve("full", load_catalog()["full"], NUM_LAYERS)


def test_several_answers_are_counted_each() -> None:
    request, reporter = make_request(num_text=3, num_images=2), Reporter(CONFIG.sizes)
    first, second = (reporter.report(request, FULL, *it) for it in ((3, 0), (2, 8)))
    both = reporter.report(request, FULL, 3, 0, (2, 8))
    assert both.planned_flops == first.planned_flops + second.planned_flops
    assert both.full_flops == first.full_flops + second.full_flops
    assert (both.saved_for, both.further_answers) == (first.saved_for, (second.saved_for,))
    assert "further_answers" not in first.model_dump()


@pytest.mark.parametrize(
    ("num_cached", "num_images"), [(0, 2), (3, 2), (6, 2), (7, 1), (10, 1), (11, 0), (12, 0)]
)
def test_pictures_whose_rows_are_all_cached_are_not_counted(
    num_cached: int, num_images: int
) -> None:
    """3 text rows, 4 of a picture, 4 of another, 2 text rows."""
    request = make_request(num_text=3, num_images=2)
    report = Reporter(CONFIG.sizes).report(request, FULL, 0, num_cached)
    shape = flops.Request(request.token_classes, 0, num_cached, num_images)
    assert report.planned_flops == flops.request_flops(CONFIG.sizes, FULL.plan, shape).total
    assert report.planned_flops == report.full_flops
