"""The metrics by the names that records hold."""

from skipserve_client.evaluate.metrics.captions import CiderMetric
from skipserve_client.evaluate.metrics.circular import CircularMetric
from skipserve_client.evaluate.metrics.means import EXACT, GQA, LETTER, TEXT_VQA, VQA
from skipserve_client.evaluate.metrics.metric import Metric
from skipserve_client.evaluate.metrics.mme import MmeMetric
from skipserve_client.evaluate.metrics.yes_no import PopeMetric

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        EXACT,
        VQA,
        TEXT_VQA,
        GQA,
        LETTER,
        PopeMetric(),
        MmeMetric(),
        CircularMetric(),
        CiderMetric(),
    )
}
