"""The page: whole in itself, escaped, bounded, and right about what changed."""

import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from scripted_server import ScriptedServer
from typer.testing import CliRunner

from skipserve_client.cli import app
from skipserve_client.evaluate import page
from skipserve_client.evaluate.page import changed_questions, page_of
from skipserve_client.evaluate.records import Conditions, Record
from skipserve_client.evaluate.results import Evaluation
from skipserve_client.evaluate.sample import Sample

pytestmark = pytest.mark.fast

CONDITIONS = Conditions(
    data="riddles",
    model="<b>sphinx</b>",
    model_digest="w",
    dtype=None,
    device="cpu",
    max_tokens=8,
    concurrency=1,
)


def records(policy: str, answers: Sequence[str], **changes: Any) -> list[Record]:
    """Return answers to questions whose right answer is yes."""
    fields: dict[str, Any] = {
        **CONDITIONS.model_dump(),
        "policy": policy,
        "policy_digest": policy,
        "id": None,
        "type": "all",
        "question_digest": "d",
        "expected": ("yes",),
        "correct": True,
        "finish_reason": "stop",
        "prompt_tokens": 40,
        "cached_tokens": 0,
        "completion_tokens": 2,
        "planned_flops": 10,
        "full_flops": 20,
        "latency_seconds": 0.03,
        "first_token_seconds": 0.02,
    }
    return [
        Record.model_validate(
            fields | changes | {"index": n, "question": f"question {n} <i>?", "answer": answer}
        )
        for n, answer in enumerate(answers)
    ]


def evaluation(full: Sequence[str], half: Sequence[str], **changes: Any) -> Evaluation:
    samples = tuple(
        Sample(n, Image.new("RGB", (600, 300)), "?", ("yes",), "all", "?") for n in range(len(full))
    )
    found = {"full": records("full", full, **changes), "half": records("half", half, **changes)}
    return Evaluation(CONDITIONS, found, {}, {}, samples)


class Elements(HTMLParser):
    """Collects what a page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset")]


def test_losses_come_first_and_equal_answers_not_at_all() -> None:
    found = evaluation(["yes", "yes", "no", "no"], ["Yes.", "no", "maybe", "yes"])
    kinds = [(it.full.index, it.changes[0].kind) for it in changed_questions(found)]
    assert kinds == [(1, page.LOST), (3, page.WON), (2, page.CHANGED)]


def test_captions_are_neither_right_nor_wrong() -> None:
    found = evaluation(["a bus", "a dog"], ["a bus", "a cat"], metric="cider")
    (changed,) = changed_questions(found)
    assert [change.kind for change in changed.changes] == [page.CHANGED]


def test_it_asks_nothing_of_other_hosts_and_runs_nothing() -> None:
    text = page_of(evaluation(["yes", "no"], ["no", "no"]))
    elements = Elements()
    elements.feed(text)
    assert elements.links
    assert all(link.startswith("data:image/") for link in elements.links)
    assert "script" not in elements.tags
    assert "default-src 'none'; img-src data:" in text
    assert not re.search(r"url\(|@import|http-equiv=.refresh", text)


def test_what_models_and_data_say_is_escaped() -> None:
    text = page_of(evaluation(["yes"], ["<script>alert(1)</script>"]))
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "&lt;b&gt;sphinx" in text
    assert "question 0 &lt;i&gt;?" in text


def test_pictures_are_small_and_questions_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "MOST_QUESTIONS", 3)
    text = page_of(evaluation(["yes"] * 5, ["no"] * 5))
    assert text.count('class="card"') == text.count("data:image/jpeg") == 3
    assert "3 of 5 questions" in text


def test_without_pictures_the_answers_are_there() -> None:
    found = evaluation(["yes"], ["no"])
    bare = Evaluation(found.conditions, found.records, {})
    text = page_of(bare)
    assert "data:image/jpeg" not in text
    assert "half: no (became wrong)" in text


def test_without_full_nothing_has_changed() -> None:
    found = Evaluation(CONDITIONS, {"half": records("half", ["no"])}, {})
    assert changed_questions(found) == []
    assert "None." in page_of(found)


def test_the_command_writes_it(knowing: ScriptedServer, riddles: Path, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    arguments = ["evaluate", "--url", knowing.url, "--data", str(riddles)]
    flags = ["--policies", "full,half", "--page", str(file)]
    assert CliRunner().invoke(app, [*arguments, *flags], prog_name="skipserve").exit_code == 0
    text = file.read_text()
    assert text.count('class="card"') == text.count("data:image/jpeg") == 5
    assert "25.0 %" in text
