"""Which machines are the proofs run on? Shapes, and the QEMU arguments that make them."""

from __future__ import annotations

from dataclasses import dataclass

from image import Image


@dataclass(frozen=True)
class Shape:
    about: str
    proofs: tuple[str, ...]
    sockets: int = 2
    cores: int = 2
    """Per socket; each has two threads."""
    nodes_per_socket: int = 1
    memory_only_nodes: int = 0
    without_memory: frozenset[int] = frozenset()
    megabytes_per_node: int = 1280

    @property
    def nodes_with_cpus(self) -> int:
        return self.sockets * self.nodes_per_socket

    @property
    def nodes(self) -> range:
        return range(self.nodes_with_cpus + self.memory_only_nodes)

    def distance(self, one: int, other: int) -> int:
        if one == other:
            return 10
        if max(one, other) >= self.nodes_with_cpus:
            return 17 if min(one, other) == 0 else 28  # attached to the first socket
        return 12 if one // self.nodes_per_socket == other // self.nodes_per_socket else 21


SHAPES = {
    "two-sockets": Shape(
        "2 sockets × 2 cores × 2 threads, a node each", ("topology", "placement", "limits", "ladder", "death", "unit", "boot")
    ),
    "four-nodes": Shape(
        "2 sockets × 4 cores × 2 threads, two nodes each", ("topology", "placement"), cores=4, nodes_per_socket=2,
        megabytes_per_node=768,
    ),
    "memory-only": Shape(
        "a third node with memory and no CPU", ("topology", "placement"), memory_only_nodes=1
    ),
    "without-memory": Shape(
        "a second node with CPUs and no memory", ("topology", "placement"), without_memory=frozenset({1}),
        megabytes_per_node=2560,
    ),
}  # fmt: skip


def qemu(shape: Shape, image: Image, project: str, out: str, proofs: list[str]) -> list[str]:
    """The whole command. The proofs' output is the second serial port, QEMU's standard output; the console goes to out/console."""
    with_memory = [node for node in shape.nodes if node not in shape.without_memory]
    numa = []
    for node in shape.nodes:
        if node in with_memory:
            numa += ["-object", f"memory-backend-ram,id=ram{node},size={shape.megabytes_per_node}M"]
            numa += ["-numa", f"node,nodeid={node},memdev=ram{node}"]
        else:
            numa += ["-numa", f"node,nodeid={node}"]
    for socket in range(shape.sockets):
        for core in range(shape.cores):
            node = socket * shape.nodes_per_socket + core * shape.nodes_per_socket // shape.cores
            numa += ["-numa", f"cpu,node-id={node},socket-id={socket},core-id={core}"]
    for one in shape.nodes:
        for other in shape.nodes:
            numa += ["-numa", f"dist,src={one},dst={other},val={shape.distance(one, other)}"]
    cpus = shape.sockets * shape.cores * 2
    kernel = f"console=ttyS0 root=/dev/vda rw quiet mitigations=off nowatchdog tsc=reliable proofs={','.join(proofs)}"
    return [
        "qemu-system-x86_64", "-machine", "q35", "-accel", "tcg,thread=multi",
        # With Intel's name the kernel reads threads, cores and caches from the leaves that QEMU fills for every shape.
        "-cpu", "max,vendor=GenuineIntel,family=6,model=85,stepping=7",
        "-smp", f"{cpus},sockets={shape.sockets},cores={shape.cores},threads=2",
        "-m", f"{shape.megabytes_per_node * len(with_memory)}M", *numa,
        "-kernel", str(image.kernel), "-initrd", str(image.initrd), "-append", kernel,
        "-drive", f"file={image.root},format=raw,if=virtio,snapshot=on",
        "-drive", f"file={image.site},format=raw,if=virtio,read-only=on",
        "-virtfs", f"local,path={project},mount_tag=project,security_model=none,readonly=on,multidevs=remap",
        "-virtfs", f"local,path={image.model},mount_tag=model,security_model=none,readonly=on,multidevs=remap",
        "-virtfs", f"local,path={out},mount_tag=out,security_model=none,multidevs=remap",
        "-serial", f"file:{out}/console", "-serial", "stdio",
        "-nodefaults", "-no-user-config", "-display", "none", "-monitor", "none", "-nic", "none",
    ]  # fmt: skip
