"""How does an fp32 graph become an int8 one whose answers can be trusted?

Theory of operation. Works on the finished fp32 graph, so every architecture that can be built can be quantised. A *product* is a MatMul or
Gemm whose second operand is a constant matrix; products that read the same value make a *site* and share its treatment. An int8
product is one `com.microsoft.DynamicQuantizeMatMul`, those of an attention are part of it (quantize_attention.py): weights symmetric
per output channel, activations asymmetric with one scale per tensor, found at each call. That one scale is the weak point: a few
channels of a transformer's activations are tens of times larger than the rest, and take the whole range. So each input channel is
divided by a scale s and its row of the weights multiplied by it (SmoothQuant, Xiao et al. 2022, https://arxiv.org/abs/2211.10438):
s = max|x|^α / max|w|^(1−α). α is searched per site on calibration activations, by the error of the simulated product, 0 (no scale)
included. Where the value comes out of attention, the scale goes into the weights of the value projection at no cost; elsewhere it is
one Mul, because the residual connection reads the unscaled value.
What is moved into the weights makes their rounding the larger error, so weights are not rounded to nearest but one row after the other,
each row's error made good by the rows after it (GPTQ, Frantar et al. 2022, https://arxiv.org/abs/2210.17323), on the activations as they
are after their own rounding; and the mean error that is left is taken off the bias.

On CPUs without VNNI (and without Arm's dot product) the products add pairs of u8 × s8 in 16 bits, which saturates: there weights keep
7 bits, so that 2 · 255 · 64 < 2^15 (onnxruntime issue 6004).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from orchestrator.models.quantize_graph import Graph, Site

EXACT_FEATURES = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"})
"""With any of these a product of u8 × s8 is summed in 32 bits from the start."""

ALPHAS = (0.0, 0.5, 0.7, 0.8, 0.9)
SEARCH_TOKENS = 800
"""Rows of activations that α is searched on: more changes no choice of MiniLM's."""
LARGEST_COMPENSATED = 1536
"""Inputs of a product whose rounding is compensated: the work grows with their cube (0.5 s at 1536, 5 s at 3072)."""
SHORT_WEIGHT = 0.25
"""A token of a text of n tokens counts as n^−0.25: at 0 the worst text of MiniLM has a cosine of 0.990, here 0.995, at 0.5 0.990 again."""
DAMPING = 0.01
"""Of the mean square of an input channel, added to each: the calibration has few tokens for many channels."""
_LARGEST = {8: 127.0, 7: 63.0}


@dataclass(frozen=True, slots=True)
class Treatment:
    """What is done at one site, in int8. The products of a site are one matrix here, one beside the other."""

    weights: np.ndarray
    """int8 [inputs, outputs]."""
    steps: np.ndarray
    """float32 [outputs]: what one step of the weights means."""
    alpha: float = 0.0
    scale: np.ndarray | None = None
    """float32 [inputs]: activations are divided by it. None: they are not."""
    correction: np.ndarray | None = None
    """float32 [outputs], added to the bias."""
    error: float = 0.0
    """Of the products on calibration activations: ‖int8 − fp32‖² / ‖fp32‖²."""


Treatments = Mapping[str, Treatment]
"""By a site's value. A site that is not named stays fp32."""


def weight_bits(cpu_features: Collection[str]) -> int:
    """8 where products are exact, 7 where they would saturate."""
    return 8 if EXACT_FEATURES & set(cpu_features) else 7


