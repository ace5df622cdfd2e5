"""How were the reference answers made? By transformers.pipeline with torch, in fp32, on the models of tiny_tasks.py.

From the root of the repository, in an environment with transformers 5 and torch (`make test-reference` makes one):

    PYTHONPATH=. python tests/data/tasks/make_reference.py            # writes reference.json beside this file
    PYTHONPATH=. python tests/data/tasks/make_reference.py --compare  # writes nothing, exit code 1 where an answer differs

transformers 5 has no question-answering pipeline: those answers come from transformers 4.57, with `--only question-answering`. What the
installed release does not have keeps its stored answers.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import tiny_tasks  # noqa: E402

REFERENCE = HERE / "reference.json"
LARGEST_DIFFERENCE = 1e-5


def answers(only: str | None) -> dict[str, dict[str, Any]]:
    """By `CASE/NUMBER`: the request and what the pipeline answered."""
    from transformers import pipeline
    from transformers.pipelines import SUPPORTED_TASKS

    made = f"transformers {importlib.metadata.version('transformers')}"
    found: dict[str, dict[str, Any]] = {}
    for name in tiny_tasks.CASES:
        with tempfile.TemporaryDirectory() as folder:
            directory = tiny_tasks.write(Path(folder), name)
            pipelines: dict[str, Any] = {}
            for number, request in enumerate(tiny_tasks.requests(name)):
                kind = request["pipeline"]
                if kind not in SUPPORTED_TASKS or only not in (None, kind):
                    continue
                if kind not in pipelines:
                    pipelines[kind] = pipeline(
                        kind, model=str(directory), device="cpu", model_kwargs={"attn_implementation": "eager"}
                    )
                parameters = dict(request.get("parameters", {}))
                pipe = pipelines[kind]
                if "stride" in parameters:  # fixed when the pipeline is made
                    pipe = pipeline(kind, model=str(directory), device="cpu", **parameters)
                    parameters = {}
                if kind == "question-answering" and isinstance(request["inputs"], dict):
                    answer = pipe(**request["inputs"], **parameters)
                else:
                    answer = pipe(request["inputs"], **parameters)
                body = {key: request[key] for key in ("inputs", "parameters") if key in request}
                found[f"{name}/{number}"] = {"by": made, "request": body, "answer": plain(answer)}
    return found


def plain(value: Any) -> Any:
    """JSON of an answer; scores with nine digits."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, str | bool) or value is None:
        return value
    number = value.item() if hasattr(value, "item") else value
    return float(f"{number:.9g}") if isinstance(number, float) else number


def differ(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) > LARGEST_DIFFERENCE
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() != other.keys() or any(differ(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) != len(other) or any(differ(a, b) for a, b in zip(one, other, strict=True))
    return bool(one != other)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--compare", action="store_true", help="write nothing, say which answers differ")
    parser.add_argument("--only", metavar="PIPELINE", help="compute the answers of this pipeline and no other")
    arguments = parser.parse_args()
    stored = json.loads(REFERENCE.read_text(encoding="utf-8")) if REFERENCE.exists() else {}
    made = answers(arguments.only)
    if not arguments.compare:
        asked = {f"{name}/{number}" for name in tiny_tasks.CASES for number in range(len(tiny_tasks.requests(name)))}
        kept = {key: one for key, one in (stored | made).items() if key in asked}
        lines = [
            f"{json.dumps(key)}: {json.dumps(kept[key], ensure_ascii=False, sort_keys=True)}" for key in sorted(kept)
        ]
        REFERENCE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
        return 0
    wrong = [key for key, one in made.items() if key not in stored or differ(one["answer"], stored[key]["answer"])]
    print(f"{len(made)} answers of transformers.pipeline compared with {REFERENCE.name}, different: {wrong or 'none'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
