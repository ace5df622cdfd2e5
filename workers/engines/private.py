"""What do the engines tell their makers? Nothing. Imported before either of them: it is too late afterwards.

Left alone, both report. ONNX Runtime (from 1.31 on Linux) makes an identifier of the machine below the user's cache at its import, and
sends events about processes, sessions and models; ORT_DISABLE_TELEMETRY is read once, at that import. The Python package of OpenVINO
brings openvino_telemetry along, which writes an identifier to ~/intel; where it cannot be imported, a stub in OpenVINO takes its place.
Source: ONNX Runtime, pull request 27379; openvino/tools/ovc/telemetry_utils.py.
"""

from __future__ import annotations

import os
import sys
from typing import Final

SILENCE: Final = {"ORT_DISABLE_TELEMETRY": "1"}
"""For the environment of every process that may load an engine."""

os.environ.update(SILENCE)
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # importing it raises ImportError
