"""OpenVINO GenAI is asked questions of the same shape: its tokenizer and its prompts."""

import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import pytest
from openvino_peer import OpenVino, byte_tokenizer, prompt_text, write_processor
from questions import QuestionSource
from timing import time_set
from transformers import AutoTokenizer

from skipserve.model.config import ModelConfig

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("image_token_id", [3, 100, 319])
def test_each_byte_is_a_token_of_the_model(image_token_id: int) -> None:
    tokenizer = byte_tokenizer(320, image_token_id)
    assert tokenizer.get_vocab_size() == 320
    ids = tokenizer.encode("<image>\nabc").ids
    assert len(ids) == 5
    assert ids[0] == image_token_id


def test_a_prompt_has_the_questions_text_less_what_the_pipeline_adds(deep_model: Path) -> None:
    config = ModelConfig.from_folder(deep_model)
    source = QuestionSource(config, seed=0)
    texts = {prompt_text(source.question(20, 1)) for _ in range(2)}
    assert all(text.startswith("<image>\n") for text in texts)
    assert {len(text.removeprefix("<image>\n")) for text in texts} == {18}
    assert len(texts) == 2


FAKE_WORKER = """
import json, sys
print(json.dumps({"version": "7"}), flush=True)
for line in sys.stdin:
    order = json.loads(line)
    lengths = [question["num_new_tokens"] for question in order["questions"]]
    if lengths == [1]:
        break
    answers = [[order["concurrency"]] * length for length in lengths]
    print(json.dumps({"answers": answers, "cpu_seconds": 2.5}), flush=True)
"""


def test_a_worker_is_asked_line_by_line(deep_model: Path) -> None:
    source = QuestionSource(ModelConfig.from_folder(deep_model), seed=0)
    command = [sys.executable, "-c", FAKE_WORKER]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True) as worker:
        peer = OpenVino(worker, concurrency=3)
        assert peer.version == "7"
        assert peer.cpu_seconds() == 2.5
        timed = time_set(peer, [source.question(20, length) for length in (2, 3)])
        assert [answer.token_ids for answer in timed.answers] == [(3, 3), (3, 3, 3)]
        with pytest.raises(RuntimeError, match="has ended"):
            time_set(peer, [source.question(20, 1)])


def test_transformers_reads_the_tokenizer(deep_model: Path, tmp_path: Path) -> None:
    write_processor(ModelConfig.from_folder(deep_model), tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert len(tokenizer("abc")["input_ids"]) == 3
