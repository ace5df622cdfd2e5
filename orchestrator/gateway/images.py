"""How does an encoded image become what the model reads? As transformers' image processor of ViT does it on Pillow and numpy.

The header of a file says how many pixels it will become: that is looked at before any of them is decoded. Decoding takes milliseconds,
so it is done on a thread of its own, one image after the other; Pillow lets go of the interpreter's lock meanwhile.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from orchestrator.client.texts import Tokens
from orchestrator.gateway.errors import Refusal
from orchestrator.status import ImageStatus

FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
MOST_PIXELS: Final = 50_000_000
"""Of one image: 150 MB once it is decoded. A phone's camera gives 12 to 50 million."""

_RESAMPLES: Final = {
    "nearest": Image.Resampling.NEAREST,
    "lanczos": Image.Resampling.LANCZOS,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
}


class Decoding:
    """Where images are decoded: beside the event loop."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "decode-images")

    async def apply(self, work: Callable[[], Tokens]) -> Tokens:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


def tokens_of(images: list[tuple[str, bytes]], wanted: ImageStatus) -> Tokens:
    """What the router is sent for images as they came, each with the name of its field. Refusal names the one that cannot be read."""
    pixels = b"".join([prepare(decode(data, field), wanted).tobytes() for field, data in images])
    return Tokens([wanted.tokens] * len(images), pixels, pixels=True)


def decode(data: bytes, field: str) -> Image.Image:
    """RGB, turned as its EXIF data says. Refusal: 413 for too many pixels, 422 for what is no image or a broken one."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as opened:
            width, height = opened.size
            if width * height > MOST_PIXELS:
                raise Refusal(
                    "too_long",
                    f"{field}: an image of {width} × {height} pixels, the limit is {MOST_PIXELS}; send a smaller one",
                )
            return ImageOps.exif_transpose(opened).convert("RGB")
    except Image.DecompressionBombError:
        raise Refusal(
            "too_long", f"{field}: an image of more pixels than the limit of {MOST_PIXELS}; send a smaller one"
        ) from None
    except UnidentifiedImageError:
        raise Refusal(
            "unprocessable", f"{field}: {len(data)} bytes that are no image; {', '.join(FORMATS)} are read"
        ) from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError) as error:
        # What Pillow's readers raise for files that are torn or contradict themselves.
        raise Refusal("unprocessable", f"{field}: this image is broken: {error}; send it whole") from None


def prepare(image: Image.Image, wanted: ImageStatus) -> npt.NDArray[np.float32]:
    """float32 [3, height, width]."""
    resample = _RESAMPLES[wanted.resample]
    if wanted.resize is not None:
        height, width = wanted.resize
        image = image.resize((width, height), resample)
    elif wanted.shortest_edge is not None:
        image = image.resize(with_shortest_edge(image.size, wanted.shortest_edge), resample)
    if wanted.crop:
        left, top = (image.width - wanted.width) // 2, (image.height - wanted.height) // 2
        image = image.crop((left, top, left + wanted.width, top + wanted.height))
    decoded: npt.NDArray[np.uint8] = np.asarray(image, np.uint8)
    values = decoded.astype(np.float32)
    if wanted.rescale is not None:
        values = (decoded.astype(np.float64) * np.float64(wanted.rescale)).astype(np.float32)
    if wanted.normalise:
        mean, std = np.array(wanted.mean, np.float32), np.array(wanted.std, np.float32)
        values = (values - mean) / std
    return np.ascontiguousarray(values.transpose(2, 0, 1))


def with_shortest_edge(size: tuple[int, int], edge: int) -> tuple[int, int]:
    """(width, height) with the same ratio, cut to whole pixels. Refusal for a strip that would become a giant."""
    width, height = size
    long = int(edge * max(size) / min(size))
    if edge * long > MOST_PIXELS:
        raise Refusal(
            "unprocessable", f"an image of {width} × {height} pixels is too narrow to be resized for this model"
        )
    return (edge, long) if width <= height else (long, edge)
