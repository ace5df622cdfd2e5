"""What is running, in one typed document? Written by the supervisor; read by status, dashboard and metrics. Pure.

`status --json`, `GET /api/state` and each event of `GET /api/stream` are this document.
Durations carry their unit in the name; rates are over the last `window_seconds`.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from orchestrator.plan.model import Bucket

InstanceState = Literal[
    "initial", "starting", "ready", "draining", "drained", "stopping", "killing", "backoff", "failed", "stopped"
]


class Quantiles(msgspec.Struct, frozen=True):
    """Milliseconds; None where nothing was served in the window."""

    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


class Verified(msgspec.Struct, frozen=True):
    """What the kernel says of a running process, read back from /proc after start; never the plan."""

    cpus: list[int]
    """Union of `Cpus_allowed_list` over all its threads."""
    membind: list[int]
    """The nodes its policy allows (numa_maps), or all of `Mems_allowed_list` under the default policy."""
    policy: str
    """bind | preferred | default, the rung of the ladder that was reached."""
    threads: int
    matches_plan: bool
    notes: list[str] = []
    """What differs from the plan, and why."""
    allocator: str | None = None
    """system | tcmalloc | jemalloc, as its memory map shows; None where that cannot be read."""
    huge_page_bytes: int | None = None
    """Bytes of its memory in huge pages; None unless the layout asks for some."""


class InstanceNumbers(msgspec.Struct, kw_only=True):
    """What the router counts of one instance."""

    served: int = 0
    """Sequences answered since the orchestrator started, over all incarnations."""
    sequences_per_second: float = 0.0
    tokens_per_second: float = 0.0
    latency_ms: Quantiles = Quantiles()
    """From arrival in the router to the answer leaving it."""
    queue_depth: int = 0
    """Sequences waiting that this instance is the first choice for."""
    oldest_wait_ms: float = 0.0
    in_flight: int = 0
    batch_mean: float = 0.0
    padding_ratio: float = 0.0
    """Share of computed tokens that were padding, 0 to 1."""
    busy_ratio: float = 0.0
    batches: int = 0
    tokens: int = 0
    padded_tokens: int = 0
    stolen: int = 0
    """Sequences it took over from another instance's bucket."""
    latency_buckets: list[int] = []
    """Cumulative counts per bound of `LATENCY_BOUNDS_SECONDS`, one more for +Inf."""
    latency_sum_seconds: float = 0.0
    sequences: int = 0
    """Computed, whether somebody still wanted the answer or not."""
    wait_seconds: float = 0.0
    """Sum over what it computed: from arrival in the router to the start of the batch."""
    service_seconds: float = 0.0
    """Sum over its batches, from start to answer, as the router saw it."""
    predicted_seconds: float = 0.0
    """Sum over the same batches, as the router had predicted it."""
    cost_factor: float = 1.0
    """How much slower than its measured costs its engine is just now, as learnt from its batches."""
    batch_overhead_seconds: float = 0.0
    """What a batch takes besides the engine's time just now: messages, wake-ups."""
    retried: int = 0
    """Sequences it was given and did not answer, given to another one after it."""


class InstanceStatus(InstanceNumbers):
    name: str
    cpus: list[int]
    node: int | None
    membind: list[int]
    threads: int
    bucket: Bucket | None
    max_seqlen: int
    reasons: list[str]
    state: InstanceState
    pid: int | None
    incarnation: int
    restarts: int
    verified: Verified | None
    ready_seconds: float | None
    last_error: str | None
    rss_bytes: int | None
    cpu_seconds: float | None = None
    """Of this incarnation's process, all threads."""
    precision: str | None = None
    engine: str | None = None
    """What it computes with."""
    engine_cpu_seconds: float = 0.0
    """The part of it that was spent inside the engine."""


LATENCY_BOUNDS_SECONDS: tuple[float, ...] = (
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075,
    0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0,
)  # fmt: skip


class InstanceReport(InstanceNumbers):
    """The router's own numbers of one instance; counts are over the router's life."""

    name: str
    incarnation: int
    connected: bool


class BucketReport(msgspec.Struct):
    """What waits in one bucket; counts are over the router's life."""

    bucket: Bucket | None
    """None where instances have none, or all lengths wait together."""
    instances: list[str]
    queued: dict[str, int] = {}
    """Sequences by priority."""
    oldest_wait_ms: float = 0.0
    dispatched: int = 0
    """Sequences that left the queue for an instance."""
    wait_seconds: float = 0.0
    """Sum over these."""
    spilled: int = 0
    """Those of them that went to an instance of another bucket."""


class RouterStatus(msgspec.Struct):
    state: str
    pid: int | None = None
    restarts: int = 0
    submitted: int = 0
    """Sequences; at every moment submitted = queued + in_flight + settled."""
    queued: int = 0
    in_flight: int = 0
    settled: int = 0
    rejected: dict[str, int] = {}
    """By reason."""
    retried: int = 0
    duplicates: int = 0
    malformed_frames: int = 0
    undelivered_replies: int = 0
    """Messages to clients that had gone or did not read."""
    late_results: int = 0
    wrong_rows: int = 0
    """Batches answered with another number of rows than they had sequences."""
    displaced: int = 0
    """Sequences refused while they waited, to make room in a full queue."""
    tenants: int = 0
    """Callers with requests in progress."""
    buckets: list[BucketReport] = []
    cpu_seconds: float | None = None
    rss_bytes: int | None = None


