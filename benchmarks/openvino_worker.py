"""Answers questions with OpenVINO GenAI, in its own environment: JSON lines in, JSON lines out.

Runs under a Python that has openvino-genai; imports nothing of ours.
"""

import base64
import json
import sys
import time
from typing import Any

import numpy as np
import openvino  # type: ignore[import-not-found]
import openvino_genai  # type: ignore[import-not-found]


def main() -> None:
    """Load the model that the command line names, then answer each line with a line."""
    folder, threads = sys.argv[1], int(sys.argv[2])
    pipeline = _load(folder, threads)
    _say({"version": openvino_genai.__version__})
    for line in sys.stdin:
        order = json.loads(line)
        answers = _answer(pipeline, order["questions"], order["concurrency"])
        _say({"answers": answers, "cpu_seconds": time.process_time()})


def _say(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)  # noqa: T201 (it is the channel)


def _load(folder: str, threads: int) -> Any:
    """Load a pipeline with its defaults, but for the threads and prefixes, which are reused."""
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.cache_size = 2  # GB
    scheduler.enable_prefix_caching = True
    properties = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    return openvino_genai.ContinuousBatchingPipeline(folder, scheduler, "CPU", properties)


def _answer(pipeline: Any, questions: list[dict[str, Any]], concurrency: int) -> list[list[int]]:
    """Return the token ids of each answer; the next question starts when one ends.

    Args:
        pipeline: what `_load` returned.
        questions: each with prompt (text), num_prompt (its tokens), num_new_tokens, pixels (uint8
            [size, size, 3] in base 64) and size.
        concurrency: so many are under way at a time.
    """
    under_way: dict[int, Any] = {}
    answers: dict[int, list[int]] = {}
    waiting = list(enumerate(questions))[::-1]
    while waiting or under_way:
        while waiting and len(under_way) < concurrency:
            number, question = waiting.pop()
            under_way[number] = _add(pipeline, number, question)
        pipeline.step()
        ended = [n for n, handle in under_way.items() if "FINISHED" in str(handle.get_status())]
        for number in ended:
            handle = under_way.pop(number)
            num_prompt = handle.get_vlm_perf_metrics().get_num_input_tokens()
            assert num_prompt == questions[number]["num_prompt"], num_prompt
            answers[number] = list(handle.read_all()[0].generated_ids)
    return [answers[number] for number in range(len(questions))]


def _add(pipeline: Any, number: int, question: dict[str, Any]) -> Any:
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens = question["num_new_tokens"]
    config.ignore_eos = True
    config.do_sample = False
    config.apply_chat_template = False
    size = question["size"]
    pixels = np.frombuffer(base64.b64decode(question["pixels"]), dtype=np.uint8)
    image = openvino.Tensor(pixels.reshape(1, size, size, 3))
    return pipeline.add_request(number, question["prompt"], [image], config)


if __name__ == "__main__":
    main()
