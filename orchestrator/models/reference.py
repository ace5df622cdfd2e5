"""What should an encoder compute? Written down once more in numpy, for the check of every artefact.

It shares with the graph the names of the tensors and nothing else: separate projections, plain softmax, text by text without
padding, token types and distances added where they belong. It is for a few dozen tokens, not for speed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from orchestrator.models.build.disentangled import Disentangled
from orchestrator.models.build.encoder import Activation, Encoder, Layer, Linear, Norm, RelativeBias
from orchestrator.models.build.modernbert import ModernBert
from orchestrator.models.build.vit import PATCHES, Vit
from orchestrator.models.weights import Weights, take


def encode(
    encoder: Encoder, weights: Weights, ids: Sequence[np.ndarray], types: Sequence[np.ndarray] | None = None
) -> list[np.ndarray]:
    """The encoder's last hidden state for each text, float32 [length, width]. `types` are those of its tokens, all 0 where None.

    The tokens of all texts stand one below the other, so that each tensor is read once; only attention goes text by text.
    """
    if isinstance(encoder, ModernBert):
        return [_encode_modern(encoder, weights, one) for one in ids]
    shapes = encoder.tensors()
    ends = np.cumsum([len(one) for one in ids])
    texts = [slice(end - len(one), end) for end, one in zip(ends, ids, strict=True)]

    def tensor(name: str) -> np.ndarray:
        return take(weights, name, shapes[name])

    def linear(one: Linear, value: np.ndarray) -> np.ndarray:
        product: np.ndarray = value @ tensor(f"{one.name}.weight").T + tensor(f"{one.name}.bias")
        return product

    def norm(one: Norm, value: np.ndarray) -> np.ndarray:
        centred = value - value.mean(axis=-1, keepdims=True)
        variance = (centred * centred).mean(axis=-1, keepdims=True)
        scaled: np.ndarray = centred / np.sqrt(variance + np.float32(encoder.epsilon))
        shifted: np.ndarray = scaled * tensor(f"{one.name}.weight") + tensor(f"{one.name}.bias")
        return shifted

    def bias_of(relative: RelativeBias, length: int) -> np.ndarray:
        table = tensor(relative.name)
        rows = [[table[bucket_of(relative, key - query)] for key in range(length)] for query in range(length)]
        return np.array(rows, np.float32).transpose(2, 0, 1)

    def by_distance(disentangled: Disentangled, layer: Layer, q: np.ndarray, k: np.ndarray) -> np.ndarray:
        table = tensor(disentangled.table)
        if disentangled.norm is not None:
            table = norm(disentangled.norm, table)
        keys, queries = (
            linear(one, table).reshape(-1, encoder.heads, encoder.width // encoder.heads)
            for one in (layer.distance_key or layer.key, layer.distance_query or layer.query)
        )
        total = np.zeros((encoder.heads, len(q), len(k)), np.float32)
        for i in range(len(q)):
            for j in range(len(k)):
                row = row_of(disentangled, i - j)
                if disentangled.key_of_distance:
                    total[:, i, j] += (q[i] * keys[row]).sum(axis=-1)
                if disentangled.query_of_distance:
                    total[:, i, j] += (k[j] * queries[row]).sum(axis=-1)
        return total

    def attend(layer: Layer, value: np.ndarray) -> np.ndarray:
        mixed = np.empty_like(value)
        query, key, content = (linear(one, value) for one in (layer.query, layer.key, layer.value))
        for text in texts:
            q, k, v = (
                one[text].reshape(-1, encoder.heads, encoder.width // encoder.heads) for one in (query, key, content)
            )
            scores = np.einsum("ihd,jhd->hij", q, k)
            terms = 1
            if encoder.disentangled is not None:
                scores = scores + by_distance(encoder.disentangled, layer, q, k)
                terms = encoder.disentangled.terms
            scores = scores / np.float32(np.sqrt(terms * encoder.width / encoder.heads))
            if encoder.relative is not None:
                scores = scores + bias_of(encoder.relative, len(q))
            scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
            shares = scores / scores.sum(axis=-1, keepdims=True)
            mixed[text] = np.einsum("hij,jhd->ihd", shares, v).reshape(-1, encoder.width)
        return linear(layer.attended, mixed)

    words, first = tensor(encoder.words), encoder.first_place
    value = np.concatenate([words[one] for one in ids])
    if encoder.places is not None:
        places = tensor(encoder.places)
        value = value + np.concatenate([places[first : first + len(one)] for one in ids])
    if encoder.types is not None:
        value = value + tensor(encoder.types)[0 if types is None else np.concatenate(types)]
    value = norm(encoder.embedded_norm, value)
    if encoder.widened is not None:
        value = linear(encoder.widened, value)
    for layer in encoder.layers:
        value = norm(layer.attended_norm, value + attend(layer, value))
        inner = _ACTIVATE[encoder.activation](linear(layer.up, value))
        value = norm(layer.norm, value + linear(layer.down, inner))
    return [value[text].astype(np.float32, copy=False) for text in texts]


def _encode_modern(encoder: ModernBert, weights: Weights, ids: np.ndarray) -> np.ndarray:
    """One text by a ModernBERT, float32 [length, width]."""
    shapes = encoder.tensors()
    length, head = len(ids), encoder.width // encoder.heads
    thetas = dict(encoder.thetas)

    def tensor(name: str) -> np.ndarray:
        return take(weights, name, shapes[name])

    def linear(name: str, value: np.ndarray) -> np.ndarray:
        product: np.ndarray = value @ tensor(f"{name}.weight").T
        return product + tensor(f"{name}.bias") if f"{name}.bias" in shapes else product

    def norm(name: str, value: np.ndarray) -> np.ndarray:
        deviation = np.sqrt(value.var(axis=-1, keepdims=True) + np.float32(encoder.epsilon))
        scaled: np.ndarray = (value - value.mean(axis=-1, keepdims=True)) / deviation * tensor(f"{name}.weight")
        return scaled + tensor(f"{name}.bias") if encoder.norm_bias else scaled

    def turned(value: np.ndarray, theta: float) -> np.ndarray:
        """Pairs (i, i + half) of a head as complex numbers, turned by place · theta^(−i / half)."""
        pairs = value[..., : head // 2] + 1j * value[..., head // 2 :].astype(np.float64)
        angles = np.arange(length)[:, None] * theta ** (-2.0 * np.arange(head // 2) / head)
        pairs = pairs * np.exp(1j * angles)[:, None, :]
        return np.concatenate([pairs.real, pairs.imag], axis=-1).astype(np.float32)

    value = norm("embeddings.norm", tensor(encoder.words)[ids])
    apart = np.abs(np.arange(length)[:, None] - np.arange(length)[None, :])
    for number, sight in enumerate(encoder.sights):
        at = f"layers.{number}"
        seen = norm(f"{at}.attn_norm", value) if number else value
        q, k, v = np.split(linear(f"{at}.attn.Wqkv", seen).reshape(length, 3 * encoder.heads, head), 3, axis=1)
        q, k = turned(q, thetas[sight]), turned(k, thetas[sight])
        scores = np.einsum("ihd,jhd->hij", q, k) / np.float32(np.sqrt(head))
        if sight == "sliding_attention":
            scores = np.where(apart <= encoder.window, scores, -np.inf)
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        shares = scores / scores.sum(axis=-1, keepdims=True)
        value = value + linear(f"{at}.attn.Wo", np.einsum("hij,jhd->ihd", shares, v).reshape(length, encoder.width))
        up, gate = np.split(linear(f"{at}.mlp.Wi", norm(f"{at}.mlp_norm", value)), 2, axis=-1)
        value = value + linear(f"{at}.mlp.Wo", activate(encoder.activation, up) * gate)
    return norm("final_norm", value).astype(np.float32)


def encode_images(encoder: Vit, weights: Weights, images: np.ndarray) -> list[np.ndarray]:
    """A ViT's last hidden state for each image, float32 [positions, width]. `images` is float32 [n, channels, height, width].

    The patches are cut out here and multiplied as rows, where the graph convolves.
    """
    shapes = encoder.tensors()
    head = encoder.width // encoder.heads
    high, wide = encoder.patch

    def tensor(name: str) -> np.ndarray:
        return take(weights, name, shapes[name])

    def linear(name: str, value: np.ndarray) -> np.ndarray:
        product: np.ndarray = value @ tensor(f"{name}.weight").T
        return product + tensor(f"{name}.bias") if f"{name}.bias" in shapes else product

    def norm(name: str, value: np.ndarray) -> np.ndarray:
        deviation = np.sqrt(value.var(axis=-1, keepdims=True) + np.float32(encoder.epsilon))
        scaled: np.ndarray = (value - value.mean(axis=-1, keepdims=True)) / deviation * tensor(f"{name}.weight")
        shifted: np.ndarray = scaled + tensor(f"{name}.bias")
        return shifted

    kernel = tensor(f"{PATCHES}.weight").reshape(encoder.width, -1)
    found = []
    for image in images:
        patches = [
            image[:, top : top + high, left : left + wide].ravel()
            for top in range(0, encoder.image[0], high)
            for left in range(0, encoder.image[1], wide)
        ]
        rows = np.stack(patches) @ kernel.T + tensor(f"{PATCHES}.bias")
        value = np.concatenate([tensor("embeddings.cls_token")[0], rows]) + tensor("embeddings.position_embeddings")[0]
        for number in range(encoder.stored_layers):
            at = f"{encoder.layer_prefix}{number}"
            query, key, content, attended, up, down = (name for name, *_ in encoder.linears(number))
            seen = norm(f"{at}.layernorm_before", value)
            q, k, v = (linear(name, seen).reshape(-1, encoder.heads, head) for name in (query, key, content))
            scores = np.einsum("ihd,jhd->hij", q, k) / np.float32(np.sqrt(head))
            scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
            shares = scores / scores.sum(axis=-1, keepdims=True)
            value = value + linear(attended, np.einsum("hij,jhd->ihd", shares, v).reshape(-1, encoder.width))
            inner = activate(encoder.activation, linear(up, norm(f"{at}.layernorm_after", value)))
            value = value + linear(down, inner)
        found.append(norm("layernorm", value).astype(np.float32))
    return found


def bucket_of(relative: RelativeBias, distance: int) -> int:
    """One distance at a time, in words of its definition."""
    half = relative.buckets // 2
    exact = half // 2
    side = half if distance > 0 else 0
    far = abs(distance)
    if far < exact:
        return side + far
    share = np.log(np.float32(far / exact)) / np.float32(np.log(relative.farthest / exact))
    return side + min(half - 1, exact + int(share * np.float32(half - exact)))


def row_of(disentangled: Disentangled, distance: int) -> int:
    """Of the table of distances, for place of the query − place of the key."""
    middle, bucket = disentangled.buckets // 2, distance
    if disentangled.buckets and abs(distance) > middle:
        widest = np.log(np.float32((disentangled.farthest - 1) / middle))
        share = np.log(np.float32(abs(distance) / middle)) / widest
        bucket = (int(np.ceil(share * np.float32(middle - 1))) + middle) * (1 if distance > 0 else -1)
    return min(max(bucket + disentangled.span, 0), 2 * disentangled.span - 1)


def _gelu(value: np.ndarray) -> np.ndarray:
    """x · Φ(x). The error function by Abramowitz and Stegun 7.1.26, in float64: wrong by at most 1.5e-7."""
    x = value.astype(np.float64) / np.sqrt(2.0)
    t = 1.0 / (1.0 + 0.3275911 * np.abs(x))
    series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    erf = np.sign(x) * (1.0 - series * np.exp(-x * x))
    active: np.ndarray = (value * 0.5 * (1.0 + erf)).astype(np.float32)
    return active


def _gelu_tanh(value: np.ndarray) -> np.ndarray:
    inner = np.sqrt(2.0 / np.pi) * (value + 0.044715 * value.astype(np.float64) ** 3)
    active: np.ndarray = (0.5 * value * (1.0 + np.tanh(inner))).astype(np.float32)
    return active


def _relu(value: np.ndarray) -> np.ndarray:
    active: np.ndarray = np.maximum(value, np.float32(0))
    return active


def _silu(value: np.ndarray) -> np.ndarray:
    active: np.ndarray = (value / (1.0 + np.exp(-value.astype(np.float64)))).astype(np.float32)
    return active


_ACTIVATE: dict[Activation, Callable[[np.ndarray], np.ndarray]] = {
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "relu": _relu,
    "silu": _silu,
}


def activate(name: Activation, value: np.ndarray) -> np.ndarray:
    """An activation by its name."""
    return _ACTIVATE[name](value)
