"""How were the reference answers made? By transformers.pipeline with torch, in fp32, on the models and images of tiny_images.py.

From the root of the repository, in an environment with transformers 5, torch and torchvision (`make test-reference` makes one):

    PYTHONPATH=. python tests/data/images/make_reference.py            # writes reference.json beside this file
    PYTHONPATH=. python tests/data/images/make_reference.py --compare  # writes nothing, exit code 1 where an answer differs

Images are prepared by the processor that works with Pillow and numpy (`ViTImageProcessorPil`).
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import tiny_images  # noqa: E402

REFERENCE = HERE / "reference.json"
LARGEST_DIFFERENCE = 1e-5


def answers(files: dict[str, bytes]) -> dict[str, dict[str, Any]]:
    """By the name of the model, then of the image: what the pipeline answers, all labels."""
    from PIL import Image
    from transformers import ViTForImageClassification, ViTImageProcessorPil, pipeline

    found: dict[str, dict[str, Any]] = {}
    for name in tiny_images.CASES:
        with tempfile.TemporaryDirectory() as folder:
            directory = str(tiny_images.write(Path(folder), name))
            model = ViTForImageClassification.from_pretrained(directory, attn_implementation="eager")
            processor = ViTImageProcessorPil.from_pretrained(directory)
            pipe = pipeline("image-classification", model=model, image_processor=processor, device="cpu")
            found[name] = {
                file: [
                    {"label": one["label"], "score": float(f"{one['score']:.9g}")}
                    for one in pipe(Image.open(io.BytesIO(data)), top_k=100)
                ]
                for file, data in files.items()
            }
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compare", action="store_true")
    if not parser.parse_args().compare:
        files = tiny_images.pictures()
        stored = {name: base64.b64encode(data).decode() for name, data in files.items()}
        REFERENCE.write_text(json.dumps({"images": stored, "answers": answers(files)}, indent=1) + "\n")
        return 0
    kept = json.loads(REFERENCE.read_text())
    fresh = answers({name: base64.b64decode(data) for name, data in kept["images"].items()})
    different = 0
    for name, images in kept["answers"].items():
        for file, expected in images.items():
            pairs = zip(expected, fresh[name][file], strict=True)
            if any(a["label"] != b["label"] or abs(a["score"] - b["score"]) > LARGEST_DIFFERENCE for a, b in pairs):
                print(f"{name}: {file}: stored {expected}, now {fresh[name][file]}")
                different += 1
    print(f"{different} answers differ")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
