"""Checkpoints that are LLaVA 1.5 but for decoder, tower and template, from folder to answer."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from live_server import LiveServer
from pictures import data_uri, encode, question, random_picture
from tiny_llava import DecoderType, TowerType, make_checkpoint
from transformers import AutoProcessor, LlavaForConditionalGeneration

from skipserve import LLaVA
from skipserve.errors import InvalidRequestError
from skipserve.settings import Settings

CHAT = "/v1/chat/completions"
STEPS = 8
QUESTION = "What is this?"
SYSTEM = "You caption pictures."
PICTURE = random_picture(40, 30)

# Its content is one text, and it says itself where the picture comes: at the head of user's turns.
CAPTION_TEMPLATE = """
{%- if messages[0]['role'] == 'system' %}
    {%- set brief = messages[0]['content'] %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set brief = "" %}
{%- endif %}
{{- bos_token + "[system]\n\n" + brief + "</s>" }}
{%- for message in messages %}
    {%- if message['role'] == 'user' %}
        {{- '[user]\n\n(<image>)' + message['content'].replace('<image>', '').lstrip() + '</s>' }}
    {%- else %}
        {{- '[' + message['role'] + ']\n\n' + message['content'] + '</s>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '[assistant]\n\n' }}
{%- endif %}
"""


@pytest.fixture(scope="module")
def captioner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As JoyCaption: LLaMA 3 behind SigLIP, whose patches do not fill the picture."""
    rope = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    folder = make_checkpoint(
        tmp_path_factory.mktemp("models") / "captioner",
        tower=TowerType.SIGLIP,
        select_strategy="full",
        image_size=30,
        num_layers=32,
        num_kv_heads=2,
        text_config=(
            ("rope_theta", 500000.0),
            ("rope_scaling", rope | {"original_max_position_embeddings": 128}),
        ),
    )
    (folder / "chat_template.jinja").write_text(CAPTION_TEMPLATE)
    newer = json.loads((folder / "processor_config.json").read_text())
    older = newer.pop("image_processor")
    (folder / "preprocessor_config.json").write_text(json.dumps(older))
    # Where it is left out, a tower without a class token adds none.
    del newer["num_additional_image_tokens"]
    (folder / "processor_config.json").write_text(json.dumps(newer))
    return folder


@pytest.fixture(scope="module")
def windowed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As bakLlava: Mistral behind CLIP, with a window that is shorter than the context."""
    return make_checkpoint(
        tmp_path_factory.mktemp("models") / "windowed",
        decoder=DecoderType.MISTRAL,
        num_layers=6,
        num_kv_heads=2,
        max_positions=32768,
        text_config=(("sliding_window", 64), ("head_dim", None), ("rope_theta", None)),
    )


def transformers_answer(
    folder: Path, messages: list[dict[str, Any]], max_tokens: int
) -> tuple[list[int], str]:
    """Return the tokens of the greedy answer to messages about the picture, and their text."""
    processor = AutoProcessor.from_pretrained(folder, backend="pil")
    model: Any = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    text = processor.apply_chat_template(messages, add_generation_prompt=True)
    has_bos = text.startswith("<s>")
    inputs = processor(
        text=text, images=[PICTURE], return_tensors="pt", add_special_tokens=not has_bos
    )
    generated = model.generate(**inputs, max_new_tokens=max_tokens, do_sample=False)
    tokens = generated[0, inputs["input_ids"].shape[1] :].tolist()
    return tokens, processor.decode(tokens, skip_special_tokens=True)


def test_a_captioner_answers_over_http_as_in_transformers(captioner: Path) -> None:
    system = {"role": "system", "content": SYSTEM}
    user = question(QUESTION, data_uri(encode(PICTURE)))["messages"]
    body = {"messages": [system, *user], "max_tokens": STEPS, "temperature": 0}
    freeze = body | {"skip_policy": "visual-freeze-from-16"}
    settings = Settings(model=str(captioner), num_threads=1)
    with LiveServer(settings) as server, server.client() as client:
        reply, frozen = (client.post(CHAT, json=it).json() for it in (body, freeze))
    messages = [system, {"role": "user", "content": QUESTION}]
    _, expected = transformers_answer(captioner, messages, STEPS)
    assert reply["choices"][0]["message"]["content"] == expected
    assert reply["usage"]["prompt_tokens_details"]["multimodal_tokens"] == 16
    assert frozen["metrics"]["skip"]["policy"] == "visual-freeze-from-16"
    assert frozen["metrics"]["skip"]["saved_ratio"] > 0


def test_a_model_with_a_window_answers_as_in_transformers_up_to_its_end(windowed: Path) -> None:
    llava = LLaVA(windowed, num_threads=1)
    (one,) = llava.generate([(PICTURE, QUESTION)], max_tokens=1)
    most = 64 - one.num_prompt_tokens
    (answer,) = llava.generate([(PICTURE, QUESTION)], max_tokens=most)
    parts = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    expected, _ = transformers_answer(windowed, [{"role": "user", "content": parts}], most)
    assert len(expected) == most
    assert list(answer.token_ids) == expected
    (clipped,) = llava.generate([(PICTURE, QUESTION)], max_tokens=most + 1)
    assert (list(clipped.token_ids), clipped.finish_reason) == (expected, "length")
    with pytest.raises(InvalidRequestError, match="the model's context is 64"):
        llava.generate([(PICTURE, QUESTION * 3)])
