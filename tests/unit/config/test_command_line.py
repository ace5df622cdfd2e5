"""Does what the command line says go before the layout file, its entries included?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.assemble import Options, settled_layout

NOTHING: dict[str, Any] = dict.fromkeys(
    ("model", "task", "precision", "engine", "instances", "policy", "max_seqlen", "host", "port")
)


def test_a_precision_on_the_command_line_goes_before_those_of_the_entries(tmp_path: Path) -> None:
    path = tmp_path / "l.yaml"
    path.write_text(
        "version: 1\nprecision: auto\ninstances:\n  - {name: a, cores: 1, precision: int8, engine: onnxruntime}\n"
    )

    def settled(**said: Any) -> tuple[str, str | None, str | None]:
        options = Options(layout=path, runtime=tmp_path, cache=tmp_path, **{**NOTHING, **said})
        layout = settled_layout(options)
        (entry,) = layout.instances
        return layout.precision, entry.precision, entry.engine

    assert settled() == ("auto", "int8", "onnxruntime")
    assert settled(precision="fp32") == ("fp32", None, "onnxruntime")
    assert settled(engine="openvino") == ("auto", "int8", None)
