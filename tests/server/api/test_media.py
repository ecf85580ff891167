"""Sounds and videos over HTTP: whole servers, whose answers are those of the training's forward."""

import base64
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch
from live_server import LiveServer
from media_models import (
    AST,
    TIMESFORMER,
    film,
    make_media_model,
    media_uri,
    noise,
    video_file,
    wav_file,
)

from skipserve.media.wav import open_wav
from skipserve.settings import Settings
from skipserve_client import SkipserveClient
from skipserve_training.mapping.export import CHAT_TEMPLATE
from skipserve_training.mapping.lessons import Media, PromptForm, Sound
from skipserve_training.mapping.packing import Example, pack
from skipserve_training.mapping.served import open_model
from skipserve_training.mapping.training import embed

CHAT = "/v1/chat/completions"
SOUND = wav_file(noise(4000))
VIDEO = video_file(film(11))
GIF = video_file(film(9), "GIF")
PNG = video_file(film(1), "PNG")


class Sounds(BaseHTTPRequestHandler):
    """A host of one sound, which asks whether that is what is wanted."""

    def do_GET(self) -> None:
        is_wanted = "audio/wav" in self.headers["Accept"]
        self.send_response(200 if is_wanted else 406)
        self.end_headers()
        self.wfile.write(SOUND)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Sounds) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def _serve(folder: Path, kind: str, *hosts: str) -> Iterator[httpx.Client]:
    make_media_model(folder, kind, max_positions=256)
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    settings = Settings(
        model=str(folder), dtype="float32", num_threads=1, max_images=2, max_image_bytes=300_000,
        media_hosts=hosts,
    )  # fmt: skip
    with LiveServer(settings) as server, server.client() as client:
        yield client


@pytest.fixture(scope="module")
def hearing_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hearing") / "model"


@pytest.fixture(scope="module")
def hearing(hearing_folder: Path, host: str) -> Iterator[httpx.Client]:
    yield from _serve(hearing_folder, AST, host)


@pytest.fixture(scope="module")
def watching_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("watching") / "model"


@pytest.fixture(scope="module")
def watching(watching_folder: Path) -> Iterator[httpx.Client]:
    yield from _serve(watching_folder, TIMESFORMER)


def recording(content: bytes, form: str = "wav") -> dict[str, Any]:
    """Return a sound as OpenAI's clients send it."""
    data = base64.b64encode(content).decode()
    return {"type": "input_audio", "input_audio": {"data": data, "format": form}}


def part(kind: str, url: str) -> dict[str, Any]:
    return {"type": kind, kind: {"url": url}}


def sound_url(content: bytes) -> dict[str, Any]:
    return part("audio_url", media_uri(content, "audio/wav"))


def video_url(content: bytes, media_type: str = "image/webp") -> dict[str, Any]:
    return part("video_url", media_uri(content, media_type))


def pictures_url(frames: list[bytes]) -> dict[str, Any]:
    joined = ",".join(base64.b64encode(it).decode() for it in frames)
    return part("video_url", f"data:video/jpeg;base64,{joined}")


def asked(*parts: dict[str, Any], **fields: Any) -> dict[str, Any]:
    content = [*parts, {"type": "text", "text": "what is it?"}]
    body: dict[str, Any] = {"messages": [{"role": "user", "content": content}], "max_tokens": 3}
    return body | {"temperature": 0, "logprobs": True, "top_logprobs": 5} | fields


def told(client: httpx.Client, *parts: dict[str, Any], **fields: Any) -> Any:
    """Return the log-probabilities of an answer that no token ends."""
    reply = client.post(CHAT, json=asked(*parts, ignore_eos=True, **fields))
    assert reply.status_code == 200, reply.text
    return reply.json()["choices"][0]["logprobs"]["content"]


