"""Which tiny models of images do the tests use, and what are they shown? Directories with seeded weights, images made by Pillow."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

from orchestrator.models.build import heads
from orchestrator.models.settings import read_encoder
from orchestrator.models.synthetic import SyntheticWeights
from orchestrator.models.tasks import read_head

VIT: dict[str, Any] = {
    "model_type": "vit", "architectures": ["ViTForImageClassification"], "hidden_size": 32, "num_hidden_layers": 2,
    "num_attention_heads": 4, "intermediate_size": 64, "image_size": 32, "patch_size": 8, "num_channels": 3,
    "hidden_act": "gelu", "layer_norm_eps": 1e-12, "qkv_bias": True,
}  # fmt: skip
ANIMALS = {str(number): name for number, name in enumerate(("cat", "dog", "owl", "fox", "hen", "bee"))}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "classes": (VIT | {"id2label": ANIMALS}, {"size": {"height": 32, "width": 32}, "resample": 2}),
    "several": (
        VIT | {"id2label": {"0": "sea", "1": "sky"}, "problem_type": "multi_label_classification", "image_size": [24, 40]},
        {
            "size": {"height": 24, "width": 40}, "resample": 3, "image_mean": [0.485, 0.456, 0.406],
            "image_std": [0.229, 0.224, 0.225],
        },
    ),
    "cropped": (
        VIT | {"id2label": ANIMALS, "qkv_bias": False, "hidden_act": "gelu_pytorch_tanh"},
        {
            "size": {"shortest_edge": 41}, "do_center_crop": True, "crop_size": {"height": 32, "width": 32},
            "resample": 3, "rescale_factor": 0.004,
        },
    ),
}  # fmt: skip
"""By name: config.json and preprocessor_config.json."""


def pictures() -> dict[str, bytes]:
    """By name: files of several modes, sizes and formats, the smallest one pixel."""
    random = np.random.default_rng(5)

    def noise(*shape: int) -> np.ndarray:
        steps = np.linspace(0, 200, shape[0] * shape[1]).reshape(shape[:2])
        base = steps if len(shape) == 2 else steps[..., None]
        return np.clip(base + random.integers(-40, 40, shape), 0, 255).astype(np.uint8)

    made: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "exact.png": (Image.fromarray(noise(32, 32, 3)), "PNG", {}),
        "odd.png": (Image.fromarray(noise(37, 51, 3)), "PNG", {}),
        "grey.png": (Image.fromarray(noise(45, 30)), "PNG", {}),
        "clear.png": (Image.fromarray(noise(28, 33, 4), "RGBA"), "PNG", {}),
        "photo.jpg": (Image.fromarray(noise(61, 47, 3)), "JPEG", {"quality": 85}),
        "turned.jpg": (Image.fromarray(noise(40, 58, 3)), "JPEG", {"exif": _turned()}),
        "palette.gif": (Image.fromarray(noise(35, 35, 3)).quantize(16), "GIF", {}),
        "dot.png": (Image.new("RGB", (1, 1), (200, 30, 90)), "PNG", {}),
    }
    files = {}
    for name, (image, form, options) in made.items():
        file = io.BytesIO()
        image.save(file, form, **options)
        files[name] = file.getvalue()
    return files


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turned by a quarter
    return exif


def write(directory: Path, name: str, *, seed: int = 3) -> Path:
    """The directory of one case."""
    config, preprocessor = CASES[name]
    directory.mkdir(parents=True, exist_ok=True)
    encoder = read_encoder(config, name)
    status = read_head(config, "image-classification", name)
    head = heads.describe(config, encoder, "text", len(status.labels), name)
    own = head.tensors(SyntheticWeights(encoder))
    weights = SyntheticWeights(encoder, seed, more=own)
    tensors = {("" if key in own else "vit.") + key: weights.read(key) for key in weights.names()}
    tensors[head.out_weight] = tensors[head.out_weight] * np.float32(3.0)  # or every softmax would be flat
    (directory / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (directory / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "ViTImageProcessor", **preprocessor}), encoding="utf-8"
    )
    save_file(tensors, str(directory / "model.safetensors"), metadata={"format": "pt"})
    return directory