class RouterReport(msgspec.Struct):
    """Router → supervisor, once a second, as the body of a `Stats` message."""

    router: RouterStatus
    instances: list[InstanceReport]


class CacheStatus(msgspec.Struct, frozen=True):
    """A cache of one gateway, since it started."""

    hits: int = 0
    misses: int = 0
    entries: int = 0
    bytes: int = 0
    budget_bytes: int = 0
    """0 where there is no such cache."""


class GatewayStatus(msgspec.Struct):
    name: str
    state: str
    pid: int | None = None
    restarts: int = 0
    in_flight: int = 0
    connections: int = 0
    responses: dict[str, int] = {}
    """`route status` → count, for example {"/embed 200": 12}."""
    requests_per_second: float = 0.0
    latency_ms: Quantiles = Quantiles()
    """Of the whole pipeline in the gateway, answers with 200 only."""
    resubmitted: int = 0
    late_replies: int = 0
    tokenize_seconds: float = 0.0
    cpu_seconds: float | None = None
    rss_bytes: int | None = None
    latency_buckets: list[int] = []
    latency_sum_seconds: float = 0.0
    token_cache: CacheStatus = CacheStatus()
    """Texts whose tokens are known."""
    answer_cache: CacheStatus = CacheStatus()
    """Sequences whose rows are known."""
    joined: int = 0
    """Requests that waited for the answer of another one with the same tokens."""


class HeadStatus(msgspec.Struct, frozen=True):
    """What a gateway must know to make answers of the numbers of a model with a task head."""

    labels: list[str] = []
    """Names of the floats of a row, where these are scores of labels."""
    activation: Literal["softmax", "sigmoid", "none"] = "none"
    """What makes probabilities of them unless a request says otherwise."""
    entailment: int | None = None
    """Which label says that a hypothesis follows; needed for zero-shot classification."""
    mask_id: int | None = None
    asked_id: int | None = None
    """The id, beyond the vocabulary, that a client puts in place of the mask whose row it wants."""
    cls_id: int | None = None
    pad_id: int | None = None
    unk_id: int | None = None
    """Of the tokenizer."""


class ImageStatus(msgspec.Struct, frozen=True):
    """What becomes of an image before the model reads it, in this order; preprocessor_config.json says it."""

    height: int
    width: int
    """Pixels of what the model reads, in three channels (RGB)."""
    tokens: int
    """What an image counts as: its patches and one more."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resize: tuple[int, int] | None = None
    """(height, width); None: it is not resized."""
    shortest_edge: int | None = None
    """In place of `resize`: the shorter edge becomes so long, and the other keeps the ratio."""
    resample: Literal["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"] = "bilinear"
    crop: bool = False
    """Whether the middle, height × width, is cut out afterwards."""
    rescale: float | None = 1.0 / 255.0
    """What each value 0 to 255 is multiplied by."""
    normalise: bool = True
    """Whether mean and std are applied, per channel."""


class ModelStatus(msgspec.Struct, frozen=True):
    id: str
    task: str
    architecture: str
    precision: str
    engine: str
    max_seqlen: int
    """The longest text that is served, in tokens."""
    dimensions: int
    digest: str
    artefact: str
    """The folder of the artefact."""
    truncate: bool = False
    head: HeadStatus | None = None
    """None: embeddings or features, as the encoder gives them."""
    image: ImageStatus | None = None
    """None: the model reads text."""


class CpuStatus(msgspec.Struct, frozen=True):
    """One PU of the map: where it is, and who runs there."""

    cpu: int
    package: int | None
    node: int | None
    core: int | None
    smt_rank: int | None
    llc: int | None
    online: bool
    allowed: bool
    used_by: str | None
    """An instance's name, `housekeeping`, or None."""
    sibling_of: str | None = None
    """The instance on whose core this idle SMT sibling lies."""


class MachineStatus(msgspec.Struct, frozen=True):
    model_name: str
    packages: int
    nodes: int
    cores: int
    cpus: list[CpuStatus]


class Event(msgspec.Struct, frozen=True):
    """Something that changed, and when."""

    uptime_seconds: float
    """Of the supervisor; it was at `time_unix - uptime_seconds` of the document plus this."""
    part: str
    """short-0, router, gateway-0; `orchestrator` where somebody asked for something."""
    kind: Literal["worker", "router", "gateway", "operator"]
    incarnation: int
    before: str
    """The state that it left; empty where it was none."""
    after: str
    """The state that it is in since, or `asked`."""
    why: str


class Status(msgspec.Struct):
    version: str
    state: str
    """starting | ready | degraded | draining | stopped"""
    time_unix: float
    uptime_seconds: float
    window_seconds: float
    pid: int
    endpoint: str
    """Where to send a request, for example http://127.0.0.1:8080."""
    policy: str
    model: ModelStatus
    router: RouterStatus
    gateways: list[GatewayStatus]
    instances: list[InstanceStatus]
    housekeeping_cpus: list[int]
    unused_cpus: list[int]
    machine: MachineStatus
    warnings: list[str]
    changing: str = ""
    """What is just being done with instances on request, and by whom; empty: nothing."""
    events: list[Event] = []
    """The last `EVENTS_SHOWN`, oldest first; `GET /api/history` has more."""


EVENTS_SHOWN = 16
