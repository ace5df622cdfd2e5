"""What becomes of an image before a model reads it, by preprocessor_config.json?"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NoReturn

import msgspec

from orchestrator.models.build.limits import Count
from orchestrator.models.directory import PREPROCESSOR
from orchestrator.models.documents import read
from orchestrator.models.errors import ModelError
from orchestrator.status import ImageStatus

Resample = Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]
_RESAMPLES: tuple[Resample, ...] = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""By Pillow's numbers."""

_PROCESSORS = (
    "ViTImageProcessor", "ViTImageProcessorFast", "ViTImageProcessorPil", "ViTFeatureExtractor",
)  # fmt: skip


class Size(msgspec.Struct, frozen=True):
    height: Count | None = None
    width: Count | None = None
    shortest_edge: Count | None = None


class PreprocessorConfig(msgspec.Struct, frozen=True):
    """preprocessor_config.json; what it leaves out is as in transformers."""

    image_processor_type: str | None = None
    feature_extractor_type: str | None = None
    do_resize: bool = True
    size: Count | Size = 224
    resample: int = 2
    do_center_crop: bool | None = None
    crop_size: Count | Size | None = None
    do_rescale: bool = True
    rescale_factor: float = 1.0 / 255.0
    do_normalize: bool = True
    image_mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    image_std: tuple[float, float, float] = (0.5, 0.5, 0.5)


def read_image(home: Path, pixels: tuple[int, int], tokens: int) -> ImageStatus:
    """For a model that reads images of `pixels` (height, width). ModelError names the field that does not fit."""
    path = home / PREPROCESSOR
    if not path.is_file():
        raise ModelError(
            "nobody says how images are prepared for this model",
            where=str(path),
            why="there is no such file",
            remedy="put the one there that came with the model",
        )
    config = read(path, PreprocessorConfig, "how images are prepared")
    kind = config.image_processor_type or config.feature_extractor_type
    if kind is not None and kind not in _PROCESSORS:
        _refuse(path, f"image_processor_type is {kind}, supported: {', '.join(_PROCESSORS)}")
    if not config.do_resize:
        _refuse(path, "do_resize is false, and images come in all sizes")
    if not 0 <= config.resample < len(_RESAMPLES):
        _refuse(path, f"resample is {config.resample}, supported: 0 to {len(_RESAMPLES) - 1}")
    if config.do_normalize and 0.0 in config.image_std:
        _refuse(path, "image_std is 0, and it divides")
    resize, edge = _size(config.size)
    if resize is None and edge is None:
        _refuse(path, "size has neither height and width nor shortest_edge")
    crop = config.do_center_crop is True
    cropped, _ = _size(config.crop_size) if config.crop_size is not None else ((None, None))
    if crop and cropped is None:
        _refuse(path, "do_center_crop is true, and crop_size has no height and width")
    given = cropped if crop else resize
    if given != pixels:
        _refuse(path, f"it gives images of {given or 'any size'}, the model reads {pixels} (height, width)")
    smallest = resize or (edge or 0, edge or 0)
    if crop and (smallest[0] < pixels[0] or smallest[1] < pixels[1]):
        _refuse(path, f"size makes images smaller than the {pixels} that crop_size cuts out")
    return ImageStatus(
        height=pixels[0],
        width=pixels[1],
        tokens=tokens,
        mean=config.image_mean,
        std=config.image_std,
        resize=resize,
        shortest_edge=edge if resize is None else None,
        resample=_RESAMPLES[config.resample],
        crop=crop,
        rescale=config.rescale_factor if config.do_rescale else None,
        normalise=config.do_normalize,
    )


def plain(pixels: tuple[int, int], tokens: int) -> ImageStatus:
    """As ViT does it where nothing is said."""
    return ImageStatus(pixels[0], pixels[1], tokens, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), resize=pixels)


def _size(size: int | Size) -> tuple[tuple[int, int] | None, int | None]:
    """(height and width, the shortest edge), each None where it is not said."""
    if isinstance(size, int):
        return (size, size), None
    if size.height is not None and size.width is not None:
        return (size.height, size.width), None
    return None, size.shortest_edge


def _refuse(path: Path, why: str) -> NoReturn:
    raise ModelError(
        "images cannot be prepared as this model wants them",
        where=str(path),
        why=why,
        remedy="mend the file, or name a model whose images are prepared as ViT's are",
    )
