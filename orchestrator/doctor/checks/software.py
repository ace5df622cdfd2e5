"""Do the allocators that are preloaded and the engines that are installed bear each other? Pure.

OpenVINO 2026.4.1 aborts with tcmalloc or jemalloc preloaded (`invalid pointer`), seen with either.
onnxruntime gained nothing from either when measured.
"""

from __future__ import annotations

from orchestrator.allocators import allocator_of, preloaded_allocators
from orchestrator.config.allocation import openvino_may_serve
from orchestrator.doctor.finding import Finding, Level
from orchestrator.doctor.host import Host, Unread

_ABORTS = "openvino aborts with it (invalid pointer)"


def engines(host: Host) -> Finding | None:
    if not host.live:
        return None
    if "onnxruntime" not in host.engines:
        return Finding(
            check="engines", group="software", level="broken", found="onnxruntime is not installed",
            cost="no model can be served", mend="pip install orchestrator",
        )  # fmt: skip
    found = ", ".join(f"{name} {version}" for name, version in host.engines.items())
    if "openvino" not in host.engines and _asks_for_openvino(host):
        return Finding(
            check="engines", group="software", level="broken", found=f"{found}; openvino, which the layout asks for, is missing",
            cost="`up` refuses to start", mend="pip install 'orchestrator[openvino]'",
        )  # fmt: skip
    return Finding(check="engines", group="software", level="ok", found=found)


def _asks_for_openvino(host: Host) -> bool:
    return host.layout.engine == "openvino" or host.layout.precision == "bf16"


def preload(host: Host) -> Finding | None:
    """LD_PRELOAD of this environment and of the running orchestrator, and the file that preloads into everything."""
    if not host.live:
        return None
    check = "allocator"
    by_file = [] if isinstance(host.preload_file, Unread) else host.preload_file.replace(":", " ").split()
    for library in by_file:
        if (
            (name := allocator_of(library)) is not None
            and "openvino" in host.engines
            and openvino_may_serve(host.layout)
        ):
            level: Level = "broken" if _asks_for_openvino(host) else "costs"
            return Finding(
                check=check, group="software", level=level, found=f"/etc/ld.so.preload brings {name} into every process",
                cost=f"{_ABORTS}: bf16 cannot be had, and precision auto loses its measurement",
                mend="take it out of /etc/ld.so.preload; `allocator` in a layout says it per instance",
            )  # fmt: skip
    environments = {"this shell": host.preload}
    if not isinstance(host.running, Unread):
        supervisor = next((each for each in host.running.processes if each.kind == "supervisor"), None)
        environments = {"the running orchestrator": supervisor.preload if supervisor is not None else ""}
    for whose, value in environments.items():
        brought = preloaded_allocators({"LD_PRELOAD": value})
        if brought:
            return Finding(
                check=check, group="software", level="note", found=f"LD_PRELOAD of {whose} brings {' and '.join(brought)}",
                cost=f"{_ABORTS}, so workers on openvino start without; nothing was gained on onnxruntime when measured",
                mend="unset LD_PRELOAD; `allocator` in a layout says it per instance",
            )  # fmt: skip
    return Finding(check=check, group="software", level="ok", found="none preloaded")


def layout_libraries(host: Host) -> Finding | None:
    """What the layout wants preloaded and this machine has not."""
    if not host.missing_libraries:
        return None
    return Finding(
        check="layout", group="software", level="broken", found="; ".join(host.missing_libraries),
        cost="`up` refuses to start", mend="orchestrator check says it with line and column",
    )  # fmt: skip
