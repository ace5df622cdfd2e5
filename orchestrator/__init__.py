"""Serves transformer models on CPU servers: NUMA-placed instances, routed by sequence length, supervised."""

__version__ = "0.1.0"
