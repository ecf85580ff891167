"""Pictures in all shapes, and the data URIs that carry them."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image


def random_picture(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Return noise."""
    generator = np.random.default_rng(seed)
    noise = generator.integers(0, 256, (height, width, 4), dtype=np.uint8)
    picture = Image.fromarray(noise, "RGBA")
    return picture if mode == "RGBA" else picture.convert("RGB").convert(mode)


def encode(picture: Image.Image, file_format: str = "PNG", **options: Any) -> bytes:
    """Return a picture as a file."""
    buffer = io.BytesIO()
    picture.save(buffer, file_format, **options)
    return buffer.getvalue()


def data_uri(content: bytes, media_type: str = "image/png") -> str:
    """Return a file as a data URI."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def image_part(url: str) -> dict[str, Any]:
    """Return the part of a message that shows an image."""
    return {"type": "image_url", "image_url": {"url": url}}


def question(text: str, *urls: str, **fields: Any) -> dict[str, Any]:
    """Return the body of a chat request: images, a question, and other fields."""
    content = [*(image_part(url) for url in urls), {"type": "text", "text": text}]
    return {"messages": [{"role": "user", "content": content}], "max_tokens": 3} | fields
