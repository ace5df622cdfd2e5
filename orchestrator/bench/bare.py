"""How fast is the model with no server at all? A pinned process that tokenizes and runs the same graph.

`python -m orchestrator.bench.bare` reads one JSON document from standard input (a WorkerSpec, the tokenizer, texts) and then obeys lines:
`run SECONDS` works through the texts and prints {"count", "seconds", "median"} (the median is the engine's, without tokenizing).
"""

from __future__ import annotations

import statistics
import sys
import time

import msgspec

from workers.bind import bind_cpus
from workers.spec import WorkerSpec


class BareSpec(msgspec.Struct, frozen=True):
    worker: WorkerSpec
    tokenizer: str
    texts: list[str]
    batch: int = 1
    """Texts per call of the engine, in their order, padded to the longest."""


class BareResult(msgspec.Struct, frozen=True):
    count: int
    seconds: float
    engine_median: float
    """Seconds."""


def main() -> int:
    spec = msgspec.json.decode(sys.stdin.readline(), type=BareSpec)
    bind_cpus(spec.worker.cpus)
    import numpy as np
    from tokenizers import Tokenizer

    from workers.engines.chosen import load

    artefact = spec.worker.artefact
    engine = load(spec.worker)
    tokenizer = Tokenizer.from_file(spec.tokenizer)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    pad = artefact.pad_id if artefact else 0
    token_types = artefact is not None and artefact.token_types
    print("ready", flush=True)
    for line in sys.stdin:
        seconds = float(line.split()[1])
        count, engine_times = 0, []
        started = time.perf_counter()
        while time.perf_counter() - started < seconds:
            chosen = [spec.texts[(count + at) % len(spec.texts)] for at in range(spec.batch)]
            rows = [encoding.ids for encoding in tokenizer.encode_batch_fast(chosen)]
            longest = max(map(len, rows))
            ids = np.full((len(rows), longest), pad, np.int32)
            mask = np.zeros_like(ids)
            for at, row in enumerate(rows):
                ids[at, : len(row)] = row
                mask[at, : len(row)] = 1
            before = time.perf_counter()
            engine.run(ids, mask, np.zeros_like(ids) if token_types else None)
            engine_times.append(time.perf_counter() - before)
            count += len(rows)
        result = BareResult(count, time.perf_counter() - started, statistics.median(engine_times))
        sys.stdout.write(msgspec.json.encode(result).decode() + "\n")
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