def quantise_weight(weight: np.ndarray, bits: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """float32 [inputs, outputs] → (int8 of the same shape, float32 scale [outputs]); symmetric."""
    scale = np.abs(weight).max(axis=0) / np.float32(_LARGEST[bits])
    scale = np.where(scale > 0, scale, np.float32(1)).astype(np.float32)
    return np.rint(weight / scale).astype(np.int8), scale


def rounded(values: np.ndarray) -> np.ndarray:
    """What is left of activations of one call after quantisation to 8 bits, as onnxruntime does it: zero is exact."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    step = (high - low) / 255.0 or 1.0
    zero = np.rint(-low / step)
    kept: np.ndarray = (np.clip(np.rint(values / np.float32(step)) + zero, 0, 255) - zero) * np.float32(step)
    return kept.astype(np.float32)


def plain(graph: Graph, bits: int) -> dict[str, Treatment]:
    """Weights rounded to nearest, no scale, nothing searched: what the common tools give."""
    return {site.value: Treatment(*quantise_weight(_matrix(graph, site), bits)) for site in graph.sites()}


def calibrated(
    graph: Graph,
    seen: Mapping[str, Sequence[np.ndarray]],
    bits: int,
    on_site: Callable[[int, int], None] | None = None,
) -> dict[str, Treatment]:
    """The best treatment of each site. `seen`: by value, one array [tokens, inputs] per call, as `activations` gives them.

    `on_site` is told after each site how many of how many are done.
    """
    sites = graph.sites()
    treatments: dict[str, Treatment] = {}
    for site in sites:
        treatments[site.value] = _treat(_matrix(graph, site), seen[site.value], bits, site)
        if on_site is not None:
            on_site(len(treatments), len(sites))
    return treatments


def _matrix(graph: Graph, site: Site) -> np.ndarray:
    return np.concatenate([graph.constant(product.weight) for product in site.products], axis=1)


def _treat(weights: np.ndarray, calls: Sequence[np.ndarray], bits: int, site: Site) -> Treatment:
    alpha, scale = _search(weights, calls, bits, free=site.source is not None)
    scaled = weights if scale is None else weights * scale[:, None]
    coarse = np.concatenate([rounded(call if scale is None else call / scale) for call in calls])
    kept, steps = quantise_weight(scaled, bits)
    share = np.concatenate([np.full((len(call), 1), len(call) ** -SHORT_WEIGHT, np.float32) for call in calls])
    if len(weights) <= LARGEST_COMPENSATED:
        heavy = coarse * share
        kept = compensated(scaled, steps, heavy.T @ heavy, bits)
    exact = np.concatenate(calls) @ weights
    difference = exact - coarse @ (kept.astype(np.float32) * steps)
    correction = (difference * share * share).sum(axis=0) / (share * share).sum()
    difference -= correction
    error = float((difference * difference).sum()) / max(float((exact * exact).sum()), 1e-30)
    return Treatment(kept, steps, alpha, scale, correction, error)


def _search(
    weights: np.ndarray, calls: Sequence[np.ndarray], bits: int, *, free: bool
) -> tuple[float, np.ndarray | None]:
    """(α, scale) of the least error. `free`: the scale costs nothing at run time."""
    largest = np.maximum.reduce([np.abs(call).max(axis=0) for call in calls])
    few = thinned(calls, SEARCH_TOKENS)
    exact = np.concatenate(few) @ weights
    best: tuple[float, float, np.ndarray | None] | None = None
    for alpha in ALPHAS:
        scale = smoothing_scale(largest, weights, alpha)
        kept, steps = quantise_weight(weights if scale is None else weights * scale[:, None], bits)
        coarse = np.concatenate([rounded(call if scale is None else call / scale) for call in few])
        difference = coarse @ (kept.astype(np.float32) * steps) - exact
        error = float((difference * difference).sum())
        # A scale that costs a Mul must earn it.
        if best is None or error < best[0] * (0.8 if best[2] is None and not free else 1.0):
            best = (error, alpha, scale)
    assert best is not None
    return best[1], best[2]


def thinned(calls: Sequence[np.ndarray], tokens: int) -> list[np.ndarray]:
    """Every n-th call, so that about so many tokens are left, short and long ones alike."""
    total = sum(len(call) for call in calls)
    return list(calls[:: max(1, round(total / tokens))])


def compensated(weights: np.ndarray, steps: np.ndarray, gram: np.ndarray, bits: int = 8, block: int = 64) -> np.ndarray:
    """int8 [inputs, outputs] with the least error over activations whose Gram matrix [inputs, inputs] is given; GPTQ."""
    inputs = len(weights)
    order = np.argsort(-np.diag(gram), kind="stable")
    curve = gram[np.ix_(order, order)].astype(np.float64)
    curve[np.diag_indices(inputs)] += DAMPING * max(float(np.diag(gram).mean()), 1e-12)
    upper = np.linalg.cholesky(np.linalg.inv(curve)).T.astype(np.float32)
    left = weights[order].astype(np.float32)
    kept = np.zeros(weights.shape, np.int8)
    most = _LARGEST[bits]
    for start in range(0, inputs, block):
        end = min(start + block, inputs)
        errors = np.zeros((end - start, weights.shape[1]), np.float32)
        for row in range(start, end):
            chosen = np.clip(np.rint(left[row] / steps), -most, most)
            kept[order[row]] = chosen
            errors[row - start] = (left[row] - chosen * steps) / upper[row, row]
            left[row + 1 : end] -= np.outer(upper[row, row + 1 : end], errors[row - start])
        left[end:] -= upper[start:end, end:].T @ errors
    return kept


def smoothing_scale(largest: np.ndarray, weights: np.ndarray, alpha: float) -> np.ndarray | None:
    """float32 [inputs] from the largest activation of each channel; None for α = 0. Its geometric mean is 1."""
    if alpha == 0.0:
        return None
    x = np.maximum(largest, largest.max() * 1e-5 + 1e-12).astype(np.float64)
    w = np.maximum(np.abs(weights).max(axis=1), 1e-12).astype(np.float64)
    logs = alpha * np.log(x) - (1.0 - alpha) * np.log(w)
    scale: np.ndarray = np.exp(logs - logs.mean()).astype(np.float32)
    return scale
