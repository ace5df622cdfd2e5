"""Which options has a layout, and what does each of them mean? Pure.

The one declaration of every option: its name, type, bounds, default and help. The loader, the command line and the
documentation derive from here (`config.declared`); nothing repeats a default or a bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

Policy = Literal["by-seqlen", "by-seqlen-strict", "shortest-completion", "least-loaded", "round-robin"]
Precision = Literal["auto", "fp32", "bf16", "int8"]
Engine = Literal["auto", "onnxruntime", "openvino"]
Allowance = Literal["overlap", "smt", "remote-memory"]
Allocator = Literal["system", "tcmalloc", "jemalloc"]
HugePages = Literal["system", "transparent", "reserved"]
LogFormat = Literal["text", "json"]
AccessLog = Literal["off", "errors", "all"]

VERSION: Final = 1
"""The layout version that this program reads."""

LONGEST_SEQUENCE: Final = 1 << 20
MOST_INSTANCES: Final = 1024

CpuList = Annotated[str, Meta(extra={"cpulist": True})]
"""A kernel CPU list as text (`0-3,8`); the loader has checked its form, not its CPUs."""


class Place(Struct, frozen=True):
    """Where something stands in a file; both count from 1."""

    line: int
    column: int


class Places:
    """Where each part of a layout stands: `instances[0].cpus` → line 7, column 33.

    All are equal to one another: where a layout says something is no part of what it says.
    """

    __slots__ = ("_by_path", "file")

    def __init__(self, file: str = "", by_path: Mapping[str, Place] | None = None) -> None:
        self.file = file
        self._by_path = dict(by_path or {})

    def of(self, path: str) -> Place | None:
        """The place of this path, or of the nearest thing around it that the file has."""
        while path:
            if (place := self._by_path.get(path)) is not None:
                return place
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return self._by_path.get("")

    def names(self, path: str) -> bool:
        """Whether the file itself says this, as opposed to a default."""
        return path in self._by_path

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Places)

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return f"Places({self.file!r})"


class HousekeepingConfig(Struct, frozen=True, kw_only=True):
    """Where the supervisor, the router and the gateways run."""

    cpus: Annotated[CpuList, Meta(description='CPUs of the router and the gateways, for example "0,48".')]
    shared: Annotated[bool, Meta(description="Say that instances may run on these CPUs as well.")] = False


class InstanceGroup(Struct, frozen=True, kw_only=True):
    """One entry of `instances`: replicas that are alike. Entries of the same name are numbered on: short-0, short-1."""

    name: Annotated[
        str,
        Meta(
            pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$",
            max_length=40,
            description="Name of the group; its instances are NAME-0, NAME-1 and so on.",
            extra={"form": "lower-case letters, digits and single dashes, beginning with a letter"},
        ),
    ]
    replicas: Annotated[int, Meta(ge=1, le=MOST_INSTANCES, description="How many instances of this kind.")] = 1
    min_seqlen: Annotated[
        int | None,
        Meta(ge=1, le=LONGEST_SEQUENCE, description="Shortest sequence it prefers, in tokens; omitted: follows on."),
    ] = None
    max_seqlen: Annotated[
        int | None,
        Meta(ge=1, le=LONGEST_SEQUENCE, description="Longest sequence it prefers, in tokens; omitted: the limit."),
    ] = None
    cores: Annotated[
        int | None, Meta(ge=1, le=1 << 16, description="Physical cores per instance; the planner chooses which.")
    ] = None
    cpus: Annotated[
        CpuList | None, Meta(description='Exactly these CPUs, for example "24-47"; replicas share them out evenly.')
    ] = None
    node: Annotated[int | None, Meta(ge=0, le=1 << 16, description="NUMA node of the cores; omitted: chosen.")] = None
    membind: Annotated[
        tuple[Annotated[int, Meta(ge=0, le=1 << 16)], ...] | None,
        Meta(min_length=1, description="NUMA nodes its memory comes from; omitted: the node of its cores."),
    ] = None
    threads: Annotated[
        int | None, Meta(ge=1, le=1 << 16, description="Threads of the engine; omitted: one per physical core.")
    ] = None
    precision: Annotated[
        Precision | None, Meta(description="Precision of its products; omitted: that of the layout.")
    ] = None
    engine: Annotated[Engine | None, Meta(description="Its inference engine; omitted: that of the layout.")] = None
    allocator: Annotated[
        Allocator | None, Meta(description="Memory allocator of its processes; omitted: that of the layout.")
    ] = None
    huge_pages: Annotated[
        HugePages | None, Meta(description="Pages of its allocator; omitted: those of the layout.")
    ] = None


class Batching(Struct, frozen=True, kw_only=True):
    """How much goes into one batch."""

    max_batch_tokens: Annotated[
        int,
        Meta(ge=1, le=1 << 24, description="Most tokens in one batch, padding included; a longer sequence goes alone."),
    ] = 512
    max_queue_delay_ms: Annotated[
        float,
        Meta(ge=0, le=60_000, description="How long a batch may wait for company while an instance is idle."),
    ] = 0.0


class LimitsConfig(Struct, frozen=True, kw_only=True):
    """What is refused, and when."""

    queue: Annotated[int, Meta(ge=1, le=1 << 24, description="Sequences that may wait in the router; then 429.")] = 1024
    in_flight: Annotated[int, Meta(ge=1, le=1 << 24, description="Requests at once in one gateway; beyond it 429.")] = (
        4096
    )
    body_mb: Annotated[float, Meta(gt=0, le=1024, description="Largest request body, in MiB; beyond it 413.")] = 8.0
    batch: Annotated[int, Meta(ge=1, le=1 << 20, description="Most texts in one request; beyond it 413.")] = 256
    truncate: Annotated[
        bool, Meta(description="Cut a text that is too long even where the request does not ask for it.")
    ] = False
    timeout_ms: Annotated[
        int, Meta(ge=1, le=86_400_000, description="Deadline of a request that names none, in milliseconds.")
    ] = 60_000


class CachesConfig(Struct, frozen=True, kw_only=True):
    """What a gateway keeps, so as not to compute it again."""

    tokens_mb: Annotated[
        float, Meta(ge=0, le=65_536, description="Tokens of texts seen before, in MiB per gateway; 0: none.")
    ] = 16.0
    answers_mb: Annotated[
        float, Meta(ge=0, le=65_536, description="Answers given before, in MiB per gateway; 0: none.")
    ] = 0.0
    join: Annotated[bool, Meta(description="Compute requests that are alike and under way at the same time once.")] = (
        False
    )


class ProcessLimits(Struct, frozen=True, kw_only=True):
    """Resource limits of every child process (setrlimit(2)); omitted: those of the supervisor."""

    nofile: Annotated[
        int | None, Meta(ge=64, le=1 << 24, description="Descriptors that a child may have open; omitted: inherited.")
    ] = None
    core_mb: Annotated[
        int | None, Meta(ge=0, le=1 << 24, description="Largest core dump, in MiB; 0: none; omitted: inherited.")
    ] = None
    address_space_mb: Annotated[
        int | None,
        Meta(
            ge=512, le=1 << 30, description="Address space of a child, in MiB; engines reserve much more than they use."
        ),
    ] = None


class SupervisionConfig(Struct, frozen=True, kw_only=True):
    """How long the supervisor waits, in seconds."""

    start_timeout_s: Annotated[
        float, Meta(ge=1, le=86_400, description="A worker that is not ready after this many seconds is started again.")
    ] = 120.0
    drain_timeout_s: Annotated[
        float, Meta(ge=0, le=86_400, description="Seconds that what was accepted may take to be answered at the end.")
    ] = 30.0
    flap_failures: Annotated[
        int,
        Meta(
            ge=2,
            le=1 << 24,
            description="So many failures of an instance within flap_window_s, ready between them or not, and it stays down.",
        ),
    ] = 10
    flap_window_s: Annotated[
        float, Meta(gt=0, le=86_400, description="Seconds over which the failures of an instance are counted.")
    ] = 600.0
    parallel_starts: Annotated[
        int, Meta(ge=1, le=MOST_INSTANCES, description="Processes that may be starting at the same time.")
    ] = 8
    max_rss_mb: Annotated[
        float | None,
        Meta(
            gt=0,
            le=1 << 30,
            description="Memory of a worker (its share, PSS), in MiB, beyond which it is replaced, one at a time; omitted: none.",
        ),
    ] = None
    max_age_s: Annotated[
        float | None,
        Meta(
            ge=1,
            le=1 << 30,
            description="Age of a worker, in seconds, at which it is replaced, up to a tenth earlier, one at a time; omitted: none.",
        ),
    ] = None
    limits: Annotated[ProcessLimits, Meta(description="Resource limits of every child process.")] = ProcessLimits()
    replan: Annotated[
        bool,
        Meta(
            description="Make the plan anew without an instance that has failed for good: its cores go to the others, or stay idle "
            "where the layout lists the instances."
        ),
    ] = True
    quarantine_s: Annotated[
        float, Meta(ge=0, le=86_400, description="Seconds after its last failure that an instance is left in the plan.")
    ] = 60.0


class LogsConfig(Struct, frozen=True, kw_only=True):
    """What is written down, where and how much of it."""

    dir: Annotated[
        str | None,
        Meta(min_length=1, description="Folder of the log files; omitted: systemd's, else the user's own for state."),
    ] = None
    max_mb: Annotated[
        float,
        Meta(
            ge=0, le=65_536, description="Size at which the log file of an instance is begun anew, in MiB; 0: no files."
        ),
    ] = 8.0
    keep: Annotated[int, Meta(ge=0, le=1000, description="Full log files that are kept of each instance.")] = 3
    format: Annotated[
        LogFormat, Meta(description="How lines go to standard error: text for people, or one JSON object a line.")
    ] = "text"
    access: Annotated[
        AccessLog, Meta(description="Which requests the gateways write down: none, those that failed, or all.")
    ] = "errors"


class Layout(Struct, frozen=True, kw_only=True):
    """A layout file. Everything but `version` may be omitted."""

    version: Annotated[int, Meta(ge=VERSION, le=VERSION, description="Version of the layout format.")]
    model: Annotated[
        str | None, Meta(min_length=1, description="Model directory, hub id or synthetic:NAME; omitted: the default.")
    ] = None
    task: Annotated[str | None, Meta(min_length=1, description="Task of the model; omitted: what the model says.")] = (
        None
    )
    precision: Annotated[
        Precision,
        Meta(
            description="Precision of the products. fp32 gives the model's own answers; auto takes, per bucket, the fastest "
            "of fp32, bf16 and int8 whose answers are close enough."
        ),
    ] = "fp32"
    engine: Annotated[Engine, Meta(description="Inference engine.")] = "auto"
    min_cosine: Annotated[
        float,
        Meta(ge=0, le=1, description="Mean cosine to fp32 under which auto takes no other precision."),
    ] = 0.99
    policy: Annotated[Policy, Meta(description="How the router chooses an instance for a sequence.")] = "by-seqlen"
    max_seqlen: Annotated[
        int | None,
        Meta(
            ge=1, le=LONGEST_SEQUENCE, description="Longest sequence that is served, in tokens; omitted: the model's."
        ),
    ] = None
    host: Annotated[str, Meta(min_length=1, description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="Port to listen on; 0 takes a free one.")] = 8080
    keys_file: Annotated[
        str | None,
        Meta(min_length=1, description="File of the keys that may ask, one a line; omitted: everybody may."),
    ] = None
    gateways: Annotated[
        int | None, Meta(ge=1, le=256, description="Gateway processes; omitted: one per housekeeping core.")
    ] = None
    housekeeping: Annotated[
        HousekeepingConfig | None, Meta(description="Where router and gateways run; omitted: chosen.")
    ] = None
    instances: Annotated[
        tuple[InstanceGroup, ...],
        Meta(min_length=1, max_length=MOST_INSTANCES, description="The instances; omitted: chosen."),
    ] = ()
    batching: Annotated[Batching, Meta(description="How much goes into one batch.")] = Batching()
    limits: Annotated[LimitsConfig, Meta(description="What is refused, and when.")] = LimitsConfig()
    allocator: Annotated[
        Allocator,
        Meta(
            description="Memory allocator of the workers: tcmalloc and jemalloc are preloaded from the system's library; openvino "
            "aborts with either, so such workers compute on onnxruntime. system: the C library's, or what LD_PRELOAD brings."
        ),
    ] = "system"
    huge_pages: Annotated[
        HugePages,
        Meta(
            description="Pages of the workers' allocator: transparent asks the kernel for huge pages (madvise), reserved takes them "
            "from vm.nr_hugepages, system leaves it to the kernel's own setting."
        ),
    ] = "system"
    cpu_latency_us: Annotated[
        int | None,
        Meta(
            ge=0,
            le=1_000_000,
            description="While it serves, no idle core of the host may take longer than this to wake up, in microseconds; 0: they spin. "
            "Saves a lone request the wake-ups, and costs power. Omitted: as the host has it.",
        ),
    ] = None
    supervision: Annotated[SupervisionConfig, Meta(description="How long the supervisor waits.")] = SupervisionConfig()
    caches: Annotated[CachesConfig, Meta(description="What a gateway keeps, so as not to compute it again.")] = (
        CachesConfig()
    )
    logs: Annotated[LogsConfig, Meta(description="What is written down, where and how much of it.")] = LogsConfig()
    allow: Annotated[
        tuple[Allowance, ...],
        Meta(description="Conflicts that are meant: overlap, smt (siblings of one core), remote-memory."),
    ] = ()
    places: Places = Places()
    """Where each part stands in the file; not an option."""


def layout_max_seqlen(layout: Layout) -> int | None:
    """The longest sequence that the layout asks for, in tokens: `max_seqlen`, else the largest of its instances.

    None where it leaves that to the model.
    """
    if layout.max_seqlen is not None:
        return layout.max_seqlen
    lengths = [group.max_seqlen for group in layout.instances]
    known = [length for length in lengths if length is not None]
    return max(known) if known and len(known) == len(lengths) else None