def alike(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> bool:
    """Whether two answers come of the same numbers, however many rows were found in pages."""
    first, second = ([token["logprob"] for token in said] for said in (one, other))
    return first == pytest.approx(second, abs=1e-4)


def check_is_training_s(folder: Path, media: Media, said: list[dict[str, Any]]) -> None:
    """Compare with the training's forward, token by token."""
    model = open_model(folder, torch.float32, torch.device("cpu"))
    features = model.encoder.encode([media])
    prompt = PromptForm(model.tokenizer, 3, ()).prompt("what is it?")
    before: tuple[int, ...] = ()
    for token in said:
        batch = pack([[Example(prompt, (*before, 0), 0)]])
        with torch.inference_mode():
            rows = embed(model.language, model.projector, features, batch)
            hidden = model.language.hidden(rows, batch).flatten(0, 1)[batch.rows]
            expected = model.language.logits(hidden)[-1].log_softmax(-1).topk(5)
        found = [it["logprob"] for it in token["top_logprobs"]]
        assert found == pytest.approx(expected.values.tolist(), abs=1e-3)
        before += (int(expected.indices[0]),)


@pytest.mark.filterwarnings("ignore:At least one mel filter")
def test_a_sound_is_answered_as_in_training(hearing: httpx.Client, hearing_folder: Path) -> None:
    said = told(hearing, recording(SOUND))
    sound = open_wav(SOUND)
    check_is_training_s(hearing_folder, Sound(sound.samples(), sound.rate), said)
    assert alike(told(hearing, sound_url(SOUND)), said)
    assert not alike(told(hearing, sound_url(wav_file(noise(4000, seed=1)))), said)


def test_a_sound_by_url_is_that_of_its_data(hearing: httpx.Client, host: str) -> None:
    said = told(hearing, part("audio_url", f"http://{host}/a.wav"))
    assert alike(said, told(hearing, sound_url(SOUND)))


def test_a_video_is_answered_as_in_training(watching: httpx.Client, watching_folder: Path) -> None:
    said = told(watching, video_url(VIDEO))
    frames = film(11)
    shown = [frames[number] for number in (0, 1, 3, 4, 6, 7, 9, 10)]
    check_is_training_s(watching_folder, shown, said)
    files = [video_file([frame], "PNG") for frame in frames]
    assert alike(told(watching, pictures_url(files)), said)
    assert not alike(told(watching, video_url(GIF, "image/gif")), said)


def test_our_client_sends_each_as_it_should_be(
    hearing: httpx.Client, watching: httpx.Client, tmp_path: Path
) -> None:
    sound, video = tmp_path / "a.wav", tmp_path / "a.gif"
    sound.write_bytes(SOUND)
    video.write_bytes(GIF)
    for client, file in ((hearing, sound), (watching, video)):
        with SkipserveClient(str(client.base_url)) as ours:
            answer = ours.ask(file, "what is it?", max_tokens=3, temperature=0.0)
            assert answer.usage.image_tokens == 3
            with ours.stream_ask(file, "what is it?", max_tokens=3, temperature=0.0) as stream:
                assert "".join(stream) == answer.text


def test_openais_client_sends_recordings(hearing: httpx.Client) -> None:
    client = openai.OpenAI(base_url=f"{hearing.base_url}/v1", api_key="none")
    content: Any = [recording(SOUND), {"type": "text", "text": "what is it?"}]
    reply = client.chat.completions.create(
        model="model", messages=[{"role": "user", "content": content}], max_tokens=3, temperature=0
    )
    chat = hearing.post(CHAT, json=asked(recording(SOUND))).json()
    assert reply.choices[0].message.content == chat["choices"][0]["message"]["content"]


def test_responses_take_recordings(hearing: httpx.Client) -> None:
    parts = [recording(SOUND), {"type": "input_text", "text": "what is it?"}]
    said = [{"role": "user", "content": parts}]
    body = {"input": said, "max_output_tokens": 3, "temperature": 0}
    reply = hearing.post("/v1/responses", json=body)
    assert reply.status_code == 200, reply.text
    usage = reply.json()["usage"]
    chat = hearing.post(CHAT, json=asked(recording(SOUND))).json()
    assert usage["input_tokens"] == chat["usage"]["prompt_tokens"]
    texts = [it["text"] for out in reply.json()["output"] for it in out["content"]]
    assert "".join(texts) == chat["choices"][0]["message"]["content"]


def test_what_was_heard_before_is_not_computed_again(hearing: httpx.Client) -> None:
    """By what it sounds like, in whatever form it comes; under a salt apart."""
    quiet, loud = wav_file(noise(3000, seed=7) / 4), wav_file(noise(3000, seed=7))

    def cached(content: bytes, salt: str) -> Any:
        body = asked(sound_url(content), cache_salt=salt)
        reply = hearing.post(CHAT, json=body).json()
        return reply["usage"]["prompt_tokens_details"]["cached_tokens"]

    assert cached(quiet, "a") == 0
    assert cached(quiet, "a") > 0
    with_a_note = quiet + b"LIST\4\0\0\0note"
    assert cached(with_a_note, "a") > 0
    assert cached(loud, "a") == 0
    assert cached(quiet, "b") == 0


def test_rows_leave_by_policies_that_fit_a_sound(hearing: httpx.Client) -> None:
    def asked_with(method: str, **rule: Any) -> httpx.Response:
        rules = [{"action": "reduce_visual", "method": method, "keep": 2, **rule}]
        body = asked(sound_url(SOUND), skip_policy={"rules": rules})
        return hearing.post(CHAT, json=body)

    whole = hearing.post(CHAT, json=asked(sound_url(SOUND))).json()["usage"]["prompt_tokens"]
    for method in ("random", "divprune"):
        reply = asked_with(method)
        assert reply.status_code == 200, reply.text
        assert reply.json()["usage"]["prompt_tokens"] == whole - 1
    for method in ("downsample", "visionzip", "vispruner"):
        reply = asked_with(method)
        assert reply.status_code == 400
        assert f"{method} chooses among the rows of patches" in reply.text


def test_the_model_says_what_it_takes(hearing: httpx.Client, watching: httpx.Client) -> None:
    for client, modality in ((hearing, "audio"), (watching, "video")):
        models = client.get("/v1/models").json()["data"]
        assert {tuple(it["input_modalities"]) for it in models} == {("text", modality)}
        policies = client.get("/v1/skip_policies").json()["data"]
        assert {"full"} <= {it["name"] for it in policies}
        counted = client.post("/tokenize", json={"messages": asked()["messages"]}).json()
        assert counted["count"] > 0


SOUNDS_TAKEN = "the model takes sounds: parts of the type audio_url or input_audio"
IN_HEADER = SOUND[:40] + struct.pack("<I", 2**32 - 1) + SOUND[44:]
NOT_A_NUMBER = (
    SOUND[:16]
    + struct.pack("<IHHIIHH", 16, 3, 1, 16_000, 64_000, 4, 32)
    + b"data"
    + struct.pack("<I", 2000)
    + struct.pack("<500f", *[float("nan")] * 500)
)


@pytest.mark.parametrize(
    ("parts", "status", "place", "message"),
    [
        ([part("image_url", media_uri(PNG, "image/png"))], 400, "image_url", SOUNDS_TAKEN),
        ([sound_url(SOUND), video_url(VIDEO)], 400, "[1].video_url", SOUNDS_TAKEN),
        ([recording(SOUND, "mp3")], 400, "messages", "input_audio.format: this must be 'wav'"),
        ([recording(b"\xff\xfb" + bytes(99))], 422, "input_audio", "WAV of 8, 16, 24 or 32"),
        ([part("audio_url", media_uri(SOUND, "audio/mpeg"))], 422, "audio_url", "one of audio/wav"),
        ([recording(SOUND[:-9])], 422, "input_audio", "cut off: it has 7991 of 8000"),
        ([recording(IN_HEADER)], 422, "input_audio", "8000 of 4294967295 bytes"),
        ([recording(NOT_A_NUMBER)], 422, "input_audio", "no finite numbers"),
        ([recording(wav_file(noise(9), 44_100))], 422, "input_audio", "44100 samples a second"),
        ([recording(wav_file(noise(6000)))], 422, "input_audio", "lasts 0.38 s"),
        ([recording(b"")], 422, "input_audio", "the sound file is empty"),
        ([recording(bytes(300_001))], 422, "input_audio", "at most 300000 bytes"),
        ([recording(SOUND)] * 3, 400, "messages", "hold 3 sounds; at most 2"),
        ([part("audio_url", "https://a.example/a.wav")], 403, "audio_url", "nothing is fetched"),
        ([part("audio_url", "data:audio/wav,x")], 400, "audio_url", "data:audio/wav;base64"),
    ],
)
def test_sounds_that_are_refused(
    hearing: httpx.Client, parts: list[dict[str, Any]], status: int, place: str, message: str
) -> None:
    reply = hearing.post(CHAT, json=asked(*parts))
    error = reply.json()["error"]
    assert reply.status_code == status, reply.text
    assert place in error["param"]
    assert message in error["message"]


VIDEOS_TAKEN = "the model takes videos: parts of the type video_url"


@pytest.mark.parametrize(
    ("parts", "status", "place", "message"),
    [
        ([recording(SOUND)], 400, "input_audio", VIDEOS_TAKEN),
        ([part("video_url", "http://a.example/a.gif")], 403, "video_url", "videos are taken from"),
        ([part("image_url", media_uri(GIF, "image/gif"))], 400, "image_url", VIDEOS_TAKEN),
        ([video_url(PNG, "image/png")], 422, "video_url", "has 1 frame; it must have 8"),
        ([video_url(b"", "image/gif")], 422, "video_url", "the video file is empty"),
        (
            [video_url(GIF, "video/mp4")],
            422,
            "video_url",
            "one of image/gif, image/webp, image/png",
        ),
        ([video_url(GIF[:900], "image/gif")], 422, "video_url", "video"),
        ([pictures_url([PNG] * 7)], 422, "video_url", "has 7 frames; it must have 8"),
        ([pictures_url([PNG] * 7 + [b"x"])], 422, "video_url", "cannot be decoded"),
        ([part("video_url", "data:video/jpeg;base64,")], 422, "video_url", "has 0 frames"),
        ([part("video_url", "data:video/jpeg;base64," + "," * 9)], 422, "video_url", "empty"),
    ],
)
def test_videos_that_are_refused(
    watching: httpx.Client, parts: list[dict[str, Any]], status: int, place: str, message: str
) -> None:
    reply = watching.post(CHAT, json=asked(*parts))
    error = reply.json()["error"]
    assert reply.status_code == status, reply.text
    assert place in error["param"]
    assert message in error["message"]


def test_a_model_of_pictures_refuses_the_others(client: httpx.Client) -> None:
    for other in (recording(SOUND), sound_url(SOUND), video_url(VIDEO)):
        reply = client.post(CHAT, json=asked(other))
        assert reply.status_code == 400
        error = reply.json()["error"]
        assert error["param"] == f"messages[0].content[0].{other['type']}"
        assert "the model takes images: parts of the type image_url" in error["message"]
        counted = client.post("/tokenize", json={"messages": asked(other)["messages"]})
        assert counted.status_code == 400
    (entry, *_) = client.get("/v1/models").json()["data"]
    assert entry["input_modalities"] == ["text", "image"]
