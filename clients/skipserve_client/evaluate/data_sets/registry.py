"""The published data sets by name."""

from skipserve_client.evaluate.data_sets.coco_captions import COCO_CAPTIONS, COCO_KARPATHY
from skipserve_client.evaluate.data_sets.data_set import DataSet
from skipserve_client.evaluate.data_sets.gqa import GQA
from skipserve_client.evaluate.data_sets.mm_bench import MM_BENCH
from skipserve_client.evaluate.data_sets.mme import MME
from skipserve_client.evaluate.data_sets.pope import POPE
from skipserve_client.evaluate.data_sets.science_qa import SCIENCE_QA
from skipserve_client.evaluate.data_sets.text_vqa import TEXT_VQA, TEXT_VQA_OCR
from skipserve_client.evaluate.data_sets.vqa import OK_VQA, VQA_V2

DATA_SETS: dict[str, DataSet] = {
    data_set.name: data_set
    for data_set in (
        VQA_V2,
        OK_VQA,
        GQA,
        TEXT_VQA,
        TEXT_VQA_OCR,
        POPE,
        SCIENCE_QA,
        MME,
        MM_BENCH,
        COCO_CAPTIONS,
        COCO_KARPATHY,
    )
}
