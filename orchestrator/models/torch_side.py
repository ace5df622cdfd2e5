"""What only torch can do: read a pickled checkpoint, export an architecture that is not written here. A process of its own.

`python -m orchestrator.models.torch_side convert OUT.safetensors FILE…` and `… export OUT.onnx DIRECTORY TASK`. A process, because
torch takes 200 MB that the supervisor would keep, and because a pickle should be read where little can be lost: with weights_only,
which builds tensors and calls nothing else. The last line of standard error is the reason of a failure.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from orchestrator.models.errors import ModelError

INSTALL = "pip install 'orchestrator[torch]'"
LONGEST_SECONDS = 1800.0
"""For the largest model on a slow disk."""

_CLASSES = {
    "feature-extraction": "AutoModel",
    "sentence-embedding": "AutoModel",
    "text-classification": "AutoModelForSequenceClassification",
    "zero-shot-classification": "AutoModelForSequenceClassification",
    "reranking": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
}
_OUTPUTS = {"AutoModel": ("last_hidden_state",), "AutoModelForQuestionAnswering": ("start_logits", "end_logits")}


def installed() -> bool:
    return importlib.util.find_spec("torch") is not None


def convert(files: Sequence[Path], out: Path) -> Path:
    """Pickled tensors as one safetensors file. ModelError without torch, or where the pickle holds anything but tensors."""
    if not installed():
        raise ModelError(
            "these weights need torch",
            where=str(files[0]),
            why="there is no model.safetensors, and a pickle is read by torch alone, which is not installed",
            remedy=f"{INSTALL}, or save the model as safetensors",
        )
    _run(["convert", str(out), *map(str, files)], "cannot read the weights", str(files[0]), "download the file again")
    return out


def export(directory: Path, task: str, out: Path) -> Path:
    """The model of a directory as an ONNX file with everything in it. ModelError where torch or transformers cannot."""
    if task not in _CLASSES:
        raise ModelError(
            "this model cannot be exported",
            where=str(directory),
            why=f"the export knows {', '.join(_CLASSES)}, the task is {task}",
            remedy="choose one of these with --task",
        )
    _run(
        ["export", str(out), str(directory), task],
        "torch cannot export this model",
        str(directory),
        "name a model of an architecture that is built directly, or one that comes with an ONNX file",
    )
    return out


def _run(words: list[str], what: str, where: str, remedy: str) -> None:
    command = [sys.executable, "-m", "orchestrator.models.torch_side", *words]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LONGEST_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise ModelError(
            what, where=where, why=f"it took more than {LONGEST_SECONDS:.0f} s", remedy=remedy, unworkable=False
        ) from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        why = lines[-1].strip() if lines else f"the process ended with status {done.returncode}"
        raise ModelError(what, where=where, why=why, remedy=remedy)


def _convert(out: str, files: list[str]) -> None:
    import torch
    from safetensors.torch import save_file

    tensors: dict[str, Any] = {}
    for file in files:
        loaded = torch.load(file, map_location="cpu", weights_only=True)
        if not isinstance(loaded, dict):
            raise TypeError(f"{file} holds a {type(loaded).__name__} and not tensors by name")
        for name, tensor in loaded.items():
            if not isinstance(tensor, torch.Tensor):
                raise TypeError(f"{file}: {name} is a {type(tensor).__name__} and no tensor")
            tensors[name] = tensor.contiguous().clone()  # two names of one storage are two tensors in safetensors
    save_file(tensors, out)


def _export(out: str, directory: str, task: str) -> None:
    import torch
    import transformers

    from orchestrator.models.build import OPSET

    class_name = _CLASSES[task]
    outputs = _OUTPUTS.get(class_name, ("logits",))
    model = getattr(transformers, class_name).from_pretrained(
        directory, attn_implementation="eager", dtype=torch.float32, local_files_only=True, trust_remote_code=False
    )
    model.eval()
    typed = (getattr(model.config, "type_vocab_size", 0) or 0) > 1
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if typed else [])]

    class Bare(torch.nn.Module):  # type: ignore[misc]  # torch is not there when types are checked
        """Positional tensors in, a tuple of tensors out."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *given: Any) -> tuple[Any, ...]:
            answer = self.model(**dict(zip(names, given, strict=True)))
            return tuple(getattr(answer, name) for name in outputs)

    ids = torch.full((2, 7), 5, dtype=torch.int64)
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    example = (ids, mask, torch.zeros_like(ids))[: len(names)]
    axes = {name: {0: "batch", 1: "length"} for name in names}
    axes |= {
        name: {0: "batch"} if name == "logits" and "Sequence" in class_name else {0: "batch", 1: "length"}
        for name in outputs
    }
    with torch.inference_mode():
        torch.onnx.export(
            Bare(), example, out, input_names=names, output_names=list(outputs), dynamic_axes=axes, opset_version=OPSET,
            dynamo=False,
        )  # fmt: skip


def main(words: Sequence[str]) -> int:
    match list(words):
        case ["convert", out, *files] if files:
            _convert(out, files)
        case ["export", out, directory, task]:
            _export(out, directory, task)
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
