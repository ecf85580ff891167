"""Questions about whole pictures, the same for every model."""

from pathlib import Path

import pytest

from skipserve_client.evaluate.easy_vqa import read_easy_vqa
from skipserve_training.paper.asking import draw_questions

pytestmark = pytest.mark.fast


def test_pictures_are_whole_and_fewer_begin_more(easy_folder: Path) -> None:
    test = read_easy_vqa(easy_folder, "test")  # three pictures, six questions about each
    few, many = draw_questions(test, 7), draw_questions(test, 18)
    assert len(few) == 12
    assert few == many[:12]
    assert len(many) == len(test.questions)
    assert [each.picture for each in many[:6]] == [many[0].picture] * 6
    places = {image: place for place, image in enumerate(sorted(test.images))}
    assert all(places[each.question.image] == each.picture for each in many)


def test_there_may_be_fewer_than_asked_for(easy_folder: Path) -> None:
    test = read_easy_vqa(easy_folder, "test")
    assert len(draw_questions(test, 1000)) == 18
